"""Run an ONNX file with tract, an engine written in Rust: MODEL IMAGES OUTPUTS."""

import importlib.metadata
import sys

import numpy as np
import tract

images = np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
outputs = [found.to_numpy() for found in tract.onnx().load(sys.argv[1]).into_model().into_runnable().run([images])]
np.concatenate([output.ravel() for output in outputs]).astype(np.float32).tofile(sys.argv[3])
print(importlib.metadata.version("tract"))
