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

from serving import files
from serving.contract import IMAGE_SIZE, Images, ModelOutput
from serving.errors import BundleError, first_line
from serving.models import golden
from serving.models.bundle import MAX_BUNDLE_BYTES, Tensor
from serving.models.time_limit import time_limit

# A larger batch runs in pieces of this many images. Beyond this size the time per image no longer falls, and
# onnxruntime keeps memory for the largest batch that it ever ran.
IMAGES_PER_RUN = 16

# The time per image is the shortest of this many runs.
SPEED_RUNS = 3

# onnxruntime's levels for errors and for fatal errors. On lower levels it prints warnings about the machine to standard
# error.
ORT_LOG_ERRORS, ORT_LOG_FATAL = 3, 4

# Seconds of CPU time in which a model must reproduce its golden logits, and then show its speed. The packaged model
# takes 5 ms.
VERIFY_SECONDS = 10.0

# A softmax in float32 may round to a little more than 1.
LARGEST_PROBABILITY = 1.001

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

    Args:
        path: the file.
        content: its content, if it was read already.

    Raises:
        BundleError: onnxruntime cannot load the file.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        options = ort.SessionOptions()
        # The service scales by processes. By default onnxruntime starts a thread for each core of the host, even if
        # this process may use only some of the cores, and its threads spin while they wait.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = ORT_LOG_ERRORS
        # onnxruntime would plan a memory pattern for every batch size, and keep all of them.
        options.enable_mem_pattern = False
        # The manifest certifies a single file. By default onnxruntime would read the weights that a graph keeps in
        # other files, from the working directory.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        self._path = path
        content = files.read(path, MAX_BUNDLE_BYTES) if content is None else content
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class for each status, without a common base
            raise BundleError(f"{path} cannot be loaded: {first_line(error)}") from error

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

    def classify(self, images: Images, options: ort.RunOptions | None = None) -> ModelOutput:
        """Return the model output for uint8 ``images [N, 28, 28]``."""
        if len(images) <= IMAGES_PER_RUN:
            return ModelOutput(*self._session.run(None, {"images": images}, options))
        starts = range(0, len(images), IMAGES_PER_RUN)
        return ModelOutput.joined(self.classify(images[start : start + IMAGES_PER_RUN], options) for start in starts)

    def verify(self, path: Path, content: bytes, tolerance: float) -> float:
        """Compare this session, on this CPU, with the golden logits in ``content``, that of a ``golden.npz``.

        Return the largest difference of a logit. A label differs only where the golden logits of two labels are so
        near that the tolerance allows it. This almost never happens with a float32 file. It may happen with an int8
        file.

        Args:
            path: the file, for messages.

        Raises:
            BundleError: the difference is larger than ``tolerance``, or an output has another shape or impossible
                values.
            TimeoutError: the session takes longer than ``VERIFY_SECONDS``.
        """
        classes = self.outputs[0].shape[-1]
        images, expected = golden.read(path, content, classes)
        options = _quiet_options()
        with time_limit(options, VERIFY_SECONDS):
            output = self.classify(images, options)
            # A graph may declare any batch size and work for some sizes only. Most requests have a single image.
            alone = self.classify(images[:1], options)
        self._check_output(output, len(images), classes)
        self._check_output(alone, 1, classes)
        difference = float(np.abs(output.logits - expected).max())
        # A comparison with NaN is false, so "not <=" fails for NaN too.
        if not difference <= tolerance:
            raise BundleError(
                f"{path.parent} does not reproduce its golden logits on this CPU: they differ by {difference:.3g}, and "
                f"the tolerance is {tolerance:.3g}; export the run again here, or retire the version with mnist-export "
                "--retire"
            )
        return difference

    def seconds_per_image(self) -> float:
        """Return the time per image in a batch of ``IMAGES_PER_RUN`` images, measured on this CPU.

        Raises:
            TimeoutError: the session takes longer than ``VERIFY_SECONDS``.
        """
        images = np.zeros((IMAGES_PER_RUN, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        options = _quiet_options()
        with time_limit(options, VERIFY_SECONDS):
            return min(timeit.repeat(lambda: self.classify(images, options), number=1, repeat=SPEED_RUNS)) / len(images)

    def _check_output(self, output: ModelOutput, count: int, classes: int) -> None:
        """Check the shapes and the values of the output for ``count`` images. A graph only declares its shapes."""
        shapes = (count, classes), (count, classes), (count,)
        for name, tensor, shape in zip(output._fields, output, shapes, strict=True):
            if tensor.shape != shape:
                raise BundleError(
                    f"{self._path} gives {name} of the shape {tensor.shape} for {count} images: must be {shape}"
                )
        if not ((output.probabilities >= 0) & (output.probabilities <= LARGEST_PROBABILITY)).all():
            raise BundleError(f"{self._path} gives probabilities that are not between 0 and 1")
        if not np.isfinite(output.novelty).all():
            raise BundleError(f"{self._path} gives novelty scores that are not finite")


def _quiet_options() -> ort.RunOptions:
    """Return options for a run whose errors onnxruntime does not print. The service logs them as a rejection."""
    options = ort.RunOptions()
    options.log_severity_level = ORT_LOG_FATAL
    return options


def _tensor(node: Any) -> Tensor:
    dtype = {"tensor(float)": "float32"}.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
    return Tensor(node.name, dtype, tuple(axis if isinstance(axis, int) else -1 for axis in node.shape))
