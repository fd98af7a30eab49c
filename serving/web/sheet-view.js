// Shows the sheet on a canvas.

import { draw, newCanvas } from "./sheet.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

export function showSheet(canvas, sheet) {
  const context = canvas.getContext("2d");
  let frame = 0; // id of the animation frame that will paint, 0 if none

  function paint() {
    frame = 0;
    context.clearRect(0, 0, canvas.width, canvas.height);
    draw(context, sheet.marks, canvas.width, getComputedStyle(canvas).color);
  }

  const repaint = () => { frame ||= requestAnimationFrame(paint); };

  new ResizeObserver(() => {
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (side && side !== canvas.width) canvas.width = canvas.height = side;
    repaint();
  }).observe(canvas);
  for (const type of ["grow", "replace"]) sheet.addEventListener(type, repaint);
  dark.addEventListener("change", repaint);
}

// Returns a canvas with a small copy of a drawing.
export function thumbnail(marks) {
  const canvas = newCanvas(112, 112);
  const paint = () => {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, 112, 112);
    draw(context, marks, 112, getComputedStyle(canvas).color);
  };
  canvas.repaint = () => requestAnimationFrame(paint);
  canvas.repaint();
  return canvas;
}
// A listener for each thumbnail would keep it in memory.
dark.addEventListener("change", () => document.querySelectorAll("canvas").forEach((canvas) => canvas.repaint?.()));
