
// A plan: a diagram, in which the area of a node is its own time (or cost), and the same as a list.
const NODE = { width: 150, low: 26, high: 74, gapX: 46, gapY: 14 }, WRONG = 10, FEW_ROWS = 100;
// The namespace, whose name looks like an address, is taken from an element.
const SVG = (() => { const box = make("div"); box.innerHTML = "<svg></svg>"; return box.firstChild.namespaceURI; })();
const planTitle = node => [node["Node Type"], node["Relation Name"], node["Index Name"]].filter(Boolean).join(" ");
const hasRun = node => node["Actual Total Time"] !== undefined;

function planned(root) {
  const box = make("div");
  box.append(diagram(root), plan(root));
  return box;
}

/** Return how many times as many rows were found as estimated, or as many fewer if negative; 0 if close. */
function misjudged(node) {
  if (!hasRun(node) || !node["Actual Loops"]) return 0;
  const guessed = Math.max(node["Plan Rows"], 1), found = Math.max(+node["Actual Rows"], 1);
  if (Math.max(guessed, found) < FEW_ROWS) return 0;
  return found / guessed >= WRONG ? found / guessed : guessed / found >= WRONG ? -guessed / found : 0;
}

function estimateText(node) {
  const wrong = misjudged(node);
  return wrong ? `${number(Math.abs(wrong), 0)} × ${wrong > 0 ? "more" : "fewer"} rows than estimated` : "";
}

/** Return the time of a node without those below it, in ms, or its cost if the plan was not run. */
function ownPart(node) {
  const whole = one => hasRun(one) ? one["Actual Total Time"] * one["Actual Loops"] : one["Total Cost"];
  return Math.max(whole(node) - (node.Plans || []).reduce((sum, below) => sum + whole(below), 0), 0);
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function shortened(text) { return text.length > 22 ? text.slice(0, 21) + "…" : text; }

function diagram(root) {
  const all = [];
  (function collect(node, depth) {
    const entry = { node, depth, own: ownPart(node), below: [] };
    all.push(entry);
    entry.below = (node.Plans || []).map(one => collect(one, depth + 1));
    return entry;
  })(root, 0);
  const most = Math.max(...all.map(one => one.own), 1e-9), sum = all.reduce((total, one) => total + one.own, 0) || 1;
  let bottom = 0;
  (function place(entry) {
    entry.height = NODE.low + (NODE.high - NODE.low) * entry.own / most;
    const top = bottom;
    for (const below of entry.below) place(below);
    const middle = entry.below.length ? (entry.below[0].y + entry.below.at(-1).y) / 2 : bottom + entry.height / 2;
    entry.y = Math.max(middle, top + entry.height / 2);
    bottom = Math.max(bottom, entry.y + entry.height / 2 + NODE.gapY);
  })(all[0]);
  const deepest = Math.max(...all.map(one => one.depth)), step = NODE.width + NODE.gapX;
  const width = deepest * step + NODE.width + 4, height = bottom;
  const image = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "diagram", role: "img" });
  const unit = hasRun(root) ? "time" : "cost";
  image.append(drawn("title", {}, `Plan: rows flow from left to right, and the height of a node is its share of the ${unit}`));
  const left = entry => 2 + (deepest - entry.depth) * step;
  for (const entry of all) {
    for (const below of entry.below) {
      const rows = hasRun(below.node) ? +below.node["Actual Rows"] * below.node["Actual Loops"] : below.node["Plan Rows"];
      const from = left(below) + NODE.width, to = left(entry), half = (to - from) / 2;
      const path = `M${from} ${below.y}C${from + half} ${below.y} ${to - half} ${entry.y} ${to} ${entry.y}`;
      const edge = drawn("path", { d: path, class: "edge", "stroke-width": 1 + Math.min(Math.log10(rows + 1), 6) });
      edge.append(drawn("title", {}, `${number(rows, 0)} rows`));
      image.append(edge);
    }
  }
  for (const entry of all) {
    const { node, own, height: tall, y } = entry, x = left(entry), wrong = estimateText(node);
    const group = drawn("g", { class: wrong ? "wrong" : "" });
    const amount = hasRun(root) ? `${number(own, 2)} ms` : `cost ${number(own, 0)}`;
    const told = [planTitle(node), `${amount}, ${number(own / sum * 100, 0)} %`, wrong].filter(Boolean);
    group.append(drawn("title", {}, told.join("\n")));
    group.append(drawn("rect", { x, y: y - tall / 2, width: NODE.width, height: tall, rx: 4 }));
    group.append(drawn("rect", { x, y: y + tall / 2 - 4, width: NODE.width * own / sum, height: 4, class: "share" }));
    const place = node["Relation Name"] || node["Index Name"] || "";
    group.append(drawn("text", { x: x + 7, y: y - (tall > 40 ? 8 : -4) }, shortened([node["Node Type"], tall > 40 ? "" : place].join(" "))));
    if (tall > 40) group.append(drawn("text", { x: x + 7, y: y + 8, class: "soft" }, shortened(place || amount)));
    if (wrong) group.append(drawn("text", { x: x + NODE.width - 6, y: y - tall / 2 + 14, class: "mark" }, "!"));
    image.append(group);
  }
  const frame = make("div", undefined, "frame");
  frame.tabIndex = 0;
  frame.append(image);
  return frame;
}

function plan(node) {
  const list = make("ul", undefined, "plan"), item = make("li"), wrong = estimateText(node);
  const found = hasRun(node) ? `, ${number(+node["Actual Rows"], 0)} actual, ${number(node["Actual Total Time"], 2)} ms` : "";
  item.append(make("b", planTitle(node)));
  item.append(` ${number(node["Plan Rows"], 0)} rows estimated${found}`);
  if (wrong) item.append(" ", make("span", wrong, "flag"));
  for (const key of ["Filter", "Index Cond", "Hash Cond", "Sort Key"]) {
    if (node[key]) item.append(make("div", `${key}: ${node[key]}`, "place"));
  }
  for (const below of node.Plans || []) item.append(plan(below));
  list.append(item);
  return list;
}
