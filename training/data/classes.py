"""What the names of the classes say: whether they are digits, and which image is a 1."""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from torch import Tensor

# The digit of a class that is no digit.
NO_DIGIT = -1


def are_digits(labels: Sequence[str]) -> bool:
    """Return whether every class is a digit. It need not be all ten."""
    return all(label in set(string.digits) for label in labels)


def digits_of(labels: Sequence[str], classes: Tensor) -> Tensor:
    """Return the digit of each image, int64 ``[N]``; NO_DIGIT for all unless every class is a digit.

    Args:
        labels: the names of the classes.
        classes: the class of each image, int64 ``[N]``.
    """
    values = [int(label) for label in labels] if are_digits(labels) else [NO_DIGIT] * len(labels)
    return torch.tensor(values, device=classes.device)[classes]
