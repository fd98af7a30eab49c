// Holds the drawing as marks, so that it has any size and every step can be undone.
//
// Coordinates run from 0 to 1 over the square sheet. A mark is a stroke {points: [[x, y], ...], width} or a picture
// {picture: canvas, mask: true if its alpha channel is the ink}. A drawing is an array of marks, never changed
// in place.

// Pixels of the longer side of the PNG. A digit may cover a small part of it.
const PNG_SIDE = 224;
// The same for whole numbers.
export const NUMBER_SIDE = 800;

export class Sheet extends EventTarget {
  marks = [];
  #past = [];
  #future = [];
  #stroke = null;

  // The part of the sheet that the PNG shows.
  get extent() { return extent(this.marks); }
  get empty() { return !this.marks.length; }
  get canUndo() { return this.#past.length > 0; }
  get canRedo() { return this.#future.length > 0; }

  begin(point, width) {
    this.#stroke = { points: [point], width };
    this.#set([...this.marks, this.#stroke]);
    this.#changed("grow");
  }

  extend(points) {
    if (!this.#stroke) return;
    this.#stroke.points.push(...points);
    this.#changed("grow");
  }

  end() { this.#stroke = null; }

  // Removes the current stroke, which comes from a palm or from a gesture for the system.
  cancel() {
    if (!this.#stroke) return;
    this.#stroke = null;
    this.marks = this.#past.pop();
    this.#changed("replace");
  }

  replace(marks) {
    this.end();
    if (this.empty && !marks.length) return;
    if (!this.empty) this.dispatchEvent(new CustomEvent("discard", { detail: this.marks }));
    this.#set(marks);
    this.#changed("replace");
  }

  undo() { this.#step(this.#past, this.#future); }
  redo() { this.#step(this.#future, this.#past); }

  #step(from, to) {
    this.end();
    if (!from.length) return;
    to.push(this.marks);
    this.marks = from.pop();
    this.#changed("replace");
  }

  #set(marks) {
    this.#past.push(this.marks);
    if (this.#past.length > 200) this.#past.shift();
    this.#future = [];
    this.marks = marks;
  }

  // "grow": the drawing has more ink than before. "replace": another drawing has taken its place.
  #changed(type) { this.dispatchEvent(new Event(type)); }

  // Returns a PNG of the sheet, black on white, or null if it is empty. If a picture has its own background, the PNG
  // shows only its area, with the strokes over it.
  async png(side = PNG_SIDE) {
    if (this.empty) return null;
    const { x, y, width, height } = this.extent;
    const scale = side / Math.max(width, height);
    const canvas = newCanvas(width * scale, height * scale);
    // The pixels are read at once, which is slow from a graphics card.
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.translate(-x * scale, -y * scale);
    draw(context, this.marks, scale, "#000");
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}

// Returns a canvas of at least one pixel.
export function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width));
  canvas.height = Math.max(1, Math.round(height));
  return canvas;
}

// Draws marks on a square whose sides have `side` pixels.
export function draw(context, marks, side, ink) {
  context.strokeStyle = context.fillStyle = ink;
  context.lineCap = context.lineJoin = "round";
  context.imageSmoothingQuality = "high";
  for (const mark of marks) {
    if (mark.picture) {
      const { x, y, width, height } = box(mark.picture);
      const picture = mark.mask ? inked(mark.picture, ink) : mark.picture;
      context.drawImage(picture, x * side, y * side, width * side, height * side);
    } else {
      drawStroke(context, mark, side);
    }
  }
}

// Draws a smooth line: curves from midpoint to midpoint, with the points as control points.
function drawStroke(context, { points, width }, side) {
  const at = points.map(([x, y]) => [x * side, y * side]);
  context.lineWidth = width * side;
  context.beginPath();
  if (at.length === 1) {
    context.arc(...at[0], (width * side) / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  context.moveTo(...at[0]);
  for (let i = 1; i < at.length - 1; i++) {
    const [x, y] = at[i];
    context.quadraticCurveTo(x, y, (x + at[i + 1][0]) / 2, (y + at[i + 1][1]) / 2);
  }
  context.lineTo(...at.at(-1));
  context.stroke();
}

// Returns a copy of `picture` in the colour `ink`.
function inked(picture, ink) {
  const canvas = newCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = ink;
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

// Returns the place of a picture: centred, and as large as the sheet allows.
function box({ width, height }) {
  const longest = Math.max(width, height);
  const [w, h] = [width / longest, height / longest];
  return { x: (1 - w) / 2, y: (1 - h) / 2, width: w, height: h };
}

// Returns the part of the sheet that is sent. The service would read a white frame around a picture as ink.
function extent([first]) {
  return first.picture && !first.mask ? box(first.picture) : { x: 0, y: 0, width: 1, height: 1 };
}
