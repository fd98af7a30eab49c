// Connects the parts of the page. What few visits need is loaded when it is needed.

import { CertificateView } from "./certificate.js";
import { copyText, curlCommand } from "./curl.js";
import { History } from "./history.js";
import { drawWithKeys, drawWithPointer } from "./pen.js";
import { pictureFiles, pictureFrom } from "./pictures.js";
import { inWords, PredictionView } from "./prediction.js";
import { PredictionRequests } from "./requests.js";
import { samples } from "./samples.js";
import { key, ServiceError } from "./service.js";
import { NUMBER_SIDE, Sheet } from "./sheet.js";
import { showSheet } from "./sheet-view.js";

// Milliseconds without a change before the prediction is announced and the curl command is updated.
const SETTLE = 600;

const find = (selector) => document.querySelector(selector);
const canvas = find("#sheet");
const sheet = new Sheet();
const isNumber = () => find("#number").checked;
const png = () => sheet.png(isNumber() ? NUMBER_SIDE : undefined);
const requests = new PredictionRequests(png, isNumber);
const predictionView = new PredictionView(find("#prediction"));
const certificateView = new CertificateView(find("#model"), (labels) => {
  predictionView.setLabels(labels);
  feedback?.setLabels(labels);
});
const history = new History(find("#history"), replaceSheet);
let feedback = null; // the form, if the service asks for feedback
let prediction = null; // of the drawing on the sheet
let isRejected = false; // whether the drawing has grown since, and was rejected
let isGuess = false; // from the start of a stroke until the prediction of its end
let penIsDown = false;

// Screen readers read this out.
const announce = (text) => { find("#announcement").textContent = text; };

function debounced(action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, SETTLE);
  };
}

async function load(module) {
  try {
    return await import(module);
  } catch {
    throw new ServiceError("unavailable", "The service does not respond.");
  }
}

// Shows errors of the service.
function safely(action) {
  return async () => {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      notify("drawing", error.message);
    }
  };
}

// Drawing

const penWidth = () => find("#width").valueAsNumber / 100;
drawWithKeys(canvas, sheet, penWidth, find("#pen"), (isDown) => {
  announce(isDown ? "Pen down" : "Pen up");
  // The prediction may have been announced while the pen was down. Its words would be lost now.
  if (!isDown) announcePrediction();
});
drawWithPointer(canvas, sheet, penWidth);
showSheet(canvas, sheet);
canvas.addEventListener("pointerdown", ({ button, isPrimary }) => {
  if (button === 0 && isPrimary) isGuess = penIsDown = true;
});
for (const type of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(type, ({ isPrimary }) => {
    if (!isPrimary) return;
    penIsDown = false;
    if (find("#prediction").getAttribute("aria-busy") !== "true") judge();
  });
}

find("#undo").addEventListener("click", () => sheet.undo());
find("#redo").addEventListener("click", () => sheet.redo());
// A button that is disabled or replaced loses the focus, and the next key would start at the top of the page.
function replaceSheet(marks) {
  sheet.replace(marks);
  canvas.focus();
}
find("#clear").addEventListener("click", () => replaceSheet([]));
addEventListener("keydown", (event) => {
  if (event.key === "Delete" && !sheet.empty && !event.target.matches("input, textarea, select")) replaceSheet([]);
  if (!(event.ctrlKey || event.metaKey) || event.target.matches("input, textarea")) return;
  const step = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[event.key.toLowerCase()];
  if (!step) return;
  event.preventDefault();
  sheet[step]();
});

// Pictures

const showPicture = (mark) => sheet.replace([mark]);
samples(find("#samples"), showPicture);
pictureFiles(find("#file"), canvas.parentElement, async (file) => {
  try {
    showPicture(await pictureFrom(file));
  } catch (error) {
    notify("drawing", error.message);
  }
});
find("#choose").addEventListener("click", () => find("#file").click());
// Browsers offer the camera only to pages from https or from the same machine.
find("#camera").hidden = !navigator.mediaDevices?.getUserMedia;
find("#camera").addEventListener("click", safely(async () => {
  const { takePicture } = await load("./camera.js");
  await takePicture(find("#viewfinder"), showPicture, (message) => notify("drawing", message));
}));

// Predictions

const announcePrediction = debounced(() => { if (prediction) announce(inWords(prediction)); });
const explainSoon = debounced(() => explain());
const showCurl = async () => (find("#curl").value = await curlCommand(await png(), isNumber()));
const updateCurl = debounced(showCurl);

sheet.addEventListener("discard", ({ detail }) => history.keep(detail, prediction));
sheet.addEventListener("grow", () => requests.extend());
sheet.addEventListener("replace", predictAnew);
function predictAnew() {
  prediction = null;
  find("#boxes").replaceChildren();
  clearDrawingNotice();
  if (sheet.empty) {
    predictionView.clear();
    announce("The drawing area is empty.");
  }
  requests.replace();
}
find("#number").addEventListener("change", () => {
  predictionView.clear();
  predictAnew();
  updateCurl();
});
for (const type of ["grow", "replace"]) sheet.addEventListener(type, sheetChanged);
for (const type of ["busy", "idle"]) {
  requests.addEventListener(type, () => {
    if (type === "idle") judge();
    find("#prediction").setAttribute("aria-busy", type === "busy");
    feedback?.show(type === "busy" || isRejected ? null : prediction);
  });
}

