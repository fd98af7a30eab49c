// When the service is asked: one request at a time, the newest drawing next, answers to what is gone dropped.

import { predict, ready, Trouble } from "./service.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8_000;

// Dispatches "answer" and "trouble" with what came, "well" when trouble is over, and "busy" and "rest".
export class Asking extends EventTarget {
  #png;
  #wanted = false;
  #running = false;
  #drawing = 0; // counts the drawings; an answer belongs to one
  #troubled = false;
  #locked = false; // until there is a key
  #wait = FIRST_WAIT;

  // `png` gives what is to be sent now, or null if there is nothing.
  constructor(png) {
    super();
    this.#png = png;
  }

  // The drawing has grown: the answer under way is still about it.
  more() {
    this.#wanted = true;
    this.#run();
  }

  // It is another drawing.
  other() {
    this.#drawing++;
    this.more();
  }

  unlock() {
    this.#locked = false;
    this.more();
  }

  async #run() {
    if (this.#running || this.#locked) return;
    this.#running = true;
    this.#tell("busy");
    try {
      while (this.#wanted && !this.#locked) {
        this.#wanted = false;
        await this.#once(this.#drawing);
      }
    } finally {
      this.#running = false;
    }
    this.#tell("rest");
  }

  async #once(drawing) {
    const png = await this.#png();
    if (!png) {
      this.#well();
      return;
    }
    try {
      const answer = await predict(png);
      this.#well();
      if (drawing === this.#drawing) this.#tell("answer", answer);
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      const gone = drawing !== this.#drawing;
      if (trouble.kind === "refused" && gone) return;
      this.#troubled = true;
      this.#tell("trouble", trouble);
      if (trouble.kind === "key") this.#locked = true;
      if (trouble.kind === "busy") await pause(1000 * trouble.seconds);
      if (trouble.kind === "away") await this.#recovery();
      this.#wanted ||= trouble.kind !== "refused";
    }
  }

  // Waits longer each time until a drawing is answered: ready is not yet answering.
  async #recovery() {
    do {
      await pause(this.#wait);
      this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT);
    } while (!(await ready()));
  }

  #well() {
    this.#wait = FIRST_WAIT;
    if (this.#troubled) this.#tell("well");
    this.#troubled = false;
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}

// So long, or until the machine is back on a network.
function pause(milliseconds) {
  return new Promise((done) => {
    const timer = setTimeout(finish, milliseconds);
    addEventListener("online", finish);
    function finish() {
      clearTimeout(timer);
      removeEventListener("online", finish);
      done();
    }
  });
}
