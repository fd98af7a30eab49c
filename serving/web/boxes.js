// Shows the boxes of the digits over the drawing, each with its label.

export class BoxView {
  #list;

  constructor(list) { this.#list = list; }

  clear() { this.#list.replaceChildren(); }

  // `prediction` has lines of digits, with boxes in the pixels of a picture of `width` x `height`. `place` is where that
  // picture lies on the sheet; its coordinates run from 0 to 1.
  show({ lines = [], width, height }, place) {
    this.#list.replaceChildren(...lines.flatMap(({ digits }) => digits).map((digit) => {
      const [left, top, right, bottom] = digit.box;
      const item = document.createElement("li");
      item.textContent = digit.accepted ? digit.label : "?";
      item.classList.toggle("rejected", !digit.accepted);
      const sides = {
        left: place.x + (left / width) * place.width,
        top: place.y + (top / height) * place.height,
        width: ((right - left) / width) * place.width,
        height: ((bottom - top) / height) * place.height,
      };
      for (const [side, share] of Object.entries(sides)) item.style.setProperty(side, `${100 * share}%`);
      return item;
    }));
  }
}
