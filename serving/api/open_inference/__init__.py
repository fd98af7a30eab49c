"""The Open Inference Protocol v2 over REST, with its extensions, under ``/v2``.

Sources: kserve/open-inference-protocol (inference_rest.md), and the extensions that Triton documents: binary tensors,
raw requests, classification, the model repository, model configuration and statistics.
"""

from __future__ import annotations

from typing import Any

from serving.api.open_inference import infer, routes

HANDLERS: list[Any] = [*routes.HANDLERS, infer.infer_model]
