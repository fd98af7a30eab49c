// Shows a prediction.

const BARS = 10;
let what = "digit"; // or "symbol", by the labels of the model
const REJECTIONS = {
  empty: () => "The picture is empty",
  several: () => `More than one ${what}${what === "digit" ? "; switch on “Read whole numbers”" : ""}`,
  unsure: ({ label }) => `Looks most like ${label}, but may be something else`,
};

// No prediction is certain, so 99.9 % is the most.
const percent = (probability) =>
  probability < 0.0005 ? "0\u00a0%" : `${Math.min(99.9, 100 * probability).toFixed(1)}\u00a0%`;
const inPercent = (confidence) => `${confidence > 0.9995 ? "over " : ""}${percent(confidence)} confidence`;
const time = (milliseconds) =>
  milliseconds === undefined ? "–" : `${milliseconds.toFixed(milliseconds < 10 ? 2 : 1)}\u00a0ms`;

// An unknown reason gets the words of "no digit". A whole number without digits has no label.
const isNone = ({ label }) => `Seems to be no ${what}${label ? `. Looks most like ${label}` : ""}`;
const rejection = (prediction) => (REJECTIONS[prediction.reason] ?? isNone)(prediction);
export const inWords = (prediction) =>
  prediction.accepted ? `${prediction.label}, ${inPercent(prediction.confidence)}.` : `${rejection(prediction)}.`;

// Returns the width of an element's widest word, in ems. The label is made as large as its words allow.
function widestWord(element) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `600 100px ${getComputedStyle(element).fontFamily}`;
  return Math.max(...element.textContent.split(/\s/).map((word) => context.measureText(word).width / 100));
}

export class PredictionView {
  #root;
  #labels = [];

  constructor(root) {
    this.#root = root;
    this.setLabels([..."0123456789"]);
  }

  #find(selector) { return this.#root.querySelector(selector); }

  // Makes one bar for each label, or for the best ten.
  setLabels(labels) {
    if (labels.join("\n") === this.#labels.join("\n")) return;
    this.#labels = labels;
    const before = what;
    what = labels.every((label) => /^\d$/.test(label)) ? "digit" : "symbol";
    document.body.dataset.what = what;
    this.#root.classList.toggle("words", labels.some((label) => [...label].length > 2));
    document.title = document.querySelector("h1").textContent = `Draw a ${what}`;
    for (const part of document.querySelectorAll("[aria-label]")) part.ariaLabel = part.ariaLabel.replace(before, what);
    this.#find("#bars").replaceChildren(...labels.slice(0, BARS).map(() => {
      const row = document.createElement("li");
      for (const name of ["name", "bar", "probability"]) {
        const part = document.createElement("span");
        part.className = name;
        row.append(part);
      }
      return row;
    }));
    if (this.#root.dataset.state === "empty") this.clear();
    else this.#showBars([]);
  }

  clear() {
    this.#root.dataset.state = "empty";
    this.#find("#digit").textContent = "";
    this.#find("#why").disabled = true;
    this.#find("#confidence").textContent = `Draw a ${what}. Your drawing goes only to this service.`;
    this.#showBars([]);
    this.#showModelInput();
    for (const name of ["#model-time", "#service-time", "#round-trip"]) this.#find(name).textContent = "–";
  }

  // A guess is shown while the pen is down: half a digit often looks like another one, or like none.
  show(prediction, isGuess = false) {
    const state = isGuess ? "guess" : prediction.accepted ? "accepted" : "rejected";
    this.#root.dataset.state = state;
    const digit = this.#find("#digit");
    digit.textContent = (state !== "rejected" && prediction.label) || "?";
    digit.style.setProperty("--ems", widestWord(digit));
    this.#find("#confidence").textContent = {
      guess: () => "A guess while you draw",
      accepted: () => inPercent(prediction.confidence),
      rejected: () => rejection(prediction),
    }[state]();
    const { probabilities } = prediction;
    this.#showBars(probabilities, state === "accepted" ? probabilities.indexOf(Math.max(...probabilities)) : -1);
    this.#showModelInput(prediction.image);
    this.#find("#why").disabled = isGuess || !prediction.image || !prediction.label;
    const { decode = 0, queue = 0, infer, encode = 0, roundTrip } = prediction.times;
    this.#find("#model-time").textContent = time(infer);
    this.#find("#service-time").textContent = time(infer === undefined ? infer : decode + queue + infer + encode);
    this.#find("#round-trip").textContent = time(roundTrip);
  }

  #showBars(probabilities, best = -1) {
    const shown = [...this.#labels.keys()];
    if (shown.length > BARS) shown.sort((a, b) => (probabilities[b] ?? 0) - (probabilities[a] ?? 0));
    [...this.#find("#bars").children].forEach((row, place) => {
      const index = shown[place];
      const probability = probabilities[index];
      row.querySelector(".name").textContent = this.#labels[index];
      row.querySelector(".bar").style.setProperty("--probability", probability ?? 0);
      row.querySelector(".probability").textContent = probability === undefined ? "" : percent(probability);
      row.classList.toggle("best", index === best);
    });
  }

  get labels() { return this.#labels; }

  // Shows the reasons from why.js.
  explain({ image }, { colours, words }) {
    this.#showModelInput(image, colours);
    this.#find("figcaption").textContent = words;
  }

  // `rows` are the rows of pixels, 0 to 255, that the model received.
  #showModelInput(rows, colours = []) {
    const canvas = this.#find("#model-input");
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", rows ? "The drawing as 28 by 28 pixels" : "No drawing yet");
    this.#find("figcaption").textContent = "Model input, 28×28";
    if (!rows) return;
    const pixels = context.createImageData(rows[0].length, rows.length);
    rows.flat().forEach((value, index) => {
      const colour = colours[index] ?? [1, 1, 1];
      pixels.data.set([...colour.map((share) => share * value), 255], 4 * index);
    });
    context.putImageData(pixels, 0, 0);
  }
}
