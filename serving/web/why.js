// Finds out which parts of a drawing made the model choose its label (occlusion: Zeiler and Fergus, 2014).

import { predictImages } from "./service.js";

const SIDE = 28;
const HALF = 2; // A patch of 5x5 pixels is wiped out
const STEP = 2; // at every second row and column.

const pixels = [...Array(SIDE * SIDE).keys()];
const near = (pixel, centre) =>
  Math.abs((pixel % SIDE) - (centre % SIDE)) <= HALF && Math.abs(Math.floor(pixel / SIDE) - Math.floor(centre / SIDE)) <= HALF;

// Red, green and blue of white ink that speaks for the label or against it.
const FOR = [1, 0.25, 0.1];
const AGAINST = [0.3, 0.55, 1];

// Returns the colour of each pixel of the model's input, by what it says about the label, and the reasons in words.
export async function reasons({ image: rows, probabilities, model }, labels) {
  const best = highest(probabilities);
  const centres = pixels.filter((i) => i % SIDE % STEP === 0 && Math.floor(i / SIDE) % STEP === 0);
  const image = rows.flat();
  const wiped = centres.map((centre) => image.map((value, i) => (near(i, centre) ? 0 : value)));
  const before = logOdds(probabilities, best);
  const found = await predictImages(wiped, model);
  const falls = found.map((after) => before - logOdds(after, best));
  const sums = pixels.map((i) => {
    const over = falls.filter((_, patch) => near(i, centres[patch]));
    return over.reduce((sum, fall) => sum + fall, 0) / over.length;
  });
  const most = Math.max(1, ...sums.map(Math.abs));
  const colours = sums.map((sum) => (sum < 0 ? AGAINST : FOR).map((part) => 1 - ((1 - part) * Math.abs(sum)) / most));
  const other = highest(found[highest(falls)]);
  const still = other === best ? "still " : "";
  return { colours, words: `Red ink speaks for ${labels[best]}, blue against. Without the reddest part it is ${still}read as ${labels[other]}` };
}

const highest = (values) => values.indexOf(Math.max(...values));

// Probabilities near 1 hardly change. Their odds do.
function logOdds(probabilities, best) {
  const others = probabilities.reduce((sum, probability, i) => (i === best ? sum : sum + probability), 0);
  return Math.log(probabilities[best] + 1e-12) - Math.log(others + 1e-12);
}
