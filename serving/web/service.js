// Calls the service.

const KEY = "mnist-api-key";
// Milliseconds to wait for a response.
const TIMEOUT = 15_000;

// Why a call failed. `kind` says what to do next. "unavailable", "overloaded": try again later. "key": ask for an API
// key. "drawing": try another drawing.
export class ServiceError extends Error {
  constructor(kind, message, seconds = 0) {
    super(message);
    this.kind = kind;
    this.seconds = seconds;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  // The bytes of UTF-8, as curl sends them.
  set: (value) => sessionStorage.setItem(KEY, String.fromCharCode(...new TextEncoder().encode(value))),
};

function send(path, options) {
  const headers = { ...options?.headers, ...(key.get() && { authorization: `Bearer ${key.get()}` }) };
  return fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
}

async function call(path, options) {
  const sent = key.get();
  let response, body = {};
  try {
    response = await send(path, options);
    body = await response.json();
  } catch {
    if (response?.ok !== false) throw new ServiceError("unavailable", "The service does not respond.");
  }
  if (response.ok) return { response, body };
  // The visitor may have entered another key meanwhile.
  if (sent !== key.get()) return call(path, options);
  throw failure(response, body);
}

function failure({ status, headers }, { detail = "" }) {
  const wait = Number(headers.get("retry-after")) || 1;
  if (status === 401 || status === 403) {
    return new ServiceError("key", key.get() ? "The service does not accept this API key." : "The service needs an API key.");
  }
  if (status === 429) return new ServiceError("overloaded", "The service is overloaded.", wait);
  if (status === 503) return new ServiceError("unavailable", "The model is not available.", wait);
  if (status === 502 || status === 504) return new ServiceError("unavailable", "The service did not respond in time.", wait);
  if (status === 507) return new ServiceError("drawing", "The service has no space left for drawings.");
  if (status === 413) return new ServiceError("drawing", `The picture is larger than the service accepts: ${detail}.`);
  if (status >= 500) return new ServiceError("drawing", "The service failed on this drawing. The service's log has the reason.");
  return new ServiceError("drawing", `The service rejected the request: ${detail || status}.`);
}

// Returns the prediction for a PNG, its model, and the milliseconds of each stage. With `number` it has lines of digits.
export async function predict(png, number = false) {
  const started = performance.now();
  const options = { method: "POST", headers: { "content-type": "image/png" }, body: png };
  const { response, body } = await call(number ? "predict?mode=number" : "predict?include=image", options);
  const roundTrip = performance.now() - started;
  const prediction = number ? summary(body.predictions[0]) : body.predictions[0];
  return { ...prediction, id: response.headers.get("x-request-id"), model: body.model, times: { ...stages(response), roundTrip } };
}

// Returns the probabilities for each of several images, which are arrays of pixels.
export async function predictImages(images, { name, version }) {
  const headers = { "content-type": "application/octet-stream" };
  const options = { method: "POST", headers, body: Uint8Array.from(images.flat()) };
  const { body } = await call(`predict?${new URLSearchParams({ model: name, version })}`, options);
  return body.predictions.map(({ probabilities }) => probabilities);
}

// Adds the label and the confidence that the page shows.
function summary(prediction) {
  const { text, lines } = prediction;
  return {
    ...prediction,
    label: text.replaceAll("\n", " "),
    confidence: Math.min(1, ...lines.map(({ confidence }) => confidence)),
    probabilities: [],
  };
}

// Reads a header such as Server-Timing: decode;dur=0.31, queue;dur=0.01
function stages(response) {
  const found = (response.headers.get("server-timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  return Object.fromEntries([...found].map(([, name, duration]) => [name, Number(duration)]));
}

// Says that a picture with this prediction shows `label`. The visitor has agreed that it is stored.
export async function sendFeedback(png, label, { id, model }) {
  const query = new URLSearchParams({ label, version: model.version, consent: "yes" });
  const headers = { "content-type": "image/png", "x-request-id": id };
  return (await call(`feedback?${query}`, { method: "POST", headers, body: png })).body;
}

export const certificatePath = ({ name, version }) =>
  `certificate?${new URLSearchParams({ model: name, version })}`;

export const cardPath = ({ name, version }) => `models/${name}/card?${new URLSearchParams({ version })}`;

// Returns the model card as a page for a link of its own: with an API key, and with addresses that work there.
export async function card(model) {
  const response = await send(cardPath(model));
  if (!response.ok) throw failure(response, {});
  return (await response.text()).replaceAll('"../../', `"${new URL(".", document.baseURI)}`);
}

// Returns the manifest of a model {name, version}, or of the default model.
export async function certificate(model) {
  return (await call(model ? certificatePath(model) : "certificate")).body;
}

export async function ready() {
  try {
    return (await send("v2/health/ready")).ok;
  } catch {
    return false;
  }
}
