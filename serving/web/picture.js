// Pictures from elsewhere: a file chosen, dropped or pasted.

// More than this is lost on a network that sees 28 pixels a side.
const LONGEST = 1024;

// A mark for the sheet. Throws an Error with words for the person.
export async function pictureFrom(file) {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    return { picture: opaque(scaled(image, image.naturalWidth || LONGEST, image.naturalHeight || LONGEST)) };
  } catch {
    throw new Error(`${file.name || "That"} is no picture that this browser can open.`);
  } finally {
    URL.revokeObjectURL(url);
  }
}

export function scaled(source, width, height) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// A drawing on nothing gets the ground it stands out from, as the service would give it.
function opaque(canvas) {
  const probe = document.createElement("canvas");
  probe.width = probe.height = 64;
  const small = probe.getContext("2d", { willReadFrequently: true });
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

// Calls `take` with every picture that is chosen with `input`, pasted, or dropped anywhere on the page.
export function takePictures(input, target, take) {
  const first = (transfer) => [...(transfer?.files ?? [])][0];

  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // the same file can be chosen again
    if (file) take(file);
  });
  addEventListener("paste", (event) => {
    const file = first(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  let depth = 0; // of elements the drag is in
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
    const file = first(event.dataTransfer);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
}
