"""A model for Triton's Python backend, which runs all requests of a batch together."""

import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils

NAMES = ["logits", "probabilities"]


class TritonPythonModel:
    """Predicts the digits of images of 28x28 pixels, from 0 to 255."""

    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    def execute(self, requests):
        images = [utils.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        outputs = self.session.run(NAMES, {"images": np.concatenate(images)})
        ends = np.cumsum([len(each) for each in images])[:-1]
        return [
            utils.InferenceResponse([utils.Tensor(name, part) for name, part in zip(NAMES, parts, strict=True)])
            for parts in zip(*(np.split(output, ends) for output in outputs), strict=True)
        ]
