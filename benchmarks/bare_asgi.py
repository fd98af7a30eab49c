"""A bare ASGI function that makes the same predictions on the same HTTP server, without a framework.

The service cannot be faster than this function. benchmarks/serving.py compares the two.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving.models import repository

model = repository.load(Path(os.environ["MNIST_REPOSITORY"]), "mnist")
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, list[list[list[int]]]]).decode


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    if scope["path"] == "/json":
        images = np.array(decode(body)["images"], np.uint8)
    else:
        images = np.frombuffer(body, np.uint8).reshape(-1, 28, 28)
    probabilities = model.classifier.classify(images).probabilities
    digits = probabilities.argmax(axis=1).tolist()
    content = encode(
        {
            "model": {"name": model.name, "version": model.version},
            "predictions": [
                {"digit": digit, "label": model.labels[digit], "confidence": row[digit], "probabilities": row}
                for digit, row in zip(digits, probabilities.tolist(), strict=True)
            ],
        }
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
