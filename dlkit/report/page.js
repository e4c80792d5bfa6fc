"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

function create(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// -- tables sort by the column whose head is clicked, first ascending, then descending

function sortBy(head, table) {
  const column = [...head.parentNode.children].indexOf(head);
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  const key = row => row.children[column].dataset.value ?? "";
  const numbers = head.classList.contains("n");
  const body = table.tBodies[0];
  const compare = numbers
    ? (a, b) => (key(a) === "") - (key(b) === "") || (ascending ? 1 : -1) * (key(a) - key(b))
    : (a, b) => (ascending ? 1 : -1) * key(a).localeCompare(key(b), undefined, { numeric: true });
  body.append(...[...body.rows].sort(compare));
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable"))
  for (const head of table.tHead.rows[0].children) head.addEventListener("click", () => sortBy(head, table));

// -- a chart shows the values under the pointer, or at the step selected with the arrow keys

function formatValue(value, percent) {
  return String(Number(value.toPrecision(4))) + (percent ? " %" : "");
}

function nearest(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle; else high = middle;
  }
  return value - sorted[low] <= sorted[high] - value ? low : high;
}

function follow(figure, chart) {
  const svg = figure.querySelector("svg"), rule = svg.querySelector(".rule");
  const dots = svg.querySelectorAll(".dot"), outputs = figure.querySelectorAll(".key output");
  const positions = [...new Set(chart.lines.flatMap(line => line.px))].sort((a, b) => a - b);
  const longest = chart.lines.reduce((a, b) => (a.px.length >= b.px.length ? a : b));
  let current = positions.length - 1;

  function show(index) {
    current = Math.max(0, Math.min(positions.length - 1, index));
    rule.setAttribute("x1", positions[current]);
    rule.setAttribute("x2", positions[current]);
    rule.setAttribute("visibility", "visible");
    figure.querySelector(".at").value = String(Number(longest.x[nearest(longest.px, positions[current])].toPrecision(3)));
    chart.lines.forEach((line, number) => {
      const point = nearest(line.px, positions[current]);
      dots[number].setAttribute("cx", line.px[point]);
      dots[number].setAttribute("cy", line.py[point]);
      dots[number].setAttribute("visibility", "visible");
      outputs[number].value = formatValue(line.y[point], chart.percent);
    });
  }

  function leave() {
    show(positions.length - 1);
    for (const mark of [rule, ...dots]) mark.setAttribute("visibility", "hidden");
  }

  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    show(nearest(positions, ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", event => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -positions.length, End: positions.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(current + steps[event.key]);
  });
}

for (const [id, chart] of Object.entries(data.charts)) follow(document.getElementById(id), chart);

// -- a selected cell of the confusion matrix shows its mistakes

const MAX_LISTED = 200;

function card([name, , , probability, image, text], title) {
  const small = create("small", { title: name }, name.split("/").pop());
  const caption = create("figcaption", {}, (100 * probability).toFixed(1) + "\u00a0% ", small);
  if (image) return create("figure", {}, create("img", { src: image, alt: `${name}: ${title}` }), caption);
  return create("figure", {}, ...(text ? [create("blockquote", {}, text)] : []), caption);
}

function showPair(matrix, run, [target, predicted]) {
  const names = run.classes, title = `${names[target]} predicted as ${names[predicted]}`;
  const mistakes = run.mistakes.filter(([, t, p]) => t === target && p === predicted);
  const shown = mistakes.filter(([, , , , image, text]) => image || text);
  const others = mistakes.filter(([, , , , image, text]) => !image && !text);
  const className = shown.some(([, , , , image]) => image) ? "gallery" : "texts";
  const parts = [
    create("h4", {}, `${title}: ${mistakes.length}`),
    create("div", { className }, ...shown.map(mistake => card(mistake, title))),
  ];
  if (others.length) {
    const items = others.slice(0, MAX_LISTED).map(([name, , , probability]) =>
      create("li", {}, `${name} ${(100 * probability).toFixed(1)} %`));
    if (others.length > MAX_LISTED) items.push(create("li", {}, `and ${others.length - MAX_LISTED} more`));
    const summary = create("summary", {}, `${others.length} not shown`);
    parts.push(create("details", { open: !shown.length }, summary, create("ul", {}, ...items)));
  }
  matrix.querySelector(".selected").replaceChildren(...parts);
  for (const button of matrix.querySelectorAll("[data-pair]"))
    button.setAttribute("aria-pressed", button.dataset.pair === `${target},${predicted}`);
}

// The tab key reaches one button of the matrix; the arrow keys move on from there and skip cells without mistakes.
function enableArrowKeys(table) {
  const buttons = [...table.querySelectorAll("button")];
  buttons.forEach((button, index) => { button.tabIndex = index ? -1 : 0; });
  table.addEventListener("keydown", event => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const cell = event.target.closest("td");
    let row = cell.parentNode.rowIndex + down, column = cell.cellIndex + right;
    for (; table.rows[row]?.cells[column]; row += down, column += right) {
      const next = table.rows[row].cells[column].querySelector("button");
      if (!next) continue;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      return;
    }
  });
}

// A matrix of many classes is an image with a square per cell, shaded by its share of the row on a square-root scale.
function drawMatrix(canvas, run) {
  const size = run.classes.length, side = Math.max(1, Math.floor(560 / size)), pen = canvas.getContext("2d");
  const totals = new Map();
  for (const [target, , count] of run.counts) totals.set(target, (totals.get(target) ?? 0) + count);
  canvas.width = canvas.height = size * side;
  const style = getComputedStyle(document.documentElement);
  for (const [target, predicted, count] of run.counts) {
    pen.fillStyle = style.getPropertyValue(target === predicted ? "--blue" : "--orange");
    pen.globalAlpha = Math.max(0.15, Math.sqrt(count / totals.get(target)));
    pen.fillRect(predicted * side, target * side, side, side);
  }
}

function showImage(matrix, run) {
  const canvas = matrix.querySelector("canvas"), caption = matrix.querySelector(".at"), names = run.classes;
  const counts = new Map(run.counts.map(([target, predicted, count]) => [`${target},${predicted}`, count]));
  const cell = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]
      .map(part => Math.min(names.length - 1, Math.max(0, Math.floor(part * names.length))));
  };
  canvas.addEventListener("pointermove", event => {
    const [target, predicted] = cell(event), count = counts.get(`${target},${predicted}`) ?? 0;
    caption.textContent = target === predicted
      ? `${names[target]}: ${count} correct` : `${names[target]} predicted as ${names[predicted]}: ${count}`;
  });
  canvas.addEventListener("click", event => showPair(matrix, run, cell(event)));
  drawMatrix(canvas, run);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawMatrix(canvas, run));
}

for (const matrix of document.querySelectorAll(".matrix")) {
  const run = data.runs[matrix.dataset.run], table = matrix.querySelector(".cells");
  matrix.addEventListener("click", event => {
    const pair = event.target.closest("[data-pair]")?.dataset.pair;
    if (pair) showPair(matrix, run, pair.split(",").map(Number));
  });
  if (table) enableArrowKeys(table); else showImage(matrix, run);
}

// -- all details are open in print

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => closed.forEach(details => { details.open = false; }));

// -- the runs of a comparison are folded; a link to one, and printing, unfolds them

function unfold(article) {
  const run = article?.querySelector(":scope > details.run");
  if (run) run.open = true;
}

addEventListener("hashchange", () => unfold(document.querySelector(location.hash || "main")));
addEventListener("beforeprint", () => document.querySelectorAll("article").forEach(unfold));
unfold(location.hash ? document.querySelector(location.hash) : null);
