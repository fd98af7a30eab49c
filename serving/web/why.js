// Finds out which parts of a drawing made the model choose its label (occlusion: Zeiler and Fergus, 2014).

import { predictImages } from "./service.js";

const SIDE = 28;
const HALF = 2; // A patch of 5x5 pixels is wiped out
const STEP = 2; // at every second row and column.

const pixels = [...Array(SIDE * SIDE).keys()];
const near = (pixel, centre) =>
  Math.abs((pixel % SIDE) - (centre % SIDE)) <= HALF && Math.abs(Math.floor(pixel / SIDE) - Math.floor(centre / SIDE)) <= HALF;

// Returns for each pixel how much it speaks for the label, from -1 (against it) to 1. `rows` are the rows of pixels that
// the model received, and `probabilities` its response.
export async function reasons({ image: rows, probabilities, model }) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const centres = pixels.filter((i) => i % SIDE % STEP === 0 && Math.floor(i / SIDE) % STEP === 0);
  const image = rows.flat();
  const wiped = centres.map((centre) => image.map((value, i) => (near(i, centre) ? 0 : value)));
  const before = logOdds(probabilities, best);
  const falls = (await predictImages(wiped, model)).map((after) => before - logOdds(after, best));
  const sums = pixels.map((i) => {
    const over = falls.filter((_, patch) => near(i, centres[patch]));
    return over.reduce((sum, fall) => sum + fall, 0) / over.length;
  });
  const most = Math.max(1, ...sums.map(Math.abs));
  return sums.map((sum) => sum / most);
}

// Probabilities near 1 hardly change. Their odds do.
function logOdds(probabilities, best) {
  const others = probabilities.reduce((sum, probability, i) => (i === best ? sum : sum + probability), 0);
  return Math.log(probabilities[best] + 1e-12) - Math.log(others + 1e-12);
}
