"use strict";
// Two things: one of several figures at a time, and the name of the point one looks at. Without this script every
// figure shows, and the browser's own tooltips name the points.
document.documentElement.classList.add("js");
const tip = document.getElementById("tip");

for (const set of document.querySelectorAll(".choices")) {
  set.addEventListener("change", (event) => {
    for (const panel of set.parentElement.querySelectorAll(".panel"))
      panel.classList.toggle("shown", panel.dataset.choice === event.target.value);
    hide();
  });
}

for (const point of document.querySelectorAll(".pt")) {
  const title = point.querySelector("title"); // ours replaces the browser's tooltip, which comes late
  point.dataset.tip = title.textContent;
  title.remove();
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

for (const plot of document.querySelectorAll(".plot svg")) {
  const points = [...plot.querySelectorAll(".pt")];
  if (!points.length) { plot.removeAttribute("tabindex"); continue; }
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
addEventListener("scroll", hide, { passive: true });
