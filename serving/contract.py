"""The types of the model's input and output, which every layer of the service uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

IMAGE_SIZE = 28
"""Pixels on each side of an image."""

Images = npt.NDArray[np.uint8]
"""``[N, 28, 28]`` with bright ink on a dark background, as in MNIST."""
Floats = npt.NDArray[np.float32]

Preparation = Literal["symbol", "dotted", "as-is"]
"""How a picture becomes an image: find the ink and centre it as in MNIST, without specks or with those that may be dots
of the symbol; or scale the whole picture."""
SYMBOL: Preparation = "symbol"
DOTTED: Preparation = "dotted"
AS_IS: Preparation = "as-is"

Several = Literal["rejected", "allowed"]
"""What happens to a picture in several pieces. Some symbols consist of several."""

RejectionReason = Literal["empty", "several", "no digit", "unsure"]
"""Why a prediction is not accepted: no ink, several digits, something that is not a digit, or low confidence."""
Reasons = Mapping[int, RejectionReason | None]
"""Why images were rejected before inference, by their index in the request. None: not rejected so far."""
OUTCOMES: tuple[str, ...] = ("accepted", *get_args(RejectionReason))
"""What may become of a prediction."""


class ModelOutput(NamedTuple):
    """The outputs of the graph for N images. The field names are the names of the graph's outputs."""

    logits: Floats
    """``[N, C]``."""
    probabilities: Floats
    """``[N, C]``."""
    novelty: Floats
    """``[N]``: how much each image differs from the training images."""

    def slice(self, begin: int, end: int) -> ModelOutput:
        """Return the outputs for the images from ``begin`` to before ``end``."""
        return ModelOutput(*(tensor[begin:end] for tensor in self))

    def take(self, indices: Sequence[int]) -> ModelOutput:
        """Return the outputs for these images."""
        return ModelOutput(*(tensor[indices] for tensor in self))

    @staticmethod
    def joined(parts: Iterable[ModelOutput]) -> ModelOutput:
        """Return the outputs of all parts, one after the other."""
        return ModelOutput(*map(np.concatenate, zip(*parts, strict=True)))
