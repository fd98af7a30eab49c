"""Run an ONNX file with OpenVINO: MODEL IMAGES OUTPUTS [f32]."""

import sys

import numpy as np
import openvino

images = np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
# By default OpenVINO computes in bfloat16 or float16 where the CPU can.
hint = {"INFERENCE_PRECISION_HINT": "f32"} if "f32" in sys.argv else {}
found = openvino.compile_model(sys.argv[1], "CPU", hint)([images])
outputs = [found[name] for name in ("logits", "probabilities", "novelty")]
np.concatenate([output.ravel() for output in outputs]).astype(np.float32).tofile(sys.argv[3])
print(openvino.__version__.split("-")[0])
