// Saves the drawing as a PNG, with its prediction below.

import { draw } from "./sheet.js";

const SIDE = 640;
const LINE = 40;

export function saveDrawing(marks, words) {
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE + 2 * LINE;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  draw(context, marks, SIDE, "#1b2a52");
  context.font = `${LINE * 0.7}px Georgia, serif`;
  context.textAlign = "center";
  context.fillText(words, SIDE / 2, SIDE + LINE, SIDE - LINE);
  const link = document.createElement("a");
  link.download = "drawing.png";
  link.href = canvas.toDataURL();
  link.click();
}
