// The last few drawings, each to be had back.

import { inWords, rejected } from "./answer.js";
import { thumbnail } from "./view.js";

const KEPT = 8;

export class History {
  #list;
  #restore;
  #entries = [];

  constructor(list, restore) {
    this.#list = list;
    this.#restore = restore;
  }

  // A drawing that was brought back and left again is still the same one.
  keep(marks, answer) {
    const others = this.#entries.filter((entry) => entry.marks[0] !== marks[0]);
    this.#entries = [{ marks, answer, item: this.#item(marks, answer) }, ...others].slice(0, KEPT);
    this.#list.replaceChildren(...this.#entries.map(({ item }) => item));
  }

  #item(marks, answer) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const caption = document.createElement("span");
    caption.textContent = !answer ? "–" : rejected(answer) ? "?" : answer.label;
    button.setAttribute("aria-label", `Bring back the drawing: ${answer ? inWords(answer) : "no answer came."}`);
    button.append(thumbnail(marks), caption);
    button.addEventListener("click", () => this.#restore(marks));
    item.append(button);
    return item;
  }
}
