// Shows the boxes of the digits over the drawing, each with its label.

// Boxes are in the pixels of a picture of `width` x `height`. `place` is where it lies on the sheet, from 0 to 1.
export function showBoxes(list, { lines, width, height }, place) {
  list.replaceChildren(...lines.flatMap(({ digits }) => digits).map((digit) => {
    const [left, top, right, bottom] = digit.box;
    const item = document.createElement("li");
    item.textContent = digit.accepted ? digit.label : "?";
    item.classList.toggle("rejected", !digit.accepted);
    const x = (pixels) => place.x + (pixels / width) * place.width;
    const y = (pixels) => place.y + (pixels / height) * place.height;
    item.style.inset = [y(top), 1 - x(right), 1 - y(bottom), x(left)].map((share) => `${100 * share}%`).join(" ");
    return item;
  }));
}
