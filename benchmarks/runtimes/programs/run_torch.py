"""Run a TorchScript file with torch: MODEL IMAGES OUTPUTS."""

import sys

import numpy as np
import torch

images = np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
outputs = torch.jit.load(sys.argv[1])(torch.from_numpy(images))
np.concatenate([output.detach().numpy().ravel() for output in outputs]).astype(np.float32).tofile(sys.argv[3])
print(torch.__version__.split("+")[0])
