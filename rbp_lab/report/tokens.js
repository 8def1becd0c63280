
// Documents token by token. A document is made when it is opened, and of an open one only the parts near the window,
// so that a thousand of them cost no more than what one looks at. Text goes in as text, never as HTML.
const PART = 200; // tokens, and as many more as the line has
const percent = (p) => (100 * p).toPrecision(3).replace("-", "−") + "%";

function moveClass(a, b) { // up: a better rank under b
  if (!a || a === b) return "";
  const size = Math.min(3, Math.ceil(Math.abs(Math.log(b / a)) / 1.2));
  return (b < a ? "up" : "down") + size;
}

function tokenSpan(doc, i) {
  const span = document.createElement("span"), [a, b] = [doc.a[i], doc.b[i]];
  span.textContent = doc.t[i];
  if (!a) { span.className = "tok unscored"; return span; }
  span.className = "tok " + moveClass(a, b);
  span.dataset.tip = `${JSON.stringify(doc.t[i])}\na: rank ${a}, p ${percent(doc.p[i])}\nb: rank ${b}, p ${percent(doc.q[i])}`;
  return span;
}

function parts(pieces) { // [first, last) of each part; a part ends where a line does, if lines are not too long
  const found = [];
  for (let first = 0, last = 0; first < pieces.length; first = last) {
    last = Math.min(first + PART, pieces.length);
    while (last < pieces.length && last < first + 3 * PART && !pieces[last - 1].includes("\n")) last += 1;
    found.push([first, last]);
  }
  return found;
}

function fill(part, doc) {
  for (let i = Number(part.dataset.first); i < Number(part.dataset.last); i += 1) part.append(tokenSpan(doc, i));
}

function openDocument(details, doc) {
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting && target.childNodes.length) {
        target.style.minHeight = target.offsetHeight + "px"; // or the page would jump
        target.replaceChildren();
      } else if (isIntersecting && !target.childNodes.length) {
        fill(target, doc);
        target.style.minHeight = "";
      }
    }
  }, { rootMargin: "600px" });
  for (const [first, last] of parts(doc.t)) {
    const part = document.createElement("div");
    part.className = "part";
    Object.assign(part.dataset, { first, last });
    if (first) part.style.minHeight = "4rem"; // empty until it is near the window
    else fill(part, doc);
    details.append(part);
    watch.observe(part);
  }
  return watch;
}

for (const block of document.querySelectorAll(".tokens")) {
  for (const doc of JSON.parse(block.querySelector("script").textContent)) {
    const details = document.createElement("details"), summary = document.createElement("summary");
    summary.textContent = doc.name;
    details.append(summary);
    let watch = null;
    details.addEventListener("toggle", () => {
      if (details.open) watch = openDocument(details, doc);
      else { watch.disconnect(); details.replaceChildren(summary); }
    });
    block.append(details);
  }
  block.addEventListener("pointerover", (event) => (event.target.dataset.tip ? show(event.target) : hide()));
  block.addEventListener("pointerleave", hide);
  if (block.querySelector("details")) block.querySelector("details").open = true;
}
