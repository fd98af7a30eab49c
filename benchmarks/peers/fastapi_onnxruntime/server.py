"""FastAPI and onnxruntime, as in most tutorials: `app` with an async handler, and `threaded` with a plain one.

FastAPI runs a plain handler on a thread.
"""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
app = FastAPI()
threaded = FastAPI()


class Digits(BaseModel):
    """Images of 28x28 pixels, from 0 to 255."""

    images: list[list[list[int]]]


@threaded.post("/predict")
def predict(digits: Digits):
    images = np.array(digits.images, dtype=np.uint8)
    [probabilities] = session.run(["probabilities"], {"images": images})
    return {
        "predictions": [
            {"digit": int(row.argmax()), "confidence": float(row.max()), "probabilities": row.tolist()}
            for row in probabilities
        ]
    }


@app.post("/predict")
async def predict_in_event_loop(digits: Digits):
    return predict(digits)
