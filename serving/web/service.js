// What is said to the service and what it answers.

const KEY = "mnist-api-key";
// Longer than the service lets any request take.
const PATIENCE = 15_000;

// Why there is no answer. `kind` says what helps: "away" and "busy" waiting, "key" a key, "refused" another drawing.
export class Trouble extends Error {
  constructor(kind, message, seconds = 0) {
    super(message);
    this.kind = kind;
    this.seconds = seconds;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key.get() && { authorization: `Bearer ${key.get()}` }) };
  let response, body;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    body = await response.json();
  } catch {
    throw response && !response.ok ? trouble(response, {}) : new Trouble("away", "The service does not answer.");
  }
  if (!response.ok) throw trouble(response, body);
  return { response, body };
}

function trouble({ status, headers }, { detail = "" }) {
  const wait = Number(headers.get("retry-after")) || 1;
  if (status === 401 || status === 403) {
    return new Trouble("key", key.get() ? "The service does not take this API key." : "The service asks for an API key.");
  }
  if (status === 429) return new Trouble("busy", "The service has more to do than it can take.", wait);
  if (status === 503) return new Trouble("away", "The model is not in service just now.", wait);
  if (status === 502 || status === 504) return new Trouble("away", "The service does not answer in time.", wait);
  if (status === 413) return new Trouble("refused", `The picture is larger than the service takes: ${detail}.`);
  if (status >= 500) return new Trouble("refused", "The service failed on this drawing. Its log says why.");
  return new Trouble("refused", `The service did not take the drawing: ${detail || status}.`);
}

// The answer for a PNG: the prediction, the model, and where the time went, in milliseconds.
export async function predict(png) {
  const started = performance.now();
  const options = { method: "POST", headers: { "content-type": "image/png" }, body: png };
  const { response, body } = await ask("predict?include=image", options);
  const roundTrip = performance.now() - started;
  return { ...body.predictions[0], model: body.model, times: { ...stages(response), roundTrip } };
}

// Server-Timing: decode;dur=0.31, queue;dur=0.01, infer;dur=0.09, encode;dur=0.02
function stages(response) {
  const found = (response.headers.get("server-timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  return Object.fromEntries([...found].map(([, name, duration]) => [name, Number(duration)]));
}

export const certificatePath = ({ name, version }) =>
  `certificate?${new URLSearchParams({ model: name, version })}`;

// Of a model {name, version}, or of the one that answers.
export async function certificate(model) {
  return (await ask(model ? certificatePath(model) : "certificate")).body;
}

export async function ready() {
  try {
    return (await fetch("v2/health/ready", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) })).ok;
  } catch {
    return false;
  }
}
