"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { totals, statements, timeline } = data;
const at = id => document.getElementById(id);
function make(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
const formats = [0, 1, 2, 3].map(n => new Intl.NumberFormat("en", { minimumFractionDigits: n, maximumFractionDigits: n }));
const number = (value, digits) => formats[digits].format(value);

// A description of the run, and its totals.
at("what").textContent = data.what;
if (data.interrupted) at("what").after(make("p", "Interrupted. Only the statements up to then are shown.", "flag"));
for (const [name, key, timed] of [
  ["queries", "queries"], ["distinct", "distinct"], ["failed", "failed"], ["rows", "rows"], ["transactions", "transactions"],
  ["wall", "wall_ms", true], ["database", "execute_ms", true], ["fetching", "fetch_ms", true],
  ["commit, rollback", "ending_ms", true], ["waiting", "waiting_ms", true], ["Python", "python_ms", true],
]) {
  const box = make("div", undefined, key === "failed" && totals.failed ? "alarm" : "");
  box.append(make("b", number(totals[key], timed ? 1 : 0) + (timed ? " ms" : "")), make("span", name));
  at("totals").append(box);
}

// The table: a batch of rows at a time, because thousands of rows take seconds to lay out.
const SHOWN = 200, LONG = 400;
const COLUMNS = [["Calls", "calls", 0], ["Total ms", "total_ms", 2], ["Mean", "mean_ms", 2], ["p50", "p50_ms", 2],
  ["p95", "p95_ms", 2], ["Max", "max_ms", 2], ["Fetch", "fetch_ms", 2], ["Rows", "rows", 0], ["Share %", "share", 1]];
const WORDS = new Set(("SELECT FROM WHERE AND OR NOT IN IS NULL AS ON JOIN LEFT RIGHT INNER OUTER FULL CROSS LATERAL "
  + "GROUP BY ORDER HAVING LIMIT OFFSET INSERT INTO VALUES UPDATE SET DELETE RETURNING WITH UNION ALL DISTINCT CASE WHEN "
  + "THEN ELSE END EXISTS ANY ARRAY ASC DESC BETWEEN LIKE ILIKE COPY STDIN STDOUT SAVEPOINT RELEASE ROLLBACK TO CREATE "
  + "TABLE INDEX ALTER DROP USING TRUE FALSE CONFLICT DO NOTHING").split(" "));
let sorted = "total_ms", down = true, limit = SHOWN, chosen = new Set();

function sql(text) {
  const code = make("code");
  let plain = "";
  for (const part of text.split(/(\b[A-Za-z_]+\b|\?|\(\.\.\.\))/)) {
    const kind = WORDS.has(part.toUpperCase()) ? "k" : part === "?" || part === "(...)" ? "v" : "";
    if (!kind) { plain += part; continue; }
    code.append(plain, make("span", part, kind));
    plain = "";
  }
  code.append(plain);
  return code;
}

/** Return a collapsible element whose content is created when it is opened. */
function folded(head, content, kind) {
  const box = make("details", undefined, kind), summary = make("summary");
  summary.append(head);
  box.append(summary);
  box.fill = () => { if (box.children.length === 1) box.append(content()); };
  box.ontoggle = box.fill;
  return box;
}

function row(one) {
  const line = make("tr"), cell = make("td", undefined, "q"), text = one.fingerprint;
  for (const [title, key, digits] of COLUMNS) {
    const value = make("td", number(key === "share" ? one[key] * 100 : one[key], digits), "n");
    value.dataset.name = title;
    line.append(value);
  }
  cell.append(text.length > LONG ? folded(sql(text.slice(0, 160) + " …"), () => sql(text), "long") : sql(text));
  if (one.file) cell.append(make("div", `${one.file}:${one.line} ${one.function === "<module>" ? "" : one.function}`, "place"));
  for (const flag of one.flags) {
    cell.append(make("div", `${flag.name}: ${flag.text}${flag.cure ? " → " + flag.cure : ""}`, "flag"));
  }
  if (one.parameters) cell.append(make("div", "Parameters: " + JSON.stringify(one.parameters), "place"));
  if (one.plan) cell.append(folded("Plan", () => planned(one.plan.Plan)));
  line.append(cell);
  return line;
}

const searched = statements.map(one =>
  [one.fingerprint, `${one.file}:${one.line}`, one.function, ...one.flags.map(flag => flag.name)].join(" ").toLowerCase());

function heading([title, key]) {
  const cell = make("th", undefined, key === "fingerprint" ? "" : "n"), mark = down ? " ↓" : " ↑";
  const button = make("button", title + (key === sorted ? mark : ""));
  cell.setAttribute("aria-sort", key !== sorted ? "none" : down ? "descending" : "ascending");
  button.tabIndex = 0;
  button.onclick = () => { down = key === sorted ? !down : key !== "fingerprint"; sorted = key; show(); };
  cell.append(button);
  return cell;
}

function show() {
  const wanted = at("filter").value.toLowerCase(), odd = at("odd").checked, focused = document.activeElement.closest?.("th");
  const place = focused ? [...at("head").children].indexOf(focused) : -1;
  const places = statements.map((_, n) => n).filter(n => searched[n].includes(wanted) && (!odd || statements[n].flags.length));
  chosen = new Set(places);
  const by = sorted === "fingerprint" ? (a, b) => a.fingerprint < b.fingerprint ? -1 : a.fingerprint > b.fingerprint ? 1 : 0
    : (a, b) => a[sorted] - b[sorted];
  const found = places.map(n => statements[n]).sort((a, b) => (down ? -1 : 1) * by(a, b));
  at("body").replaceChildren(...found.slice(0, limit).map(row));
  at("head").replaceChildren(...[...COLUMNS, ["Statement", "fingerprint"]].map(heading));
  if (place >= 0) at("head").children[place].firstChild.focus();
  at("count").textContent = found.length === statements.length ? `${number(found.length, 0)} total`
    : `${number(found.length, 0)} of ${number(statements.length, 0)}`;
  at("more").hidden = found.length <= limit;
  at("more").textContent = `Show ${number(Math.min(found.length - limit, SHOWN * 5), 0)} more`;
  draw();
}
at("more").onclick = () => { limit += SHOWN * 5; show(); };
at("filter").oninput = at("odd").onchange = () => { limit = SHOWN; show(); };
