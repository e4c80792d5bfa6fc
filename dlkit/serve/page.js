// The page of `dlkit serve`: an image, a drawing or a text goes to /predict, and what comes back is shown.
// Drawing is in draw.js.
"use strict";

const byId = (id) => document.getElementById(id);
const MOST_SHOWN = 10; // classes

let model; // what /model says
let next = null; // what to ask as soon as the last answer is there; of several only the newest is asked
let busy = false;
let round = 0; // which input is on the page; answers to an earlier one are dropped

// -- asking

async function ask(given) {
  round += 1;
  next = given;
  if (busy) return;
  busy = true;
  try {
    while (next !== null) {
      const newest = next;
      next = null;
      await answer(newest, round);
    }
  } finally {
    busy = false;
  }
}

async function answer(given, mine) {
  for (const id of ["answer", "why"]) byId(id).classList.add("stale");
  if (given.size > model.max_bytes) {
    return showError(`The file is larger than ${model.max_bytes >> 20} MiB, which is what this server takes.`);
  }
  const shown = Math.min(MOST_SHOWN, model.classes.length);
  const found = await post(`/predict?topk=${shown}`, given);
  if (mine !== round) return;
  if (found.error) return showError(found.error.message);
  showClasses(found.predictions);
  byId("record").textContent = JSON.stringify(found);
  if (!model.explains) return;
  const explained = await post("/explain", given);
  if (mine === round) showExplanation(explained);
}

async function post(address, body) {
  try {
    const response = await fetch(address, { method: "POST", body });
    return await response.json();
  } catch {
    return { error: { message: "The server does not answer. Is dlkit serve still running?" } };
  }
}

function forget() {
  round += 1;
  next = null;
  byId("empty").hidden = false;
  for (const id of ["answer", "why", "error"]) byId(id).hidden = true;
}

