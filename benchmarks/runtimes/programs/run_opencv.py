"""Run an ONNX file with the dnn module of OpenCV: MODEL IMAGES OUTPUTS [alone].

With `alone`, each image is a batch of its own.
"""

import sys

import cv2
import numpy as np

images = np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
network = cv2.dnn.readNetFromONNX(sys.argv[1])
found = []
for batch in np.array_split(images, len(images) if "alone" in sys.argv else 1):
    network.setInput(batch, "images")
    found.append([np.array(output) for output in network.forward(["logits", "probabilities", "novelty"])])
outputs = [np.concatenate([output.reshape(-1) for output in each]) for each in zip(*found, strict=True)]
np.concatenate([output.ravel() for output in outputs]).astype(np.float32).tofile(sys.argv[3])
print(cv2.__version__)
