"""Triton through PyTriton, which connects the server with a function in a Python process of its own."""

import os

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

NAMES = ["logits", "probabilities"]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)


@batch
def infer(images):
    return dict(zip(NAMES, session.run(NAMES, {"images": images}), strict=True))


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PORT"]),
        grpc_port=int(os.environ["GRPC_PORT"]),
        metrics_port=int(os.environ["METRICS_PORT"]),
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="mnist",
            infer_func=infer,
            inputs=[Tensor(name="images", dtype=np.uint8, shape=(28, 28))],
            outputs=[Tensor(name=name, dtype=np.float32, shape=(10,)) for name in NAMES],
            config=ModelConfig(max_batch_size=16),
        )
        triton.serve()
