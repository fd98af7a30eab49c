// Shows the model, and links its card and its manifest.

import { card, cardPath, certificate, certificatePath, key } from "./service.js";

// With fewer test images, a percentage with two decimals says more than is known.
const FEW_IMAGES = 1000;

const number = (value) => value.toLocaleString("en");
const labels = (count) => `${count || "no"} ${count === 1 ? "label differs" : "labels differ"}`;

export class CertificateView {
  #root;
  #onLabels;
  #shown = "";

  constructor(root, onLabels) {
    this.#root = root;
    this.#onLabels = onLabels;
  }

  // Shows `model` {name, version}, or the default model.
  async show(model) {
    if (model && this.#shown === `${model.name} ${model.version}`) return;
    const found = await certificate(model);
    this.#shown = `${found.name} ${found.version}`;
    this.#onLabels(found.labels);
    const { test } = found.result;
    const { config = {}, dataset = {} } = found.training;
    const onnx = found.equivalence.onnx;
    this.#set("name", found.name);
    this.#set("version", `version ${found.version}`);
    const few = test?.images < FEW_IMAGES;
    const percent = test && `${(100 * test.accuracy).toFixed(2)} %`;
    this.#set("accuracy", few ? `${test.correct} of ${test.images}` : (percent ?? "not stated"));
    const images = "test images that were not used for training";
    this.#set("test", few ? images : test ? `on ${number(test.images)} ${images}` : "");
    const first = found.first ? `cascade of ${found.first.training.config.model} and ` : "";
    this.#set("network", `${first}${config.model ?? "not stated"}, ${number(found.parameters)} parameters`);
    this.#set("training", dataset.train_images ? `${number(dataset.train_images)} images of ${dataset.name}` : "not stated");
    this.#set("equivalence", `compared with the trained network on ${number(onnx.images)} images: ${labels(onnx.labels_differing)}`);
    this.#set("digest", found.files["model.onnx"].sha256);
    await this.#link(found);
    this.#root.hidden = false;
  }

  #set(field, text) {
    for (const place of document.querySelectorAll(`[data-model=${field}]`)) place.textContent = text;
  }

  // A plain link sends no API key, so the links then lead to copies.
  async #link(found) {
    if (!key.get()) {
      this.#lead("card", cardPath(found));
      this.#lead("certificate", certificatePath(found));
      return;
    }
    this.#lead("certificate", copy(JSON.stringify(found, null, 2), "application/json"));
    this.#lead("card", copy(await card(found), "text/html"));
  }

  #lead(name, href) {
    const link = this.#root.querySelector(`[data-link=${name}]`);
    if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
    link.href = href;
  }
}

const copy = (text, type) => URL.createObjectURL(new Blob([text], { type }));
