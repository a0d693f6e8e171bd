// The timeline: concurrent transactions in separate lanes, and below them the work of the database.
const ENDS = ["still open", "committed", "rolled back", "failed to end", "disconnected"];
const COLOURS = ["unended", "committed", "rolled", "bad", "unended"];
const WORK = 110, AXIS = 18, LANES = 220, MARK = 8;
const wall = Math.max(totals.wall_ms, 1e-6);
let view = [0, wall], dragged = null;

function lanes() {
  const deep = Math.min(timeline.transactions.reduce((most, band) => Math.max(most, band[1]), 0), 3);
  const wanted = 11 + 5 * deep, all = Math.min(timeline.lanes * wanted, LANES);
  return { all, each: timeline.lanes ? all / timeline.lanes : 0, deep };
}

function legend() {
  const outcomes = new Set(timeline.transactions.map(band => band[4]));
  const entries = [["bar", "executing"]];
  if (totals.fetch_ms) entries.push(["fetch", "fetching rows"]);
  if (totals.failed) entries.push(["bad", "▾ failed statement"]);
  for (const outcome of [1, 2, 3, 0, 4]) if (outcomes.has(outcome)) entries.push([COLOURS[outcome], `transaction ${ENDS[outcome]}`]);
  if (timeline.transactions.some(band => band[1])) entries.push(["", "thin bars below: savepoints"]);
  at("legend").replaceChildren(...entries.map(([colour, text]) => {
    const entry = make("span"), patch = make("i");
    patch.style.background = `var(--${colour})`;
    entry.append(...(colour ? [patch] : []), text);
    return entry;
  }));
}

function drawBands(pen, colour, x, wide, { each, deep }) {
  const gap = each > 4 ? 1 : 0, main = deep ? each * .55 : each;
  for (const [lane, depth, start, length, outcome] of timeline.transactions) {
    const left = x(start), right = x(start + length);
    if (right < 0 || left > wide) continue;
    const level = Math.min(depth, 3), thin = deep ? (each - main) / deep : 0;
    const top = lane * each + (level ? main + (level - 1) * thin : 0), high = (level ? thin : main) - gap;
    pen.fillStyle = colour[COLOURS[outcome]];
    // A gap at the end separates adjacent transactions.
    pen.fillRect(left, top + gap, Math.max(right - left - (right - left > 3 ? 1 : 0), 1), Math.max(high, .5));
  }
}

/** Return how much of each pixel's time was spent executing, fetching, and in statements that are filtered out. */
function spent(wide) {
  const found = [0, 1, 2].map(() => new Float64Array(wide)), slot = (view[1] - view[0]) / wide;
  const spread = (into, start, length) => {
    const from = (start - view[0]) / slot, to = from + length / slot;
    for (let n = Math.max(Math.floor(from), 0); n < Math.min(to, wide); n++) into[n] += Math.min(n + 1, to) - Math.max(n, from);
  };
  for (const [start, length, fetch, place] of timeline.queries) {
    if (start > view[1] || start + length + fetch < view[0]) continue;
    const wanted = chosen.has(place);
    spread(found[wanted ? 0 : 2], start, length);
    spread(found[wanted ? 1 : 2], start + length, fetch);
  }
  return found;
}

function drawWork(pen, colour, wide, top) {
  const parts = spent(wide), high = WORK - MARK;
  const most = parts[0].reduce((so_far, value, n) => Math.max(so_far, value + parts[1][n] + parts[2][n]), 1);
  const floor = new Float64Array(wide);
  ["bar", "fetch", "other"].forEach((name, part) => {
    pen.fillStyle = colour[name];
    for (let n = 0; n < wide; n++) {
      const tall = parts[part][n] / most * high;
      if (tall) pen.fillRect(n, top + WORK - floor[n] - tall, 1, tall);
      floor[n] += tall;
    }
  });
}

function drawFailures(pen, colour, x, wide, top) {
  pen.fillStyle = colour.bad;
  for (const [start, , , , failed] of timeline.queries) {
    const left = x(start);
    if (!failed || left < -MARK || left > wide + MARK) continue;
    pen.fillRect(left, top, 1, WORK);
    pen.beginPath(); pen.moveTo(left - 4, top); pen.lineTo(left + 5, top); pen.lineTo(left + .5, top + MARK); pen.fill();
  }
}

