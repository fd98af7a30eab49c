"""Ray Serve with a replica."""

import os

import numpy as np
import onnxruntime
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=100)
class Digits:
    """Predicts the digits of images of 28x28 pixels, from 0 to 255."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    async def __call__(self, request: Request):
        images = np.array((await request.json())["images"], dtype=np.uint8)
        [probabilities] = self.session.run(["probabilities"], {"images": images})
        return {
            "predictions": [
                {"digit": int(row.argmax()), "confidence": float(row.max()), "probabilities": row.tolist()}
                for row in probabilities
            ]
        }


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Digits.bind(), route_prefix="/predict", blocking=True)
