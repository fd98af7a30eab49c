"""Read the numbers in a picture: from the model's output for all candidates to lines of digits with their boxes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from serving.contract import IMAGE_SIZE, Images, ModelOutput, RejectionReason
from serving.errors import InputError, quoted
from serving.inference.path import Step, best_path
from serving.models.model import Model
from serving.pictures.number_form import Box, LineParts, NumberPage, around

DIGIT_MODE, NUMBER_MODE = "digit", "number"
MODES = (DIGIT_MODE, NUMBER_MODE)
"""What a request may ask for: the digit in each picture, or all numbers."""

# A gap between two digits is reported if it is at least this many heights of the line wide.
WIDE_GAP = 0.75
# A line of a lower confidence is rejected.
LEAST_CONFIDENCE = 0.5
# Bytes that a part of a line or a candidate takes in memory, without its image.
ITEM_BYTES = 250


def _side(items: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a list with as many items as an image has pixels on a side."""
    return {"type": "array", "items": items, "minItems": IMAGE_SIZE, "maxItems": IMAGE_SIZE}


# Litestar describes neither how long a list or a tuple is, nor the bounds of its numbers. It adds what is in "extra".
MODEL_INPUT = Meta(
    description="With include=image: the input of the model, 28 rows of 28 pixels in 0..255, bright ink on black.",
    extra_json_schema={"extra": {"one_of": [_side(_side({"type": "integer", "minimum": 0, "maximum": 255}))]}},
)
BOX = Meta(
    description="Left, top, right and bottom, in pixels of the upright picture; right and bottom are exclusive.",
    extra_json_schema={"extra": {"min_items": 4, "max_items": 4}},
)


def check_reads_numbers(model: Model) -> None:
    """Check that ``model`` can read whole numbers.

    Raises:
        InputError: it does not know the ten digits.
    """
    if not model.reads_numbers:
        raise InputError(f"mode number: the classes of {quoted(model.name)} are not the ten digits; leave mode out")


class NumberDigit(msgspec.Struct):
    """A digit of a line."""

    digit: int
    label: Annotated[str, Meta(description="Name of the most probable class.")]
    confidence: Annotated[float, Meta(description="Probability of the label, from 0 to 1.")]
    probabilities: Annotated[list[float], Meta(description="Probability of every class, in the order of the classes.")]
    accepted: Annotated[bool, Meta(description="Whether to rely on the digit. If not, reason says why.")]
    reason: Annotated[RejectionReason | None, Meta(description="Why it is not accepted; null if it is.")]
    box: Annotated[Box, BOX]
    image: Annotated[list[list[int]] | UnsetType, MODEL_INPUT] = UNSET


class Separator(msgspec.Struct):
    """What stands between digits: a wide gap, or a mark such as a dot, a minus, a slash or a bracket."""

    kind: Annotated[
        Literal["gap", "mark"],
        Meta(description="gap: a space. mark: a dot, a comma, a sign such as - or /, or dirt."),
    ]
    after: Annotated[int, Meta(description="Number of digits of the line before it.")]
    box: Annotated[Box, BOX]


class NumberLine(msgspec.Struct):
    """A line of digits, from left to right."""

    text: Annotated[str, Meta(description="The labels of the digits. Separators are not part of it.")]
    confidence: Annotated[float, Meta(description="Probability that its division and all its digits are correct.")]
    accepted: Annotated[
        bool, Meta(description=f"Whether all digits are accepted, and the confidence is at least {LEAST_CONFIDENCE}.")
    ]
    reason: Annotated[RejectionReason | None, Meta(description="Why the line is not accepted; null if it is.")]
    box: Annotated[Box, BOX]
    digits: list[NumberDigit]
    separators: Annotated[
        list[Separator], Meta(description="What stands between the digits: wide gaps and marks, which text leaves out.")
    ]


class NumberPrediction(msgspec.Struct):
    """The numbers in one picture."""

    text: Annotated[
        str, Meta(description="The texts of the lines, from top to bottom, with a line break between two lines.")
    ]
    accepted: Annotated[bool, Meta(description="Whether the picture has a line, and all its lines are accepted.")]
    reason: Annotated[
        RejectionReason | None,
        Meta(
            description=(
                "Why the picture is not accepted; null if it is. It is empty without ink, no digit without a "
                "line, or the reason of the first rejected line."
            )
        ),
    ]
    width: Annotated[int, Meta(description="Width of the picture in pixels, turned upright. The boxes refer to it.")]
    height: Annotated[int, Meta(description="Height of the picture in pixels, turned upright.")]
    lines: list[NumberLine]


