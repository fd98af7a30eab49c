"""The onnxruntime session: it turns uint8 images into logits, probabilities and novelty scores."""

from __future__ import annotations

import os
import timeit
from pathlib import Path
from typing import Any

import numpy as np

# onnxruntime's wheels report usage over the network, unless this variable is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from serving.contract import IMAGE_SIZE, Images, ModelOutput
from serving.errors import BundleError
from serving.models.bundle import Tensor

# A larger batch runs in pieces of this many images. Beyond this size the time per image no longer falls, and
# onnxruntime keeps memory for the largest batch that it ever ran.
IMAGES_PER_RUN = 16

# The time per image is the shortest of this many runs.
SPEED_RUNS = 3

# onnxruntime's level for errors. On lower levels it prints warnings about the machine to standard error.
ORT_LOG_ERRORS = 3

INPUTS = (Tensor("images", "uint8", (-1, IMAGE_SIZE, IMAGE_SIZE)),)


def outputs(classes: int) -> tuple[Tensor, ...]:
    """Return the outputs of a graph with this many classes."""
    return (
        Tensor("logits", "float32", (-1, classes)),
        Tensor("probabilities", "float32", (-1, classes)),
        Tensor("novelty", "float32", (-1,)),
    )


class Classifier:
    """A session of an ONNX file with the input ``images`` and the outputs of :class:`ModelOutput`.

    Threads may share it.

    Raises:
        BundleError: onnxruntime cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        # The service scales by processes. By default onnxruntime starts a thread for each core of the host, even if
        # this process may use only some of the cores, and its threads spin while they wait.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ORT_LOG_ERRORS
        # onnxruntime would plan a memory pattern for every batch size, and keep all of them.
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class for each status, without a common base
            raise BundleError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(map(_tensor, self._session.get_inputs()))

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(map(_tensor, self._session.get_outputs()))

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that the export wrote into the file."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def classify(self, images: Images) -> ModelOutput:
        """Return the model output for uint8 ``images [N, 28, 28]``."""
        if len(images) <= IMAGES_PER_RUN:
            return ModelOutput(*self._session.run(None, {"images": images}))
        starts = range(0, len(images), IMAGES_PER_RUN)
        pieces = [self._session.run(None, {"images": images[start : start + IMAGES_PER_RUN]}) for start in starts]
        return ModelOutput(*map(np.concatenate, zip(*pieces, strict=True)))

    def verify(self, golden: Path, tolerance: float) -> float:
        """Compare this session, on this CPU, with the certified logits in the file ``golden``.

        Return the largest difference of a logit.

        Raises:
            BundleError: the difference is larger than ``tolerance``, or a label differs.
        """
        with np.load(golden, allow_pickle=False) as file:
            images, expected = file["images"], file["logits"]
        logits = self.classify(images).logits
        difference = float(np.abs(logits - expected).max())
        # A comparison with NaN is false, so "not <=" fails for NaN too.
        if not difference <= tolerance or (logits.argmax(1) != expected.argmax(1)).any():
            raise BundleError(
                f"{golden.parent} does not reproduce its certified logits on this CPU: "
                f"they differ by {difference:.3g}, the tolerance is {tolerance:.3g}"
            )
        return difference

    def seconds_per_image(self) -> float:
        """Return the time per image in a batch of ``IMAGES_PER_RUN`` images, measured on this CPU."""
        images = np.zeros((IMAGES_PER_RUN, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        return min(timeit.repeat(lambda: self.classify(images), number=1, repeat=SPEED_RUNS)) / IMAGES_PER_RUN


def _tensor(node: Any) -> Tensor:
    dtype = {"tensor(float)": "float32"}.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
    return Tensor(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))
