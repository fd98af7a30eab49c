// Run an ONNX file with onnxruntime-web under Node.js: MODEL IMAGES OUTPUTS.
const fs = require("fs");
const { createRequire } = require("module");
// The package is in the folder where this program runs, not beside the program.
const ort = createRequire(process.cwd() + "/")("onnxruntime-web");

async function main([model, images, outputs]) {
  const session = await ort.InferenceSession.create(fs.readFileSync(model));
  const pixels = new Uint8Array(fs.readFileSync(images));
  const found = await session.run({ images: new ort.Tensor("uint8", pixels, [pixels.length / 784, 28, 28]) });
  const parts = ["logits", "probabilities", "novelty"].map((name) => Buffer.from(new Float32Array(found[name].data).buffer));
  fs.writeFileSync(outputs, Buffer.concat(parts));
  console.log(ort.env.versions.web);
  process.exit(0);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
