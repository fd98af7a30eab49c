// Makes the curl command that sends the current drawing. It works in any POSIX shell.

import { key } from "./service.js";

const LINE_LENGTH = 60;

// `png` is a Blob; if it is null, the command names the file picture.png. With `number`, it asks for whole numbers.
export async function curlCommand(png, number) {
  const url = new URL(number ? "predict?mode=number" : "predict", location.href).href.replaceAll("'", "%27");
  const auth = key.get() ? ` -H "authorization: Bearer $MNIST_KEY"` : "";
  const send = (file) => `curl --data-binary @${file} -H 'content-type: image/png'${auth} '${url}'`;
  if (!png) return send("picture.png");
  const lines = (await base64(png)).match(new RegExp(`.{1,${LINE_LENGTH}}`, "g"));
  return [`base64 --decode <<'PNG' | ${send("-")}`, ...lines, "PNG"].join("\n");
}

function base64(blob) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.readAsDataURL(blob);
  });
}

// Pages from plain http have no clipboard API.
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused.focus();
    if (!copied) throw new Error("The browser did not allow copying.");
  }
}
