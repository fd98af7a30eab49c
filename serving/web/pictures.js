// Reads pictures that the visitor chooses, drops or pastes.

import { newCanvas } from "./sheet.js";

// Longest side in pixels. The model's input has 28.
const LONGEST = 1024;

// Returns a mark for the sheet. The Error that it throws has a message for the visitor.
export async function pictureFrom(file) {
  const name = file.name || "The file";
  if (!file.size) throw new Error(`${name} is empty.`);
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    return { picture: opaque(scaled(image, image.naturalWidth || LONGEST, image.naturalHeight || LONGEST)) };
  } catch {
    throw new Error(`${name}: this browser cannot open it as a picture. Save it as PNG or JPEG.`);
  } finally {
    URL.revokeObjectURL(url);
  }
}

// Returns a copy on a canvas, no longer than LONGEST.
export function scaled(source, width, height) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = newCanvas(width * scale, height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Puts white behind transparent dark ink, and black behind light ink, as the service does.
function opaque(canvas) {
  const small = newCanvas(64, 64).getContext("2d", { willReadFrequently: true });
  small.drawImage(canvas, 0, 0, 64, 64);
  const { data } = small.getImageData(0, 0, 64, 64);
  let [light, weight] = [0, 0];
  for (let i = 0; i < data.length; i += 4) {
    light += (data[i + 3] * (data[i] + data[i + 1] + data[i + 2])) / 3;
    weight += data[i + 3];
  }
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = light < 128 * weight ? "#fff" : "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

// Calls `onFiles` with the files that are chosen with `input`, pasted, or dropped on the page. `target` has the class
// "dropping" while a file is dragged.
export function pictureFiles(input, target, onFiles) {
  const take = (event, transfer) => {
    if (!transfer?.files.length) return;
    event.preventDefault();
    onFiles(transfer.files);
  };

  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // otherwise choosing the same file again would be no change
    if (files.length) onFiles(files);
  });
  addEventListener("paste", (event) => take(event, event.clipboardData));
  let depth = 0; // nested elements that the dragged file is over
  const over = (change) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = Math.max(0, depth + change);
    target.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", over(1));
  addEventListener("dragover", over(0));
  addEventListener("dragleave", over(-1));
  addEventListener("drop", (event) => {
    depth = 0;
    target.classList.remove("dropping");
    take(event, event.dataTransfer);
  });
}
