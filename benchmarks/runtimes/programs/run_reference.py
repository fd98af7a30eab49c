"""Run an ONNX file with the reference evaluator of onnx: MODEL IMAGES OUTPUTS."""

import sys

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

images = np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
outputs = ReferenceEvaluator(onnx.load(sys.argv[1])).run(["logits", "probabilities", "novelty"], {"images": images})
np.concatenate([output.ravel() for output in outputs]).astype(np.float32).tofile(sys.argv[3])
print(onnx.__version__)