// -- showing; text only ever goes in as text

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function percent(p) {
  return p > 0 && p < 0.001 ? "< 0.1 %" : p < 1 && p > 0.999 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`;
}

function bar(share) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), rect = document.createElementNS(space, "rect");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("width", `${100 * share}%`);
  rect.setAttribute("height", "100%");
  svg.append(rect);
  return svg;
}

function showClasses(predictions) {
  const [best] = predictions;
  byId("best").replaceChildren(best.class, " ", element("span", percent(best.probability)));
  byId("classes").replaceChildren(...predictions.map((found) => {
    const row = element("li"), name = element("span", found.class, "name");
    name.title = found.class;
    row.append(name, bar(found.probability), element("span", percent(found.probability), "share"));
    return row;
  }));
  const longest = Math.max(...predictions.map((found) => found.class.length));
  byId("classes").style.setProperty("--names", `${Math.min(14, 1 + 0.6 * longest)}rem`);
  byId("answer").hidden = false;
  byId("answer").classList.remove("stale");
  byId("empty").hidden = byId("error").hidden = true;
}

function showExplanation(found) {
  byId("why").hidden = Boolean(found.error);
  byId("why").classList.remove("stale");
  if (found.error) return;
  byId("overlay").hidden = !found.png;
  byId("words").hidden = !found.words;
  if (found.words) showWords(found.words);
  else byId("overlay").src = found.png;
  byId("overlay").alt = `The input with the pixels that speak for ${found.target} in orange`;
  const what = element("p", `Orange ${found.words ? "words" : "pixels"} speak for `);
  const how = found.layer ? `, layer ${found.layer}` : "";
  what.append(element("b", found.target), ", blue ones against it.");
  const title = element("p", "Where the answer comes from");
  byId("why-text").replaceChildren(title, what, element("p", `${found.method}${how}`));
  const { survives, random_weights: random } = found.sanity;
  const doubt = random ? "the weights cannot be told from random ones" : "shuffled weights give much the same map";
  if (random || survives) byId("why-text").append(element("p", `Not to be trusted: ${doubt}.`, "doubt"));
}

function showWords(words) {
  const most = Math.max(...words.map(({ value }) => Math.abs(value))) || 1;
  byId("words").replaceChildren(...words.flatMap(({ word, value, known }) => {
    const mark = element("mark", word, known ? "" : "unknown");
    mark.style.background = `rgb(${value > 0 ? "224 106 20" : "60 130 210"} / ${0.7 * Math.abs(value) / most})`;
    mark.title = known ? value.toPrecision(2) : "not in the vocabulary";
    return [mark, " "];
  }));
}

function showError(message) {
  byId("error").textContent = message.replace(/^(-|the image): /, ""); // the page holds one input: it needs no name
  byId("error").hidden = false;
  for (const id of ["answer", "why", "empty"]) byId(id).hidden = true;
}

// -- images

function takeImage(file) {
  if (drawable()) {
    strokes.length = 0;
    drawn();
  }
  showImage(file);
  ask(file);
}

function showImage(file) {
  const preview = byId("preview");
  byId("file-name").textContent = file?.name ?? "";
  preview.hidden = file === null;
  URL.revokeObjectURL(preview.src);
  if (file) preview.src = URL.createObjectURL(file);
}

function prepareImages() {
  byId("upload").hidden = false;
  byId("preview").addEventListener("load", ({ target }) => target.classList.toggle("small", target.naturalWidth < 144));
  // dlkit reads more formats than browsers do: a TIFF file is answered and not shown
  byId("preview").addEventListener("error", ({ target }) => { target.hidden = true; });
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) takeImage(target.files[0]);
    target.value = ""; // the same file may be chosen once more
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    const [file] = clipboardData.files;
    if (file) takeImage(file);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").hidden = !event.dataTransfer.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").hidden = true; });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) takeImage(file);
  });
}

// -- text

function prepareWriting() {
  byId("writing").hidden = false;
  if (model.reads === "trees") {
    byId("text-label").textContent = "A tree in brackets";
    byId("text").placeholder = "(3 (2 a) (4 gem))";
  }
  byId("writing").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(new Blob([byId("text").value]));
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("writing").requestSubmit();
  });
}

// -- the addresses, for programs

async function showAddresses() {
  if (!byId("api").open || byId("addresses").children.length) return;
  const described = await (await fetch("/openapi.json")).json();
  const refusals = {};
  for (const [path, operations] of Object.entries(described.paths)) {
    for (const [method, about] of Object.entries(operations)) {
      const row = element("tr"), parameters = (about.parameters ?? []).map(({ name }) => `?${name}=…`).join("");
      row.append(element("th", `${method.toUpperCase()} ${path}${parameters}`));
      row.append(element("td", about.description ?? `${about.summary}.`));
      row.firstChild.scope = "row";
      byId("addresses").append(row);
      Object.assign(refusals, about.responses);
    }
  }
  delete refusals[200];
  for (const [status, why] of Object.entries(refusals)) {
    byId("refusals").append(element("li", `${status} ${why.description}`));
  }
}

function openIfLinked() {
  if (location.hash === "#api") byId("api").open = true;
}

// -- the start

async function start() {
  model = await (await fetch("/model")).json();
  const images = model.reads === "images";
  const colour = model.channels === 1 ? "grey" : "colour";
  const what = model.reads === "trees" ? "trees" : "text";
  const reads = images ? `${colour} images of ${model.width} × ${model.height}` : what;
  byId("model").textContent = model.model;
  byId("about").textContent = `${model.name} · reads ${reads} · ${model.classes.length} classes`;
  document.title = `${model.model} · dlkit serve`;
  byId("empty").textContent = !images ? "Write something, and see its classes."
    : drawable() ? "Draw something, and see its classes." : "Choose an image, and see its classes.";
  const file = images ? "@cat.jpg" : model.reads === "trees" ? "'(3 (2 a) (4 gem))'" : "'a fine day'";
  byId("curl").textContent = `curl --data-binary ${file} ${location.origin}/predict`;
  if (!images) prepareWriting();
  else {
    if (drawable()) prepareDrawing();
    prepareImages();
  }
  byId("api").addEventListener("toggle", showAddresses);
  window.addEventListener("hashchange", openIfLinked);
  openIfLinked();
}

start();
