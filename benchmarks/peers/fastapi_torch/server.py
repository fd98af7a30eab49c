"""FastAPI and torch, as in most tutorials, with the TorchScript file of the model."""

import os

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel

torch.set_num_threads(1)
model = torch.jit.load(os.environ["TORCHSCRIPT"]).eval()
app = FastAPI()


class Digits(BaseModel):
    """Images of 28x28 pixels, from 0 to 255."""

    images: list[list[list[int]]]


@app.post("/predict")
async def predict(digits: Digits):
    images = torch.from_numpy(np.array(digits.images, dtype=np.uint8))
    with torch.inference_mode():
        _, probabilities, _ = model(images)
    return {
        "predictions": [
            {"digit": int(row.argmax()), "confidence": float(row.max()), "probabilities": row.tolist()}
            for row in probabilities
        ]
    }
