// Writes a drawing into the fragment of the page's address, which no browser sends anywhere, and reads it back.
//
// "#d=", or "#n=" for a whole number, is followed by the strokes, with "-" between them. A stroke is its width and the
// x and y of its points. Each of these numbers from 0 to 1 has two digits of base 36.

const MOST = 36 ** 2 - 1;
const STROKE = /^[0-9a-z]{2}([0-9a-z]{4})+$/;
const LONGEST = 16_384; // characters
const NEAR = 0.006; // A point as close as this to the one before is left out.

const write = (share) => Math.round(MOST * Math.min(1, Math.max(0, share))).toString(36).padStart(2, "0");

// Returns "" for a drawing without strokes, with a picture, or too long for a link.
export function toFragment(marks, isNumber) {
  if (!marks.length || marks.some(({ picture }) => picture)) return "";
  const text = marks.map(({ points, width }) => [width, ...thinned(points).flat()].map(write).join("")).join("-");
  return text.length > LONGEST ? "" : `#${isNumber ? "n" : "d"}=${text}`;
}

// Returns the marks of the drawing, or null if the fragment has none.
export function fromFragment(fragment) {
  const strokes = fragment.slice(3).split("-");
  const isDrawing = fragment.length <= LONGEST + 3 && strokes.every((text) => STROKE.test(text));
  return isDrawing ? strokes.map(stroke) : null;
}

function stroke(text) {
  const [width, ...numbers] = text.match(/../g).map((digits) => parseInt(digits, 36) / MOST);
  return { width, points: numbers.flatMap((x, i) => (i % 2 ? [] : [[x, numbers[i + 1]]])) };
}

function thinned(points) {
  const kept = [points[0]];
  for (const point of points.slice(1)) {
    const [x, y] = kept.at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) > NEAR || point === points.at(-1)) kept.push(point);
  }
  return kept;
}
