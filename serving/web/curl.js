// The same question from a terminal: a line for any shell, with exactly the drawing on the sheet.

import { key } from "./service.js";

const LINE = 60;

export async function curlLine(png) {
  const url = new URL("predict", location.href).href.replaceAll("'", "%27");
  const auth = key.get() ? ` -H "authorization: Bearer $MNIST_KEY"` : "";
  const send = (file) => `curl --data-binary @${file} -H 'content-type: image/png'${auth} '${url}'`;
  if (!png) return send("digit.png");
  const lines = (await base64(png)).match(new RegExp(`.{1,${LINE}}`, "g"));
  return [`base64 --decode <<'PNG' | ${send("-")}`, ...lines, "PNG"].join("\n");
}

function base64(blob) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.readAsDataURL(blob);
  });
}

// Pages from plain http have no clipboard API; the old way works everywhere.
export async function copy(area) {
  try {
    await navigator.clipboard.writeText(area.value);
  } catch {
    area.select();
    if (!document.execCommand("copy")) throw new Error("The browser did not let the page copy.");
  }
}
