// Offers ten digits from MNIST's training set. In samples.png the ink is the alpha channel.

import { newCanvas } from "./sheet.js";

const SIZE = 28;

export function samples(list, onPicture) {
  const strip = new Image();
  strip.crossOrigin = ""; // As style.css loads it, so that the browser loads it once.
  strip.src = "samples.png";
  for (let digit = 0; digit < 10; digit++) {
    const button = document.createElement("button");
    const face = document.createElement("span");
    face.style.setProperty("--digit", digit);
    button.setAttribute("aria-label", `Sample ${digit}`);
    button.append(face);
    button.addEventListener("click", async () => {
      if (!strip.complete) await strip.decode();
      const picture = newCanvas(SIZE, SIZE);
      picture.getContext("2d").drawImage(strip, -SIZE * digit, 0);
      onPicture({ picture, mask: true });
    });
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}
