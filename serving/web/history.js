// Keeps the last few drawings, to restore them.

import { inWords } from "./prediction.js";
import { thumbnail } from "./sheet-view.js";

const KEPT = 8;

export class History {
  #list;
  #restore;
  #entries = [];

  constructor(list, restore) {
    this.#list = list;
    this.#restore = restore;
  }

  // Adds an entry for a drawing, in the place of its old entry if it was restored.
  // `prediction` is null if the drawing has none.
  keep(marks, prediction) {
    const others = this.#entries.filter((entry) => entry.marks[0] !== marks[0]);
    this.#entries = [{ marks, item: this.#item(marks, prediction) }, ...others].slice(0, KEPT);
    this.#list.replaceChildren(...this.#entries.map(({ item }) => item));
  }

  #item(marks, prediction) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const caption = document.createElement("span");
    caption.textContent = !prediction ? "–" : prediction.accepted ? prediction.label : "?";
    button.setAttribute("aria-label", `Restore this drawing: ${prediction ? inWords(prediction) : "no prediction."}`);
    button.append(thumbnail(marks), caption);
    button.addEventListener("click", () => this.#restore(marks));
    item.append(button);
    return item;
  }
}