// Ends the guess: what is shown now is the prediction of the finished stroke.
function judge() {
  if (!isGuess || penIsDown) return;
  isGuess = false;
  if (prediction) predictionView.show(prediction);
}

function sheetChanged() {
  find("#undo").disabled = !sheet.canUndo;
  find("#redo").disabled = !sheet.canRedo;
  for (const id of ["#clear", "#link", "#save", "#copy"]) find(id).disabled = sheet.empty;
  canvas.parentElement.classList.toggle("blank", sheet.empty);
  updateCurl();
}

requests.addEventListener("prediction", ({ detail }) => {
  prediction = detail;
  isRejected = false;
  clearDrawingNotice();
  predictionView.show(prediction, isGuess);
  announcePrediction();
  explainSoon();
  showCertificate(prediction.model);
  if (prediction.lines) drawBoxes();
});

const drawBoxes = safely(async () => {
  const shown = prediction;
  const { showBoxes } = await load("./boxes.js");
  if (shown === prediction && !sheet.empty) showBoxes(find("#boxes"), shown, sheet.extent);
});

// Why

const why = find("#why");
const isAsked = () => prediction && !why.disabled && why.ariaPressed === "true";
const explain = safely(async () => {
  if (!isAsked()) return;
  const asked = prediction;
  const { reasons } = await load("./why.js");
  const found = await reasons(asked, predictionView.labels);
  if (asked !== prediction || !isAsked()) return;
  predictionView.explain(asked, found);
  announce(`${found.words}.`);
});
why.addEventListener("click", () => {
  why.ariaPressed = why.ariaPressed !== "true";
  if (prediction) predictionView.show(prediction);
  explain();
});

// Errors

const RETRIES = { unavailable: " The page keeps trying.", overloaded: " The page tries again in a moment." };

// `kind` is that of a ServiceError, or "drawing" for a picture that cannot be opened.
function notify(kind, message) {
  find("#notice").dataset.kind = kind;
  find("#notice").textContent = message;
  find("#key-form").hidden = kind !== "key";
}

function clearDrawingNotice() {
  if (find("#notice").dataset.kind === "drawing") notify("", "");
}

const showError = ({ kind, message }) => notify(kind, message + (RETRIES[kind] ?? ""));
requests.addEventListener("error", ({ detail }) => {
  isRejected = true;
  showError(detail);
});
requests.addEventListener("recovered", () => {
  notify("", "");
  announce("The service responds again.");
});
find("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(find("#key").value.trim());
  notify("", "");
  showCertificate();
  requests.unlock();
  updateCurl();
});

async function showCertificate(model) {
  try {
    await certificateView.show(model);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    // Other errors appear again with the first drawing.
    if (error.kind === "key") showError(error);
  }
}

// The link, the saved picture and the curl command

// The address holds the drawing, so that it outlives a reload.
const updateAddress = debounced(async () => {
  const fragment = await linked().catch(() => location.hash);
  window.history.replaceState(null, "", fragment || location.pathname);
});
for (const type of ["grow", "replace"]) sheet.addEventListener(type, updateAddress);
async function linked() {
  const { toFragment } = await load("./link.js");
  return toFragment(sheet.marks);
}
const openLink = safely(async () => {
  if (!location.hash.startsWith("#d=")) return;
  const { fromFragment } = await load("./link.js");
  const marks = fromFragment(location.hash);
  if (marks) replaceSheet(marks);
});
addEventListener("hashchange", openLink);

find("#link").addEventListener("click", safely(async () => {
  const fragment = await linked();
  copy(fragment ? new URL(fragment, location.href).href : "", "A picture does not fit into a link.");
}));
find("#save").addEventListener("click", safely(async () => {
  const { saveDrawing } = await load("./save.js");
  saveDrawing(sheet.marks, prediction ? inWords(prediction) : "");
}));
find("#copy").addEventListener("click", async () => copy(await showCurl()));
async function copy(text, otherwise) {
  find("#copied").textContent = "";
  try {
    if (text) await copyText(text);
    find("#copied").textContent = text ? "Copied." : otherwise;
  } catch (error) {
    find("#copied").textContent = error.message;
  }
}
find("#curl").addEventListener("focus", ({ target }) => target.select());

sheetChanged();
if (!find("#feedback").hidden) {
  const { FeedbackForm } = await load("./feedback.js");
  feedback = new FeedbackForm(find("#feedback"), png, ({ kind, message }) => notify(kind === "key" ? kind : "drawing", message));
}
await openLink();
showCertificate();
await showCurl();
