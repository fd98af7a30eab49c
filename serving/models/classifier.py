"""The onnxruntime session: uint8 images to logits and probabilities."""

from __future__ import annotations

import math
import os
import timeit
from pathlib import Path
from typing import Any

import numpy as np

# onnxruntime's wheels report usage unless told not to before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from serving.contract import IMAGE_SIZE, Images, ModelOutput
from serving.errors import BundleError
from serving.models.bundle import Tensor

# Larger batches run in parts: the time per image is the same from here on, and onnxruntime keeps
# memory for the largest batch it has seen.
RUN_BATCH = 16

INPUTS = (Tensor("images", "uint8", (-1, IMAGE_SIZE, IMAGE_SIZE)),)


def outputs(classes: int, *, novelty: bool) -> tuple[Tensor, ...]:
    """What a graph with so many classes gives; older ones have no ``novelty``."""
    both = (Tensor("logits", "float32", (-1, classes)), Tensor("probabilities", "float32", (-1, classes)))
    return (*both, Tensor("novelty", "float32", (-1,))) if novelty else both


class Classifier:
    """A graph with input ``images`` and the outputs of :class:`ModelOutput`; safe to share by threads.

    Raises:
        BundleError: onnxruntime cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        # One thread a session: scale by processes. onnxruntime would otherwise size its pool by the
        # host, and spin, whatever share of the host this process was given.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Memory patterns are planned anew for every batch size and kept.
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class for each status, with no common base
            raise BundleError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error

    seconds_per_image = math.inf
    """Of a batch on this CPU, as :meth:`verify` found it."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The graph's inputs as onnxruntime sees them."""
        return tuple(map(_tensor, self._session.get_inputs()))

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The graph's outputs as onnxruntime sees them."""
        return tuple(map(_tensor, self._session.get_outputs()))

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def classify(self, images: Images) -> ModelOutput:
        """ModelOutput for uint8 ``images [N, 28, 28]``."""
        if len(images) <= RUN_BATCH:
            return ModelOutput(*self._session.run(None, {"images": images}))
        starts = range(0, len(images), RUN_BATCH)
        parts = [self._session.run(None, {"images": images[start : start + RUN_BATCH]}) for start in starts]
        return ModelOutput(*map(np.concatenate, zip(*parts, strict=True)))

    def verify(self, golden: Path, tolerance: float) -> float:
        """Largest difference to the certified logits in ``golden``, computed here and now.

        Raises:
            BundleError: it exceeds ``tolerance``, or a label differs.
        """
        with np.load(golden, allow_pickle=False) as file:
            images, expected = file["images"], file["logits"]
        logits = self.classify(images).logits
        difference = float(np.abs(logits - expected).max())
        part = images[:RUN_BATCH]
        self.seconds_per_image = min(timeit.repeat(lambda: self.classify(part), number=1, repeat=3)) / len(part)
        # "not <=", so that NaN fails too.
        if not difference <= tolerance or (logits.argmax(1) != expected.argmax(1)).any():
            raise BundleError(
                f"{golden.parent} does not compute here what it was certified to: "
                f"logits differ by {difference:.3g}, tolerance {tolerance:.3g}"
            )
        return difference


def _tensor(node: Any) -> Tensor:
    dtype = {"tensor(float)": "float32"}.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
    return Tensor(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))
