"""Whole numbers in the protocol: a request with the parameter ``mode`` set to ``number``.

Its input is the same tensor, but with pages of any size, ``[N, H, W]``. Its outputs have one text for each page.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.errors import InputError
from serving.inference.numbers import NumberPrediction
from serving.open_inference.messages import OutputParameters, OutputTensor, RequestOutput
from serving.open_inference.tensors import known_outputs

TEXT = "text"
OUTPUTS = (TEXT, "prediction")
"""The outputs: the digits of each page, and its prediction as JSON, as in the response of ``/predict?mode=number``."""


def checked_outputs(asked: Sequence[RequestOutput]) -> list[RequestOutput]:
    """Return the outputs that the response must have: those that the request names, or both if it names none.

    Raises:
        InputError: there is no such output, or it has no classes.
    """
    outputs = known_outputs(asked, OUTPUTS, "with mode number must be one of")
    for output in outputs:
        if (output.parameters or OutputParameters()).classification:
            raise InputError(f"output {output.name!r}: is a text and has no classes; omit classification")
    return outputs


def output_tensors(outputs: Sequence[RequestOutput], predictions: list[NumberPrediction]) -> list[OutputTensor]:
    """Return the requested outputs, which are checked already."""
    return [OutputTensor(asked, "BYTES", [len(predictions)], _texts(asked.name, predictions)) for asked in outputs]


def _texts(name: str, predictions: list[NumberPrediction]) -> list[str]:
    if name == TEXT:
        return [prediction.text for prediction in predictions]
    return [msgspec.json.encode(prediction).decode() for prediction in predictions]