class NumberReading:
    """The numbers in some pictures, as a model reads them.

    Args:
        pages: the pictures.
        with_images: add to each digit the image that the model received.
    """

    def __init__(self, model: Model, pages: Sequence[NumberPage], *, with_images: bool = False) -> None:
        self.model, self._pages, self._with_images = model, pages, with_images
        self.images: Images = np.concatenate([page.images for page in pages])
        """Uint8 ``[N, 28, 28]``: the images of all candidates."""

    @property
    def page_bytes(self) -> int:
        """About the bytes that the pages hold beside ``images``."""
        lines = [line for page in self._pages for line in page.lines]
        items = sum(len(line.parts) + len(line.candidates) for line in lines)
        return sum(len(page.pixels) for page in self._pages) + ITEM_BYTES * items

    def by(self, model: Model) -> NumberReading:
        """Return the same pictures for another version of the model. It adds no images."""
        other = copy.copy(self)  # Both share the images of the candidates.
        other.model, other._with_images = model, False
        return other

    def predictions(self, output: ModelOutput | None) -> list[NumberPrediction]:
        """Return the numbers in each picture.

        Args:
            output: the model output for ``images``; None if there are none.
        """
        return self.read(output)[0]

    def read(self, output: ModelOutput | None) -> tuple[list[NumberPrediction], list[int]]:
        """Return what :meth:`predictions` does, and the images that are digits, by their index."""
        predictions, digits, begin = [], list[int](), 0
        for page in self._pages:
            lines: list[NumberLine] = []
            for parts in page.lines:
                if output is not None and parts.candidates and (found := self._line(parts, output, begin)):
                    line, chosen = found
                    lines.append(line)
                    digits += chosen
                begin += len(parts.candidates)
            predictions.append(_prediction(page, lines))
        return predictions, digits

    def _line(self, parts: LineParts, output: ModelOutput, begin: int) -> tuple[NumberLine, list[int]] | None:
        """Return the line and the images that are its digits, by their index, or None if it has no digit.

        Args:
            begin: the index of its first candidate among all images.
        """
        own = output.slice(begin, begin + len(parts.candidates))
        path = best_path(parts, own)
        chosen = [step for step in path.steps if isinstance(step, int)]
        if not chosen:
            return None
        indices = [begin + index for index in chosen]
        images = self.images[indices]
        of_digits = own.take(chosen)
        reasons = self.model.judge(images, of_digits, {})
        boxes = [parts.candidates[index].box for index in chosen]
        digits = [
            self._digit(row, reason, box)
            for row, reason, box in zip(of_digits.probabilities.tolist(), reasons, boxes, strict=True)
        ]
        if self._with_images:
            for digit, image in zip(digits, images.tolist(), strict=True):
                digit.image = image
        confidence = path.probability * math.prod(digit.confidence for digit in digits)
        reason = next((reason for reason in reasons if reason), "unsure" if confidence < LEAST_CONFIDENCE else None)
        text = "".join(digit.label for digit in digits)
        separators = _separators(parts, path.steps)
        return NumberLine(text, confidence, reason is None, reason, around(boxes), digits, separators), indices

    def _digit(self, row: list[float], reason: RejectionReason | None, box: Box) -> NumberDigit:
        best = row.index(max(row))
        return NumberDigit(best, self.model.labels[best], row[best], row, reason is None, reason, box)


def _separators(parts: LineParts, steps: Sequence[Step]) -> list[Separator]:
    """Return the marks of a line, and the wide gaps between its digits."""
    separators: list[Separator] = []
    count = 0
    before = None
    for step in steps:
        if not isinstance(step, int):
            separators.append(Separator("mark", count, step.box))
            continue
        digit = parts.candidates[step]
        if before and max(parts.gaps[before.end - 1 : digit.first]) >= WIDE_GAP:
            # From the right side of the one to the left side of the other, as high as both together.
            (_, top, right, bottom), (left, next_top, _, next_bottom) = before.box, digit.box
            box = around([(right, top, right, bottom), (left, next_top, left, next_bottom)])
            separators.append(Separator("gap", count, box))
        before, count = digit, count + 1
    return separators


def _prediction(page: NumberPage, lines: list[NumberLine]) -> NumberPrediction:
    reason: RejectionReason | None = "empty" if page.is_empty else "no digit"
    if lines:
        reason = next((line.reason for line in lines if line.reason), None)
    text = "\n".join(line.text for line in lines)
    return NumberPrediction(text, reason is None, reason, page.width, page.height, lines)
