// Decides when to send a request. Only one is in flight at a time, then the newest drawing is sent.
// A response to a replaced drawing is dropped.

import { predict, ready, ServiceError } from "./service.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8_000;

// Events: "prediction" carries a prediction, and "error" carries a ServiceError. "recovered" ends an error.
// "busy" and "idle" say whether requests are sent.
export class PredictionRequests extends EventTarget {
  #png;
  #number;
  #changed = false; // whether the drawing has changed since the last request
  #running = false;
  #drawing = 0; // number of the current drawing; each prediction belongs to one drawing
  #failed = false;
  #locked = false; // true until the visitor enters a key that the service needs
  #wait = FIRST_WAIT;

  // `png` returns the picture to send, or null. `number` returns whether it may show whole numbers.
  constructor(png, number) {
    super();
    this.#png = png;
    this.#number = number;
  }

  // The drawing has grown. Predictions for its earlier states are still shown.
  extend() {
    this.#changed = true;
    this.#run();
  }

  // Another drawing has replaced the old one, whose predictions are dropped.
  replace() {
    this.#drawing++;
    this.extend();
  }

  unlock() {
    this.#locked = false;
    this.replace();
  }

  async #run() {
    if (this.#running || this.#locked) return;
    this.#running = true;
    this.#emit("busy");
    try {
      while (this.#changed && !this.#locked) {
        this.#changed = false;
        await this.#send(this.#drawing);
      }
    } finally {
      this.#running = false;
    }
    this.#emit("idle");
  }

  async #send(drawing) {
    const number = this.#number();
    const png = await this.#png();
    if (!png) {
      this.#succeeded();
      return;
    }
    try {
      const prediction = await predict(png, number);
      this.#succeeded();
      if (drawing === this.#drawing) this.#emit("prediction", prediction);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      if (error.kind === "drawing" && drawing !== this.#drawing) return;
      this.#failed = error.kind !== "drawing";
      this.#emit("error", error);
      // Another key may have been entered meanwhile.
      if (error.kind === "key") this.#locked = drawing === this.#drawing;
      if (error.kind === "overloaded") await pause(1000 * error.seconds);
      if (error.kind === "unavailable") await this.#serviceReady();
      this.#changed ||= error.kind !== "drawing";
    }
  }

  // Waits until the service is ready. It may still fail to predict, so the wait is not reset.
  async #serviceReady() {
    do {
      await pause(this.#wait);
      this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
    } while (!(await ready()));
  }

  #succeeded() {
    this.#wait = FIRST_WAIT;
    if (this.#failed) this.#emit("recovered");
    this.#failed = false;
  }

  #emit(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}

// Waits, but not longer than until the device is online again.
function pause(milliseconds) {
  return new Promise((done) => {
    setTimeout(done, milliseconds);
    addEventListener("online", done, { once: true, signal: AbortSignal.timeout(milliseconds) });
  });
}
