"""BentoML with a worker."""

import os
from typing import Annotated, Any

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import DType, Shape


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Digits:
    """Predicts the digits of images of 28x28 pixels, from 0 to 255."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api
    async def predict(self, images: Annotated[np.ndarray, Shape((-1, 28, 28)), DType("uint8")]) -> dict[str, Any]:
        [probabilities] = self.session.run(["probabilities"], {"images": images})
        return {
            "predictions": [
                {"digit": int(row.argmax()), "confidence": float(row.max()), "probabilities": row.tolist()}
                for row in probabilities
            ]
        }
