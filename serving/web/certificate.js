// Which model answers, and what is certified of it.

import { certificate, certificatePath, key } from "./service.js";

const number = (value) => value.toLocaleString("en");

export class CertificateView {
  #root;
  #onLabels;
  #shown = "";

  constructor(root, onLabels) {
    this.#root = root;
    this.#onLabels = onLabels;
  }

  // Of `model` {name, version}, or the default one. Asks only for one that is not shown already.
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
    this.#set("accuracy", test ? `${(100 * test.accuracy).toFixed(2)} %` : "not stated");
    this.#set("test", test ? `of ${number(test.images)} test images it had never seen` : "");
    this.#set("network", `${config.model ?? "a network"}, ${number(found.parameters)} parameters`);
    this.#set("training", dataset.train_images ? `${number(dataset.train_images)} images of ${dataset.name}, ${config.epochs} epochs` : "not stated");
    this.#set("equivalence", `${number(onnx.images)} images, ${onnx.labels_differing || "no"} label differs`);
    this.#set("digest", found.files["model.onnx"].sha256);
    this.#link(found);
    this.#root.hidden = false;
  }

  #set(field, text) {
    for (const place of document.querySelectorAll(`[data-model=${field}]`)) place.textContent = text;
  }

  // Where a key is needed, a plain link would be refused: what was fetched with the key is linked instead.
  #link(found) {
    const link = this.#root.querySelector("a");
    if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
    link.href = key.get()
      ? URL.createObjectURL(new Blob([JSON.stringify(found, null, 2)], { type: "application/json" }))
      : certificatePath(found);
  }
}