function drawAxis(pen, colour, wide, top) {
  pen.fillStyle = pen.strokeStyle = colour.soft;
  pen.font = "11px system-ui, sans-serif";
  const steps = Math.max(Math.min(Math.floor(wide / 110), 10), 1), digits = view[1] - view[0] < 50 ? 2 : view[1] - view[0] < 1000 ? 1 : 0;
  for (let n = 0; n <= steps; n++) {
    const x = n / steps * wide;
    pen.textAlign = n === 0 ? "left" : n === steps ? "right" : "center";
    pen.fillRect(Math.min(x, wide - 1), top, 1, 3);
    pen.fillText(number(view[0] + (view[1] - view[0]) * n / steps, digits) + (n === steps ? " ms" : ""), x, top + 14);
  }
}

function draw() {
  const canvas = at("timeline"), ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const above = lanes(), top = above.all + (above.all ? 6 : 0), high = top + WORK + AXIS;
  canvas.style.height = `${high + 2}px`;
  const wide = Math.max(canvas.clientWidth, 1);
  canvas.width = wide * ratio; canvas.height = high * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const colour = Object.fromEntries(["bar", "fetch", "bad", "other", "soft", ...COLOURS].map(name => [name, style.getPropertyValue(`--${name}`)]));
  const x = time => (time - view[0]) / (view[1] - view[0]) * wide;
  drawBands(pen, colour, x, wide, above);
  drawWork(pen, colour, wide, top);
  drawFailures(pen, colour, x, wide, top);
  drawAxis(pen, colour, wide, top + WORK);
  if (dragged) {
    pen.globalAlpha = .25; pen.fillStyle = colour.bar;
    pen.fillRect(x(Math.min(...dragged)), 0, Math.abs(x(dragged[0]) - x(dragged[1])), high);
  }
  at("whole").hidden = view[0] === 0 && view[1] === wall;
  at("scale").textContent = "Drag to zoom in."
    + (timeline.left_out ? ` The ${number(timeline.left_out, 0)} shortest queries are not drawn.` : "");
}

/** Return a description of what was going on at a given time. */
function pointed(time, y) {
  const near = (view[1] - view[0]) / at("timeline").clientWidth, above = lanes();
  const over = (start, length) => start - near <= time && time <= start + length + near;
  if (y < above.all) {
    const lane = Math.floor(y / above.each);
    const bands = timeline.transactions.filter(band => band[0] === lane && over(band[2], band[3])).sort((a, b) => a[1] - b[1]);
    return bands.slice(0, 4).map(band => `${band[1] ? "savepoint" : "transaction"} ${ENDS[band[4]]}, ${number(band[3], 2)} ms`).join("; ");
  }
  const there = timeline.queries.filter(one => over(one[0], one[1] + one[2]));
  if (!there.length) return "";
  const [, length, fetch, place, failed] = there.sort((a, b) => b[4] - a[4] || b[1] + b[2] - a[1] - a[2])[0];
  const more = there.length > 1 ? ` and ${number(there.length - 1, 0)} more` : "";
  return `${failed ? "failed: " : ""}${statements[place].fingerprint.slice(0, 200)} (${number(length + fetch, 2)} ms)${more}`;
}

const moment = event => view[0] + Math.min(Math.max(event.offsetX / at("timeline").clientWidth, 0), 1) * (view[1] - view[0]);
at("timeline").onpointermove = event => {
  const text = pointed(moment(event), event.offsetY);
  at("pointed").textContent = `${number(moment(event), 2)} ms${text ? ": " + text : ""}`;
  if (dragged) { dragged[1] = moment(event); draw(); }
};
at("timeline").onpointerdown = event => { dragged = [moment(event), moment(event)]; event.target.setPointerCapture(event.pointerId); };
at("timeline").onpointerup = () => {
  const [from, to] = dragged.sort((a, b) => a - b);
  if ((to - from) / (view[1] - view[0]) > .005) view = [from, to];
  dragged = null;
  draw();
};
at("timeline").onpointercancel = () => { dragged = null; draw(); };
at("whole").onclick = () => { view = [0, wall]; draw(); };

legend();
show();
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("beforeprint", () => {
  document.documentElement.classList.add("paper");
  document.querySelectorAll("details").forEach(box => { box.fill(); box.open = true; });
  draw();
});
addEventListener("afterprint", () => { document.documentElement.classList.remove("paper"); draw(); });
