"""Tensors of the protocol: check the input tensor, and make the output tensors from the model's output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.contract import Floats, ModelOutput
from serving.errors import InputError, InputTooLargeError, quoted
from serving.inference.numbers import MODES, NUMBER_MODE
from serving.models.classifier import INPUTS
from serving.models.model import Model
from serving.open_inference.messages import DATATYPES, OutputParameters, OutputTensor, RequestOutput
from serving.pictures.header import MAX_SIDE

# The only input of every model.
INPUT = INPUTS[0]
DATATYPE = DATATYPES[INPUT.dtype]


def is_number_mode(mode: object) -> bool:
    """Return whether a request with this parameter ``mode`` asks for whole numbers."""
    if mode not in (None, *MODES):
        raise InputError(f"parameter mode {quoted(mode)}: must be {' or '.join(MODES)}")
    return mode == NUMBER_MODE


def check_input(name: str, datatype: str, shape: Sequence[int], max_batch: int, *, any_size: bool) -> None:
    """Check that the input tensor is declared as uint8 ``[N, 28, 28]`` with 1 to ``max_batch`` images.

    Args:
        any_size: allow pages of any height and width, ``[N, H, W]``.
    """
    axes = list(shape)
    if name != INPUT.name:
        raise InputError(f"input {quoted(name)}: the model has exactly one input, {INPUT.name!r}")
    if datatype != DATATYPE:
        raise InputError(f"input {name!r}: datatype {quoted(datatype)}: must be {DATATYPE}")
    if any_size:
        if len(axes) != 3 or min(axes) < 1 or max(axes[1:]) > MAX_SIDE:
            raise InputError(
                f"input {name!r}: shape {quoted(axes)}: must be [N, H, W] with H and W from 1 to {MAX_SIDE}"
            )
    elif tuple(axes[1:]) != INPUT.shape[1:] or axes[0] < 1:
        raise InputError(f"input {name!r}: shape {quoted(axes)}: must be [N, 28, 28] with N at least 1")
    if axes[0] > max_batch:
        raise InputTooLargeError(
            f"input {name!r}: {axes[0]} images: must be at most {max_batch}; divide them among several requests"
        )


def checked_outputs(asked: Sequence[RequestOutput], model: Model) -> list[RequestOutput]:
    """Return the outputs that the response must have: those that the request names, or all outputs if it names none.

    Raises:
        InputError: the model has no such output, or its ``classification`` is not a number of classes.
    """
    known = {tensor.name: tensor for tensor in model.bundle.manifest.outputs}
    outputs = known_outputs(asked, list(known), "must be one of")
    for output in outputs:
        classes = (output.parameters or OutputParameters()).classification or 0
        if classes < 0:
            raise InputError(f"output {output.name!r}: classification {classes}: must be a number of classes")
        if classes and len(known[output.name].shape) == 1:
            raise InputError(f"output {output.name!r}: has one number per image and no classes; omit classification")
    return outputs


def known_outputs(asked: Sequence[RequestOutput], known: Sequence[str], rule: str) -> list[RequestOutput]:
    """Return the outputs that a request names, or all ``known`` ones if it names none.

    Raises:
        InputError: it names an output that is not known, or names one twice. ``rule`` is for the message.
    """
    outputs: dict[str, RequestOutput] = {}
    for output in asked or [RequestOutput(name) for name in known]:
        if output.name not in known:
            raise InputError(f"output {quoted(output.name)}: {rule} {', '.join(known)}")
        if output.name in outputs:
            raise InputError(f"output {output.name!r}: is named twice; name each output once")
        outputs[output.name] = output
    return list(outputs.values())


def output_tensors(model: Model, outputs: Sequence[RequestOutput], output: ModelOutput) -> list[OutputTensor]:
    """Return the requested outputs, which are checked already."""
    values: dict[str, Floats] = output._asdict()
    return [_output_tensor(asked, values[asked.name], model.labels) for asked in outputs]


def _output_tensor(asked: RequestOutput, values: Floats, labels: tuple[str, ...]) -> OutputTensor:
    classes = asked.parameters and asked.parameters.classification
    if not classes:
        return OutputTensor(asked, "FP32", list(values.shape), values)
    texts = classification(values, min(classes, len(labels)), labels)
    return OutputTensor(asked, "BYTES", [len(values), len(texts) // len(values)], texts)


def classification(tensor: Floats, classes: int, labels: tuple[str, ...]) -> list[str]:
    """Return ``value:index:label`` of the highest ``classes`` values of each row, highest first, row after row."""
    order = np.argsort(-tensor, axis=1, kind="stable")[:, :classes]
    return [
        f"{values[index]!s}:{index}:{labels[index]}" for values, row in zip(tensor, order, strict=True) for index in row
    ]
