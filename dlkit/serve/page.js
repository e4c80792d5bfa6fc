// The page of `dlkit serve`: sends an image, a drawing or a text to /predict and shows the result. Drawing is in draw.js.
"use strict";

const byId = (id) => document.getElementById(id);
const MAX_CLASSES = 10; // shown

let model; // the document of /model
let next = null; // the input to send after the current request; only the newest is kept
let busy = false;
let inputNumber = 0; // of the input on the page; responses for earlier inputs are dropped

// -- requests

async function classify(input) {
  inputNumber += 1;
  next = input;
  if (busy) return;
  busy = true;
  try {
    while (next !== null) {
      const newest = next;
      next = null;
      await request(newest, inputNumber);
    }
  } finally {
    busy = false;
  }
}

async function request(input, number) {
  for (const id of ["answer", "why"]) byId(id).classList.add("stale");
  if (input.size > model.max_bytes) {
    return showError(`The file is larger than the server's limit of ${model.max_bytes >> 20} MiB.`);
  }
  const topk = Math.min(MAX_CLASSES, model.classes.length);
  const prediction = await post(`/predict?topk=${topk}`, input);
  if (number !== inputNumber) return;
  if (prediction.error) return showError(prediction.error.message);
  showClasses(prediction.predictions);
  byId("record").textContent = JSON.stringify(prediction);
  if (!model.explains) return;
  const explanation = await post("/explain", input);
  if (number === inputNumber) showExplanation(explanation);
}

async function post(address, body) {
  try {
    const response = await fetch(address, { method: "POST", body });
    return await response.json();
  } catch {
    return { error: { message: "The server does not respond. Is dlkit serve still running?" } };
  }
}

function reset() {
  inputNumber += 1;
  next = null;
  byId("empty").hidden = false;
  for (const id of ["answer", "why", "error"]) byId(id).hidden = true;
}

// -- output; text is only inserted as text

function element(name, text = "", className = "") {
  const result = document.createElement(name);
  result.textContent = text;
  if (className) result.className = className;
  return result;
}

function percent(p) {
  return p > 0 && p < 0.001 ? "< 0.1 %" : p < 1 && p > 0.999 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`;
}

function bar(fraction) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg"), rect = document.createElementNS(namespace, "rect");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("width", `${100 * fraction}%`);
  rect.setAttribute("height", "100%");
  svg.append(rect);
  return svg;
}

function showClasses(predictions) {
  const [best] = predictions;
  byId("best").replaceChildren(best.class, " ", element("span", percent(best.probability)));
  byId("classes").replaceChildren(...predictions.map((prediction) => {
    const row = element("li"), name = element("span", prediction.class, "name");
    name.title = prediction.class;
    row.append(name, bar(prediction.probability), element("span", percent(prediction.probability), "share"));
    return row;
  }));
  const longest = Math.max(...predictions.map((prediction) => prediction.class.length));
  byId("classes").style.setProperty("--names", `${Math.min(14, 1 + 0.6 * longest)}rem`);
  byId("answer").hidden = false;
  byId("answer").classList.remove("stale");
  byId("empty").hidden = byId("error").hidden = true;
}

function showExplanation(explanation) {
  byId("why").hidden = Boolean(explanation.error);
  byId("why").classList.remove("stale");
  if (explanation.error) return;
  byId("overlay").hidden = !explanation.png;
  byId("words").hidden = !explanation.words;
  if (explanation.words) showWords(explanation.words);
  else byId("overlay").src = explanation.png;
  byId("overlay").alt = `The input with evidence for ${explanation.target} in orange`;
  const legend = element("p", `Orange ${explanation.words ? "words" : "pixels"} are evidence for `);
  const layer = explanation.layer ? `, layer ${explanation.layer}` : "";
  legend.append(element("b", explanation.target), ", blue ones against it.");
  const title = element("p", "Explanation");
  byId("why-text").replaceChildren(title, legend, element("p", `${explanation.method}${layer}`));
  const { survives, random_weights: random } = explanation.sanity;
  const reason = random ? "the weights are indistinguishable from random ones" : "shuffled weights give a similar map";
  if (random || survives) byId("why-text").append(element("p", `Unreliable: ${reason}.`, "doubt"));
}

function showWords(words) {
  const largest = Math.max(...words.map(({ value }) => Math.abs(value))) || 1;
  byId("words").replaceChildren(...words.flatMap(({ word, value, known }) => {
    const mark = element("mark", word, known ? "" : "unknown");
    mark.style.background = `rgb(${value > 0 ? "224 106 20" : "60 130 210"} / ${0.7 * Math.abs(value) / largest})`;
    mark.title = known ? value.toPrecision(2) : "not in the vocabulary";
    return [mark, " "];
  }));
}

function showError(message) {
  byId("error").textContent = message.replace(/^(-|the image): /, ""); // the page has a single input, without a name
  byId("error").hidden = false;
  for (const id of ["answer", "why", "empty"]) byId(id).hidden = true;
}

// -- images

function takeImage(file) {
  if (drawable()) {
    strokes.length = 0;
    update();
  }
  showImage(file);
  classify(file);
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
  // dlkit reads more formats than browsers do: a TIFF file is classified but not shown
  byId("preview").addEventListener("error", ({ target }) => { target.hidden = true; });
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) takeImage(target.files[0]);
    target.value = ""; // so that the same file can be selected again
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
    classify(new Blob([byId("text").value]));
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("writing").requestSubmit();
  });
}

// -- the addresses, for programs

async function showAddresses() {
  if (!byId("api").open || byId("addresses").children.length) return;
  const document = await (await fetch("/openapi.json")).json();
  const responses = {};
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, about] of Object.entries(operations)) {
      const row = element("tr"), parameters = (about.parameters ?? []).map(({ name }) => `?${name}=…`).join("");
      row.append(element("th", `${method.toUpperCase()} ${path}${parameters}`));
      row.append(element("td", about.description ?? `${about.summary}.`));
      row.firstChild.scope = "row";
      byId("addresses").append(row);
      Object.assign(responses, about.responses);
    }
  }
  delete responses[200];
  for (const [status, { description }] of Object.entries(responses)) {
    byId("errors").append(element("li", `${status} ${description}`));
  }
}

function openIfLinked() {
  if (location.hash === "#api") byId("api").open = true;
}

// -- start
async function start() {
  model = await (await fetch("/model")).json();
  const images = model.reads === "images";
  const color = model.channels === 1 ? "grayscale" : "color";
  const text = model.reads === "trees" ? "trees" : "text";
  const input = images ? `${color} images of ${model.width} × ${model.height}` : text;
  byId("model").textContent = model.model;
  byId("about").textContent = `${model.name} · ${input} · ${model.classes.length} classes`;
  document.title = `${model.model} · dlkit serve`;
  byId("empty").textContent = !images ? "Enter a text to classify it."
    : drawable() ? "Draw something to classify it." : "Choose an image to classify it.";
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
