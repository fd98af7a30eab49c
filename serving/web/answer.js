// The answer in words and pictures.

const REASONS = {
  empty: "There is nothing to see on it",
  several: "More than one digit",
  "no digit": "That does not look like a digit",
};
const INVITATION = "Draw a digit, and it is read while you draw.";

// Rounded, but never up to certainty.
const percent = (share) => (share < 0.0005 ? "0\u00a0%" : `${Math.min(99.9, 100 * share).toFixed(1)}\u00a0%`);
const sure = (share) => `${share > 0.9995 ? "over " : ""}${percent(share)} sure`;
const time = (milliseconds) =>
  milliseconds === undefined ? "–" : `${milliseconds.toFixed(milliseconds < 10 ? 2 : 1)}\u00a0ms`;

// `accepted` is missing where the service knows no doubt.
export const rejected = (answer) => answer.accepted === false;
export const reason = (answer) => REASONS[answer.reason] ?? REASONS["no digit"];
export const inWords = (answer) =>
  rejected(answer) ? `${reason(answer)}.` : `${answer.label}, ${sure(answer.confidence)}.`;

export class AnswerView {
  #root;
  #labels = [];

  constructor(root) {
    this.#root = root;
    this.label([..."0123456789"]);
    this.clear();
  }

  #find(name) { return this.#root.querySelector(name); }

  // The names of the classes, one bar each.
  label(labels) {
    if (labels.join() === this.#labels.join()) return;
    this.#labels = labels;
    this.#find("#bars").replaceChildren(...labels.map((label) => {
      const row = document.createElement("li");
      for (const [name, text] of [["name", label], ["bar", ""], ["share", ""]]) {
        const part = document.createElement("span");
        part.className = name;
        part.textContent = text;
        row.append(part);
      }
      return row;
    }));
  }

  clear() {
    this.#root.dataset.state = "empty";
    this.#find("#digit").textContent = "";
    this.#find("#sure").textContent = INVITATION;
    this.#bars([]);
    this.#seen();
    for (const name of ["#model-time", "#service-time", "#round-trip"]) this.#find(name).textContent = "–";
  }

  show(answer) {
    const doubtful = rejected(answer);
    this.#root.dataset.state = doubtful ? "rejected" : "answered";
    const digit = this.#find("#digit");
    digit.textContent = doubtful ? "?" : answer.label;
    digit.classList.toggle("long", digit.textContent.length > 2);
    this.#find("#sure").textContent = doubtful ? reason(answer) : sure(answer.confidence);
    this.#bars(answer.probabilities, doubtful ? -1 : answer.digit);
    this.#seen(answer.image);
    const { decode = 0, queue = 0, infer, encode = 0, roundTrip } = answer.times;
    this.#find("#model-time").textContent = time(infer);
    this.#find("#service-time").textContent = time(infer === undefined ? infer : decode + queue + infer + encode);
    this.#find("#round-trip").textContent = time(roundTrip);
  }

  #bars(probabilities, best = -1) {
    [...this.#find("#bars").children].forEach((row, index) => {
      const share = probabilities[index];
      row.querySelector(".bar").style.setProperty("--share", share ?? 0);
      row.querySelector(".share").textContent = share === undefined ? "" : percent(share);
      row.classList.toggle("best", index === best);
    });
  }

  // The rows of pixels 0..255 that the network saw.
  #seen(rows) {
    const canvas = this.#find("#seen");
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", rows ? "The drawing in 28 by 28 pixels" : "Nothing yet");
    if (!rows) return;
    const pixels = context.createImageData(rows[0].length, rows.length);
    rows.flat().forEach((value, index) => pixels.data.set([value, value, value, 255], 4 * index));
    context.putImageData(pixels, 0, 0);
  }
}
