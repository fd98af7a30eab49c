"""Quantize an ONNX file to int8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from serving.contract import Images
from training.checkpoint import write_atomically

# The ranges of the activations are taken from this many training images.
RANGE_IMAGES = 1024
RANGE_BATCH_SIZE = 64


class ImageReader(CalibrationDataReader):  # type: ignore[misc]
    """Gives training images to the quantizer, in batches."""

    def __init__(self, images: Images) -> None:
        self._batches: Iterator[dict[str, Any]] = (
            {"images": images[start : start + RANGE_BATCH_SIZE]} for start in range(0, len(images), RANGE_BATCH_SIZE)
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by the name of its input, or None after the last one."""
        return next(self._batches, None)


def export_int8(source: Path, path: Path, images: Images) -> None:
    """Quantize the convolutions, poolings and matrix products of the ONNX file ``source``, except the last layers.

    Args:
        source: the ONNX file in float32.
        path: where to write the quantized file.
        images: training images, uint8 ``[N, 28, 28]``; the quantizer takes the ranges of the activations from them.
    """
    with tempfile.TemporaryDirectory() as folder:
        original, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in ("float32", "prepared", "quantized"))
        root = logging.getLogger()
        level = root.level
        # Hide the advice to prepare the model first, because quant_pre_process does that.
        root.setLevel(logging.ERROR)
        try:
            # Neither onnx nor onnxruntime takes a path that is not UTF-8.
            original.write_bytes(source.read_bytes())
            quant_pre_process(str(original), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(prepared)
            quantize_static(
                str(prepared),
                str(quantized),
                ImageReader(images[:RANGE_IMAGES]),
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
        model = onnx.load(quantized)
    # onnxruntime imports all sets of operators that it knows, and an older one rejects a file with a newer set.
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    write_atomically(path, model.SerializeToString())
    # From memory, because onnx takes no path that is not UTF-8.
    onnx.checker.check_model(path.read_bytes(), full_check=True)


def last_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the last matrix product before each output, and of both products of the novelty score.

    These layers take almost no time, and no later layer would reduce their rounding errors.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    products = ("Gemm", "MatMul")
    found: set[str] = set()
    # Walk back from each output to the nearest product, and for the novelty score to the one before it too.
    for output in model.graph.output:
        todo, visited = [(output.name, 2 if output.name == "novelty" else 1)], set()
        while todo:
            name, products_left = todo.pop()
            node = producer.get(name)
            if node is None or products_left == 0 or node.name in visited:
                continue
            visited.add(node.name)
            # The walk ends at the feature extractor.
            if node.op_type in ("Conv", "MaxPool"):
                continue
            if node.op_type in products:
                found.add(node.name)
                products_left -= 1
            todo += [(name, products_left) for name in node.input]
    return sorted(found)
