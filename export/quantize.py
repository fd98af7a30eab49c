"""The ONNX file to a statically quantized one: weights and activations of the costly layers as int8."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from serving.contract import Images
from serving.models.classifier import Classifier

CALIBRATION_IMAGES = 1024
BATCH = 64
# Rounds of single images that a file's latency is the median of; the least of several, for others use the machine.
ROUNDS, IMAGES = 7, 200


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Training digits in batches."""

    def __init__(self, images: Images) -> None:
        self._batches: Iterator[dict[str, Any]] = iter(
            [{"images": images[start : start + BATCH]} for start in range(0, len(images), BATCH)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by input name, None after the last."""
        return next(self._batches, None)


def export_int8(source: Path, path: Path, images: Images) -> None:
    """Quantize the ONNX file ``source`` to ``path``: convolutions, poolings and all but the last small layers.

    Args:
        images: training images that the ranges of the activations are taken from, uint8 ``[N, 28, 28]``.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # advice on preparing a model, which has just been followed
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(prepared)
            quantize_static(
                str(prepared),
                str(path),
                Reader(images[:CALIBRATION_IMAGES]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                op_types_to_quantize=["Conv", "MaxPool", "Gemm", "MatMul"],
                nodes_to_exclude=last_layers(model),
            )
        finally:
            root.setLevel(level)
    onnx.checker.check_model(path, full_check=True)


def last_layers(model: onnx.ModelProto) -> list[str]:
    """The matrix products nearest to an output, and those of the novelty score.

    They cost next to nothing, and their errors would be seen undamped.
    """
    maker = {name: node for node in model.graph.node for name in node.output}
    products = ("Gemm", "MatMul")
    found: set[str] = set()
    # Back from each output to the first product; of the score also past it, up to the features.
    for output in model.graph.output:
        todo, seen = [(output.name, 2 if output.name == "novelty" else 1)], set()
        while todo:
            name, depth = todo.pop()
            node = maker.get(name)
            if node is None or depth == 0 or node.name in seen:
                continue
            seen.add(node.name)
            if node.op_type in ("Conv", "MaxPool"):
                continue
            if node.op_type in products:
                found.add(node.name)
                depth -= 1
            todo += [(name, depth) for name in node.input]
    return sorted(found)


def microseconds(path: Path, images: Images) -> float:
    """What one image takes, median of single calls as the service makes them, at the best of several rounds."""
    classifier = Classifier(path)
    singles = [np.ascontiguousarray(image[None]) for image in images[:IMAGES]]
    medians = []
    for _ in range(ROUNDS):
        times = []
        for single in singles:
            started = time.perf_counter()
            classifier.classify(single)
            times.append(time.perf_counter() - started)
        medians.append(float(np.median(times)) * 1e6)
    return min(medians)
