// Drawing on the page of `dlkit serve`, and what of it the model is given.
"use strict";

const FIELD = 28, BOX = 20, PEN = 2.7; // pixels: the image's side, what a drawing fills of it, and its lines' width
const PAD_PEN = 0.075, STEP = 1 / 28; // of the pad's side: its lines' width, and how far an arrow key goes

const drawable = () => model.channels === 1 && model.width === FIELD && model.height === FIELD;
const strokes = []; // lists of points [x, y], from 0 to 1
let pen = [0.5, 0.5]; // where arrow keys go on

function trace(canvas, scale, [left, top], width) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  Object.assign(context, { strokeStyle: "#fff", lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const points of strokes) {
    context.beginPath();
    for (const [x, y] of [points[0], ...points]) context.lineTo(left + scale * x, top + scale * y); // a dot needs two
    context.stroke();
  }
  return context.getImageData(0, 0, canvas.width, canvas.height).data; // RGBA
}

// MNIST's digits are white on black with grey edges, scaled to fit 20 × 20 pixels with their aspect kept, and placed so
// that their centre of mass is the centre of 28 × 28 (LeCun et al., 1998, section III.A). A network that learned from
// them has seen nothing else: a digit that is small, thin or off centre is foreign to it. So the strokes are traced
// anew at that size and place, with a line as wide as MNIST's; nothing drawn is ever shrunk.
function presentLikeMnist(canvas) {
  const points = strokes.flat(), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, 0.05);
  const place = [FIELD / 2 - scale * (left + right) / 2, FIELD / 2 - scale * (top + bottom) / 2];
  const [x, y] = centreOfMass(trace(canvas, scale, place, PEN));
  trace(canvas, scale, [place[0] + FIELD / 2 - x, place[1] + FIELD / 2 - y], PEN);
}

function centreOfMass(pixels) {
  let mass = 0, x = 0, y = 0;
  for (let place = 0; place < FIELD * FIELD; place += 1) {
    const light = pixels[4 * place];
    mass += light;
    x += light * (place % FIELD + 0.5);
    y += light * (Math.floor(place / FIELD) + 0.5);
  }
  return [x / mass, y / mass];
}

function showPad() {
  const pad = byId("pad");
  trace(pad, pad.width, [0, 0], PAD_PEN * pad.width);
  byId("pad-hint").hidden = strokes.length > 0;
}

function drawn() {
  showPad();
  const seen = byId("seen");
  if (strokes.length === 0) {
    seen.getContext("2d").clearRect(0, 0, FIELD, FIELD);
    return forget();
  }
  showImage(null);
  presentLikeMnist(seen);
  seen.toBlob((blob) => { if (strokes.length) ask(blob); }); // it may be cleared meanwhile
}

function prepareDrawing() {
  const pad = byId("pad");
  byId("drawing").hidden = false;
  const place = ({ clientX, clientY }) => {
    const box = pad.getBoundingClientRect();
    return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
  };
  let drawing = false;
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    drawing = true;
    strokes.push([place(event)]);
    showPad();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? []).map(place), place(event));
    showPad();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    pad.addEventListener(name, () => {
      if (drawing) drawn();
      drawing = false;
    });
  }
  pad.addEventListener("keydown", drawByKey);
  byId("undo").addEventListener("click", undo);
  byId("clear").addEventListener("click", clear);
  showPad();
}

function undo() {
  strokes.pop();
  drawn();
}

function clear() {
  strokes.length = 0;
  drawn();
}

let keyed = null; // the stroke that keys are drawing

function drawByKey(event) {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (move) {
    const from = pen;
    pen = pen.map((value, axis) => Math.min(1, Math.max(0, value + STEP * move[axis])));
    if (!event.shiftKey) keyed = null;
    else if (keyed && strokes.at(-1) === keyed) keyed.push(pen);
    else strokes.push(keyed = [from, pen]);
    if (event.shiftKey) drawn();
    showPen();
  } else if (event.key === "Backspace") undo();
  else if (event.key === "Delete") clear();
  else return;
  event.preventDefault();
}

function showPen() {
  showPad();
  const pad = byId("pad"), context = pad.getContext("2d");
  context.fillStyle = "#f29a4e";
  context.beginPath();
  context.arc(pen[0] * pad.width, pen[1] * pad.height, pad.width / 60, 0, 2 * Math.PI);
  context.fill();
}
