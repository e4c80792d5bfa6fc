// Drawing on the page of `dlkit serve`, and its conversion to the model's input.
"use strict";

const FIELD = 28, BOX = 20, PEN = 2.7; // pixels: the side of the image and of the drawing in it, and the line width
const PAD_PEN = 0.075, STEP = 1 / 28; // fractions of the pad's side: the line width, and the step of an arrow key

const drawable = () => model.channels === 1 && model.width === FIELD && model.height === FIELD;
const strokes = []; // lists of points [x, y], from 0 to 1
let pen = [0.5, 0.5]; // the position for the arrow keys

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

// MNIST's digits are white on black with gray edges, scaled to fit 20 × 20 pixels with their aspect ratio, and positioned
// so that their center of mass is the center of 28 × 28 (LeCun et al., 1998, section III.A). A network trained on them
// does not recognize digits that are small, thin or off center. So the strokes are drawn again at that size and position,
// with MNIST's line width; the drawing itself is never scaled down.
function presentLikeMnist(canvas) {
  const points = strokes.flat(), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, 0.05);
  const offset = [FIELD / 2 - scale * (left + right) / 2, FIELD / 2 - scale * (top + bottom) / 2];
  const [x, y] = centerOfMass(trace(canvas, scale, offset, PEN));
  trace(canvas, scale, [offset[0] + FIELD / 2 - x, offset[1] + FIELD / 2 - y], PEN);
}

function centerOfMass(pixels) {
  let mass = 0, x = 0, y = 0;
  for (let index = 0; index < FIELD * FIELD; index += 1) {
    const brightness = pixels[4 * index];
    mass += brightness;
    x += brightness * (index % FIELD + 0.5);
    y += brightness * (Math.floor(index / FIELD) + 0.5);
  }
  return [x / mass, y / mass];
}

function showPad() {
  const pad = byId("pad");
  trace(pad, pad.width, [0, 0], PAD_PEN * pad.width);
  byId("pad-hint").hidden = strokes.length > 0;
}

function update() {
  showPad();
  const preview = byId("seen");
  if (strokes.length === 0) {
    preview.getContext("2d").clearRect(0, 0, FIELD, FIELD);
    return reset();
  }
  showImage(null);
  presentLikeMnist(preview);
  preview.toBlob((blob) => { if (strokes.length) classify(blob); }); // it may be cleared meanwhile
}

function prepareDrawing() {
  const pad = byId("pad");
  byId("drawing").hidden = false;
  const position = ({ clientX, clientY }) => {
    const box = pad.getBoundingClientRect();
    return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
  };
  let drawing = false;
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    drawing = true;
    strokes.push([position(event)]);
    showPad();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? []).map(position), position(event));
    showPad();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    pad.addEventListener(name, () => {
      if (drawing) update();
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
  update();
}

function clear() {
  strokes.length = 0;
  update();
}

let keyStroke = null; // the stroke being drawn with keys

function drawByKey(event) {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (move) {
    const from = pen;
    pen = pen.map((value, axis) => Math.min(1, Math.max(0, value + STEP * move[axis])));
    if (!event.shiftKey) keyStroke = null;
    else if (keyStroke && strokes.at(-1) === keyStroke) keyStroke.push(pen);
    else strokes.push(keyStroke = [from, pen]);
    if (event.shiftKey) update();
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
