// Lets the visitor say what a drawing shows. Nothing is sent before the visitor agrees.

import { sendFeedback } from "./service.js";

export class FeedbackForm {
  #find;
  #prediction = null; // what the answer is about
  #shown = 0; // how often show() was called

  constructor(form, png, onError) {
    this.#find = (selector) => form.querySelector(selector);
    const send = async (label) => {
      const prediction = this.#prediction;
      this.show(null);
      const shown = this.#shown;
      const isSame = () => shown === this.#shown;
      try {
        await sendFeedback(await png(), label, prediction);
        if (!isSame()) return;
        this.#find("span").textContent = `Thank you. Stored as ${label}.`;
      } catch (error) {
        if (isSame()) this.show(prediction, label);
        onError(error);
      }
    };
    form.addEventListener("change", () => this.#update());
    form.right.addEventListener("click", () => send(this.#prediction.label));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (form.label.value) send(form.label.value);
    });
  }

  setLabels(labels) {
    this.#find("select").replaceChildren(new Option("It was a …", ""), ...labels.map((label) => new Option(label)));
  }

  // `prediction` is null if there is none, or if a newer one is on its way.
  show(prediction, label = "") {
    this.#shown++;
    this.#prediction = prediction?.lines ? null : prediction;
    this.#find("select").value = label;
    this.#find("span").textContent = "";
    this.#update();
  }

  #update() {
    this.#find("fieldset").disabled = !(this.#prediction && this.#find("input").checked);
    this.#find("button").disabled = !this.#prediction?.accepted;
  }
}
