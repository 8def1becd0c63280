"use strict";
// Four things: one of several figures at a time, the name of the point one looks at, tables in the order of a column,
// and tables as CSV. Without this script every figure shows, and the browser's own tooltips name the points.
document.documentElement.classList.add("js");
const tip = document.getElementById("tip");

function make(block) { // what stands in its noscript, a text until now, as elements; false when they are there
  const text = block.querySelector("noscript");
  if (text) text.outerHTML = text.textContent;
  return Boolean(text);
}

for (const set of document.querySelectorAll(".choices")) {
  set.addEventListener("change", (event) => {
    for (const panel of set.parentElement.querySelectorAll(".panel")) {
      const chosen = panel.dataset.choice === event.target.value;
      if (chosen && make(panel)) nameItsPoints(panel);
      panel.classList.toggle("shown", chosen);
    }
    hide();
  });
}

let shown = null;
function hide() {
  if (shown) shown.classList.remove("on");
  shown = null;
  tip.hidden = true;
}

function show(point) {
  if (point === shown) return;
  hide();
  shown = point;
  point.classList.add("on");
  tip.textContent = point.dataset.tip;
  tip.hidden = false;
  const at = point.getBoundingClientRect(), box = tip.getBoundingClientRect();
  const x = at.left + at.width / 2 - box.width / 2, above = at.top - box.height - 8;
  tip.style.left = Math.max(4, Math.min(innerWidth - box.width - 4, x)) + "px";
  tip.style.top = (above > 4 ? above : at.bottom + 8) + "px";
}

function distance(point, x, y) {
  const box = point.getBoundingClientRect();
  return Math.hypot(box.left + box.width / 2 - x, box.top + box.height / 2 - y);
}

function nameItsPoints(panel) {
  const plot = panel.querySelector("svg"), points = [...plot.querySelectorAll(".pt")];
  if (!points.length) return plot.removeAttribute("tabindex");
  for (const point of points) {
    const title = point.querySelector("title"); // ours replaces the browser's tooltip, which comes late
    point.dataset.tip = title.textContent;
    title.remove();
  }
  const look = (event) => {
    let best = null, least = 16; // pixels: a finger is wider than a marker
    for (const point of points) {
      const d = distance(point, event.clientX, event.clientY);
      if (d < least) { best = point; least = d; }
    }
    best ? show(best) : hide();
  };
  plot.addEventListener("pointermove", look);
  plot.addEventListener("pointerdown", look);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const next = points.indexOf(shown) + (shown || step > 0 ? step : 0);
    show(points.at(next % points.length));
  });
}
for (const panel of document.querySelectorAll(".panel.shown")) nameItsPoints(panel);
addEventListener("scroll", hide, { passive: true });

const MISSING = "–", DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹", UNITS = { k: 1e3, M: 1e6, B: 1e9, T: 1e12 };
const NUMBER = /^[×≤<>]?\s*(-?\d[\d.]*(?:e[+-]?\d+)?)(?:·10([⁻⁰¹²³⁴-⁹]+))?([kMBT](?![A-Za-z]))?/;

function cellText(cell) { // the small lines of a cell after its first
  return [...cell.childNodes].map((node) => (node.nodeName === "BR" ? " " : node.textContent)).join("").trim();
}
function ascii(text) {
  return text.replaceAll(",", "").replaceAll("−", "-");
}
function numberIn(text) { // what a text begins with: −1,234.5, 85.1M, 9.6·10¹⁸, ∞; NaN when it is no number
  const plain = ascii(text);
  if (/^-?∞/.test(plain)) return plain[0] === "-" ? -Infinity : Infinity;
  const found = NUMBER.exec(plain);
  if (!found) return NaN;
  const power = [...(found[2] || "0")].map((c) => (c === "⁻" ? "-" : DIGITS.indexOf(c))).join("");
  return Number(found[1]) * 10 ** Number(power) * (UNITS[found[3]] || 1);
}

function sortBy(table, column, down) {
  const rows = [...table.tBodies[0].rows].map((row, i) => ({ row, i, text: cellText(row.cells[column]) }));
  const present = rows.filter((r) => r.text !== MISSING), missing = rows.filter((r) => r.text === MISSING);
  const values = present.map((r) => numberIn(r.text)), numeric = !values.some(Number.isNaN);
  present.forEach((r, i) => { r.key = numeric ? values[i] : r.text; });
  const order = (a, b) => (numeric ? a.key - b.key || 0 : a.key.localeCompare(b.key, undefined, { numeric: true }));
  present.sort((a, b) => (down ? -order(a, b) : order(a, b)) || a.i - b.i); // equal rows keep their order
  table.tBodies[0].append(...[...present, ...missing].map((r) => r.row));
  layOut(table, ROWS);
}

function csvCell(text) { // numbers as programs read them; an apostrophe before what a spreadsheet takes for a formula
  if (text === MISSING) return "";
  if (/^-?\d[\d.]*(e[+-]?\d+)?$/.test(ascii(text))) return ascii(text);
  const safe = /^'*[=+\-@\t\r\n]/.test(text) ? "'" + text : text;
  return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}
function csvOf(block) { // what all rows share comes last in every row
  const shared = [...block.querySelectorAll(".shared [data-column]")], same = shared.map(cellText);
  const head = [...block.querySelectorAll("th"), ...shared].map((cell) => cell.dataset.column);
  const rows = [...block.querySelectorAll("tbody tr")].map((row) => [...[...row.cells].map(cellText), ...same]);
  return [head, ...rows].map((row) => row.map(csvCell).join(",") + "\r\n").join("");
}

const ROWS = 1000; // of a long table that are laid out, and as many more whenever one has scrolled to their end
function layOut(table, most) {
  table.dataset.rows = most;
  [...table.tBodies[0].rows].forEach((row, i) => { row.hidden = i >= most; });
}

function sortable(block) {
  const table = block.querySelector("table"), heads = [...table.tHead.rows[0].cells], box = table.parentElement;
  layOut(table, ROWS);
  box.addEventListener("scroll", () => {
    const most = Number(table.dataset.rows), left = box.scrollHeight - box.scrollTop - box.clientHeight;
    if (most < table.tBodies[0].rows.length && left < 2 * box.clientHeight) layOut(table, most + ROWS);
  }, { passive: true });
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.ariaSort === "ascending";
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
      sortBy(table, column, down);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
}

for (const block of document.querySelectorAll(".table")) {
  if (block.tagName === "DETAILS") block.addEventListener("toggle", () => { if (make(block)) sortable(block); });
  else sortable(block);
  const link = document.createElement("a");
  Object.assign(link, { className: "csv", textContent: "CSV", href: "#", download: block.dataset.name + ".csv" });
  link.addEventListener("click", () => {
    URL.revokeObjectURL(link.href); // of the click before
    link.href = URL.createObjectURL(new Blob(["\ufeff", csvOf(block)], { type: "text/csv" }));
  });
  block.append(link);
}
