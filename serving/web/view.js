// The sheet as it is seen: as sharp as the screen, in the colours of the scheme.

import { draw } from "./sheet.js";

export const dark = matchMedia("(prefers-color-scheme: dark)");

export function view(canvas, sheet) {
  const context = canvas.getContext("2d");
  let asked = 0;

  function paint() {
    asked = 0;
    context.clearRect(0, 0, canvas.width, canvas.height);
    draw(context, sheet.marks, canvas.width, getComputedStyle(canvas).color);
  }

  const repaint = () => { asked ||= requestAnimationFrame(paint); };

  new ResizeObserver(() => {
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (side && side !== canvas.width) canvas.width = canvas.height = side;
    repaint();
  }).observe(canvas);
  for (const type of ["grow", "replace"]) sheet.addEventListener(type, repaint);
  dark.addEventListener("change", repaint);
}

// A small copy of a drawing.
export function thumbnail(marks) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 112;
  const paint = () => {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, 112, 112);
    draw(context, marks, 112, getComputedStyle(canvas).color);
  };
  requestAnimationFrame(paint);
  dark.addEventListener("change", () => requestAnimationFrame(paint));
  return canvas;
}
