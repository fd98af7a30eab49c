"""Whole numbers in the protocol: a request with the parameter ``mode`` set to ``number``.

Its input is the same tensor, but with pages of any size, ``[N, H, W]``. Its outputs have one text for each page.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.errors import InputError, quoted
from serving.inference.numbers import NumberPrediction
from serving.open_inference.messages import OutputParameters, OutputTensor, RequestOutput

TEXT = "text"
OUTPUTS = (TEXT, "prediction")
"""The outputs: the digits of each page, and its prediction as JSON, as in the response of ``/predict?mode=number``."""


def checked_outputs(asked: Sequence[RequestOutput]) -> list[RequestOutput]:
    """Return the outputs that the response must have: those that the request names, or both if it names none.

    Raises:
        InputError: there is no such output, or it has no classes.
    """
    outputs: dict[str, RequestOutput] = {}
    for output in asked or [RequestOutput(name) for name in OUTPUTS]:
        name = output.name
        if name not in OUTPUTS:
            raise InputError(f"output {quoted(name)}: with mode number must be one of {', '.join(OUTPUTS)}")
        if name in outputs:
            raise InputError(f"output {name!r}: is named twice; name each output once")
        if (output.parameters or OutputParameters()).classification:
            raise InputError(f"output {name!r}: is a text and has no classes; omit classification")
        outputs[name] = output
    return list(outputs.values())


def output_tensors(outputs: Sequence[RequestOutput], predictions: list[NumberPrediction]) -> list[OutputTensor]:
    """Return the requested outputs, which are checked already."""
    return [OutputTensor(asked, "BYTES", [len(predictions)], _texts(asked.name, predictions)) for asked in outputs]


def _texts(name: str, predictions: list[NumberPrediction]) -> list[str]:
    if name == TEXT:
        return [prediction.text for prediction in predictions]
    return [msgspec.json.encode(prediction).decode() for prediction in predictions]
