"""Run an ONNX file with onnxruntime: MODEL IMAGES OUTPUTS."""

import sys

import numpy as np
import onnxruntime

images = np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
outputs = session.run(["logits", "probabilities", "novelty"], {"images": images})
np.concatenate([output.ravel() for output in outputs]).astype(np.float32).tofile(sys.argv[3])
print(onnxruntime.__version__)
