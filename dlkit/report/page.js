"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// -- tables sort by the column whose head is pressed, first upwards, then downwards

function sortBy(head, table) {
  const column = [...head.parentNode.children].indexOf(head);
  const upwards = head.getAttribute("aria-sort") !== "ascending";
  const key = row => row.children[column].dataset.value ?? "";
  const numbers = head.classList.contains("n");
  const body = table.tBodies[0];
  const compared = numbers
    ? (a, b) => (key(a) === "") - (key(b) === "") || (upwards ? 1 : -1) * (key(a) - key(b))
    : (a, b) => (upwards ? 1 : -1) * key(a).localeCompare(key(b), undefined, { numeric: true });
  body.append(...[...body.rows].sort(compared));
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable"))
  for (const head of table.tHead.rows[0].children) head.addEventListener("click", () => sortBy(head, table));

// -- a curve tells its values where the pointer is, or at the step that the arrow keys chose

function told(value, percent) {
  return percent ? value.toFixed(2) + " %" : String(Number(value.toPrecision(4)));
}

function nearest(sorted, wanted) {
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle; else high = middle;
  }
  return wanted - sorted[low] <= sorted[high] - wanted ? low : high;
}

function follow(figure, chart) {
  const svg = figure.querySelector("svg"), rule = svg.querySelector(".rule");
  const dots = svg.querySelectorAll(".dot"), outputs = figure.querySelectorAll(".key output");
  const places = [...new Set(chart.lines.flatMap(line => line.px))].sort((a, b) => a - b);
  const longest = chart.lines.reduce((a, b) => (a.px.length >= b.px.length ? a : b));
  let at = places.length - 1;

  function show(place) {
    at = Math.max(0, Math.min(places.length - 1, place));
    rule.setAttribute("x1", places[at]);
    rule.setAttribute("x2", places[at]);
    rule.setAttribute("visibility", "visible");
    figure.querySelector(".at").value = String(Number(longest.x[nearest(longest.px, places[at])].toPrecision(3)));
    chart.lines.forEach((line, number) => {
      const point = nearest(line.px, places[at]);
      dots[number].setAttribute("cx", line.px[point]);
      dots[number].setAttribute("cy", line.py[point]);
      dots[number].setAttribute("visibility", "visible");
      outputs[number].value = told(line.y[point], chart.percent);
    });
  }

  function leave() {
    show(places.length - 1);
    for (const mark of [rule, ...dots]) mark.setAttribute("visibility", "hidden");
  }

  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    show(nearest(places, ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", event => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -places.length, End: places.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(at + steps[event.key]);
  });
}

for (const [id, chart] of Object.entries(data.charts)) follow(document.getElementById(id), chart);

// -- a cell of the confusion matrix shows the mistakes that it counts

const MOST_LISTED = 200;

function card([name, , , probability, picture, text], told) {
  const small = made("small", { title: name }, name.split("/").pop());
  const caption = made("figcaption", {}, (100 * probability).toFixed(1) + "\u00a0% ", small);
  if (picture) return made("figure", {}, made("img", { src: picture, alt: `${name}: ${told}` }), caption);
  return made("figure", {}, ...(text ? [made("blockquote", {}, text)] : []), caption);
}

function showPair(matrix, run, [real, said]) {
  const names = run.classes, found = run.mistakes.filter(one => one[1] === real && one[2] === said);
  const told = `${names[real]} taken for ${names[said]}`;
  const seen = found.filter(one => one[4] || one[5]), rest = found.filter(one => !one[4] && !one[5]);
  const pictures = made("div", { className: seen.some(one => one[4]) ? "gallery" : "texts" }, ...seen.map(one => card(one, told)));
  const parts = [made("h4", {}, `${told}: ${found.length}`), pictures];
  if (rest.length) {
    const items = rest.slice(0, MOST_LISTED).map(one => made("li", {}, `${one[0]} ${(100 * one[3]).toFixed(1)} %`));
    if (rest.length > MOST_LISTED) items.push(made("li", {}, `and ${rest.length - MOST_LISTED} more`));
    const summary = made("summary", {}, `${rest.length} that are not shown`);
    parts.push(made("details", { open: !seen.length }, summary, made("ul", {}, ...items)));
  }
  matrix.querySelector(".chosen").replaceChildren(...parts);
  for (const button of matrix.querySelectorAll("[data-pair]"))
    button.setAttribute("aria-pressed", button.dataset.pair === `${real},${said}`);
}

// Of the matrix's buttons the tab key reaches one; the arrow keys go on from there, over cells without mistakes.
function walk(table) {
  const buttons = [...table.querySelectorAll("button")];
  buttons.forEach((button, place) => { button.tabIndex = place ? -1 : 0; });
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

// A matrix of many classes is drawn, a square a cell; its shade is the share of the row, on a square-root scale.
function draw(canvas, run) {
  const size = run.classes.length, side = Math.max(1, Math.floor(560 / size)), pen = canvas.getContext("2d");
  const totals = new Map();
  for (const [real, , count] of run.counts) totals.set(real, (totals.get(real) ?? 0) + count);
  canvas.width = canvas.height = size * side;
  const style = getComputedStyle(document.documentElement);
  for (const [real, said, count] of run.counts) {
    pen.fillStyle = style.getPropertyValue(real === said ? "--blue" : "--orange");
    pen.globalAlpha = Math.max(0.15, Math.sqrt(count / totals.get(real)));
    pen.fillRect(said * side, real * side, side, side);
  }
}

function picture(matrix, run) {
  const canvas = matrix.querySelector("canvas"), at = matrix.querySelector(".at"), names = run.classes;
  const counts = new Map(run.counts.map(([real, said, count]) => [`${real},${said}`, count]));
  const cell = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]
      .map(part => Math.min(names.length - 1, Math.max(0, Math.floor(part * names.length))));
  };
  canvas.addEventListener("pointermove", event => {
    const [real, said] = cell(event), count = counts.get(`${real},${said}`) ?? 0;
    at.textContent = real === said ? `${names[real]}: ${count} right` : `${names[real]} taken for ${names[said]}: ${count}`;
  });
  canvas.addEventListener("click", event => showPair(matrix, run, cell(event)));
  draw(canvas, run);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(canvas, run));
}

for (const matrix of document.querySelectorAll(".matrix")) {
  const run = data.runs[matrix.dataset.run], table = matrix.querySelector(".cells");
  matrix.addEventListener("click", event => {
    const pair = event.target.closest("[data-pair]")?.dataset.pair;
    if (pair) showPair(matrix, run, pair.split(",").map(Number));
  });
  if (table) walk(table); else picture(matrix, run);
}

// -- on paper everything is open

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => closed.forEach(details => { details.open = false; }));
