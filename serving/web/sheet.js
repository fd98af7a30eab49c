// What is on the sheet, kept as it was made: any size can be drawn from it, and any step taken back.
//
// Coordinates run from 0 to 1 over the square sheet. A mark is a stroke {points: [[x, y], ...], width} or a
// picture {picture: canvas, mask: whether its alpha is ink}. A drawing is an array of marks, never changed in place.

// Pixels of the longer side of what is sent: the network sees 28, and the digit may be a fraction of the sheet.
const SENT = 224;

export class Sheet extends EventTarget {
  marks = [];
  #past = [];
  #future = [];
  #stroke = null;

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

  // The stroke under way was none: a palm, or a gesture of the system.
  cancel() {
    if (!this.#stroke) return;
    this.#stroke = null;
    this.marks = this.#past.pop();
    this.#changed("replace");
  }

  replace(marks) {
    this.end();
    if (this.empty && !marks.length) return;
    if (!this.empty) this.dispatchEvent(new CustomEvent("leave", { detail: this.marks }));
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
    this.#future = [];
    this.marks = marks;
  }

  // "grow": the same drawing with more of it. "replace": another drawing.
  #changed(type) { this.dispatchEvent(new Event(type)); }

  // A PNG of the sheet, black on white, or of the picture on it with what was drawn over it; null if it is empty.
  async png() {
    if (this.empty) return null;
    const { x, y, width, height } = extent(this.marks);
    const canvas = document.createElement("canvas");
    const scale = SENT / Math.max(width, height);
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    // It is read back at once: that is quick only where no graphics card has it.
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.translate(-x * scale, -y * scale);
    draw(context, this.marks, scale, "#000");
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }
}

// Draw marks on a square of so many pixels.
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

// Through the middles of the hand's points, with the points themselves as handles: smooth, and it lags by half a step.
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

function inked(picture, ink) {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = ink;
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

// Where a picture lies: as large as it goes, in the middle.
function box({ width, height }) {
  const longest = Math.max(width, height);
  const [w, h] = [width / longest, height / longest];
  return { x: (1 - w) / 2, y: (1 - h) / 2, width: w, height: h };
}

// A picture brings its own ground, which must not end in a frame of paper.
function extent([first]) {
  return first.picture && !first.mask ? box(first.picture) : { x: 0, y: 0, width: 1, height: 1 };
}
