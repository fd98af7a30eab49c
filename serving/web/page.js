// The page: its parts, and what happens when.

import { AnswerView, inWords } from "./answer.js";
import { Asking } from "./asking.js";
import { camera } from "./camera.js";
import { CertificateView } from "./certificate.js";
import { copy, curlLine } from "./curl.js";
import { History } from "./history.js";
import { keys, pointer } from "./pen.js";
import { pictureFrom, takePictures } from "./picture.js";
import { samples } from "./samples.js";
import { key, Trouble } from "./service.js";
import { Sheet } from "./sheet.js";
import { view } from "./view.js";

// So long nothing has to happen before it is read out, or the line for the terminal is made.
const QUIET = 600;

const find = (selector) => document.querySelector(selector);
const canvas = find("#sheet");
const sheet = new Sheet();
const asking = new Asking(() => sheet.png());
const answers = new AnswerView(find("#answer"));
const model = new CertificateView(find("#model"), (labels) => answers.label(labels));
const history = new History(find("#history"), (marks) => sheet.replace(marks));
let answer = null; // to what is on the sheet

// Words for those who do not see the page.
const say = (text) => { find("#said").textContent = text; };

function later(action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, QUIET);
  };
}

// Drawing.

const penWidth = () => find("#width").valueAsNumber / 100;
keys(canvas, sheet, penWidth, find("#pen"), say);
pointer(canvas, sheet, penWidth);
view(canvas, sheet);

find("#undo").addEventListener("click", () => sheet.undo());
find("#redo").addEventListener("click", () => sheet.redo());
find("#clear").addEventListener("click", () => sheet.replace([]));
addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.target.matches("input, textarea")) return;
  const step = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[event.key.toLowerCase()];
  if (!step) return;
  event.preventDefault();
  sheet[step]();
});

// Pictures.

const put = (mark) => sheet.replace([mark]);
samples(find("#samples"), put);
takePictures(find("#file"), canvas.parentElement, async (file) => {
  try {
    put(await pictureFrom(file));
  } catch (error) {
    notice("refused", error.message);
  }
});
find("#choose").addEventListener("click", () => find("#file").click());
camera(find("#camera"), find("#viewfinder"), put, (words) => notice("refused", words));

// Asking and answering.

const readOut = later(() => { if (answer) say(inWords(answer)); });
const writeCurl = later(async () => { find("#curl").value = await curlLine(await sheet.png()); });

sheet.addEventListener("leave", ({ detail }) => history.keep(detail, answer));
sheet.addEventListener("grow", () => asking.more());
sheet.addEventListener("replace", () => {
  answer = null;
  if (refused()) notice("", "");
  if (sheet.empty) {
    answers.clear();
    say("The sheet is empty.");
  }
  asking.other();
});
for (const type of ["grow", "replace"]) sheet.addEventListener(type, changed);
for (const type of ["busy", "rest"]) {
  asking.addEventListener(type, () => find("#answer").setAttribute("aria-busy", type === "busy"));
}

function changed() {
  find("#undo").disabled = !sheet.canUndo;
  find("#redo").disabled = !sheet.canRedo;
  find("#clear").disabled = sheet.empty;
  canvas.parentElement.classList.toggle("blank", sheet.empty);
  writeCurl();
}

asking.addEventListener("answer", ({ detail }) => {
  answer = detail;
  if (refused()) notice("", "");
  answers.show(answer);
  readOut();
  certify(answer.model);
});

// Trouble.

const WAITING = { away: " It is tried again until it does.", busy: " It is tried again in a moment." };

function notice(kind, words) {
  find("#notice").dataset.kind = kind;
  find("#notice").textContent = words;
  find("#unlock").hidden = kind !== "key";
}

const refused = () => find("#notice").dataset.kind === "refused";
const trouble = ({ kind, message }) => notice(kind, message + (WAITING[kind] ?? ""));
asking.addEventListener("trouble", ({ detail }) => trouble(detail));
asking.addEventListener("well", () => {
  notice("", "");
  say("The service answers again.");
});
find("#unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(find("#key").value.trim());
  notice("", "");
  certify();
  asking.unlock();
  writeCurl();
});

async function certify(named) {
  try {
    await model.show(named);
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    // What else is wrong comes up with the first drawing.
    if (error.kind === "key") trouble(error);
  }
}

// The terminal.

find("#copy").addEventListener("click", async () => {
  find("#copied").textContent = "";
  find("#curl").value = await curlLine(await sheet.png());
  try {
    await copy(find("#curl"));
    find("#copied").textContent = "Copied.";
  } catch (error) {
    find("#copied").textContent = error.message;
  }
});
find("#curl").addEventListener("focus", ({ target }) => target.select());

changed();
certify();
find("#curl").value = await curlLine(null);
