"""Predictions in Python, and how they look in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from serving.batch.rows import percent
from serving.contract import Floats, Images, RejectionReason
from serving.errors import printable
from serving.inference.numbers import NumberLine, NumberPrediction
from serving.python import html

# Rows that a table shows, and classes that a prediction shows.
MOST_ROWS, BEST = 30, 5
PICTURE_SIDE, THUMBNAIL_SIDE = 112, 42


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Prediction:
    """The prediction for one picture. Its fields have the names and the meaning that they have in ``POST /predict``."""

    name: str
    """The path of the picture, or its place among the given ones, for example ``image 3``."""
    label: str
    """Name of the most probable class."""
    digit: int | None
    """The digit, if the classes of the model are digits."""
    confidence: float
    """Probability of that class."""
    reason: RejectionReason | None
    """Why the prediction is not accepted, or None if it is."""
    probabilities: dict[str, float]
    """Probability of every class by its name."""
    image: Images = field(metadata={"shape": (28, 28)})
    """The input of the model: uint8 ``[28, 28]``, bright ink on black."""

    @property
    def accepted(self) -> bool:
        """Whether to rely on the prediction."""
        return self.reason is None

    def best(self, count: int = BEST) -> list[tuple[str, float]]:
        """Return the most probable classes with their probabilities, the best first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]

    def __repr__(self) -> str:
        return f"<Prediction {self.label!r} with {percent(self.confidence)} confidence, {_verdict(self.reason)}>"

    def _repr_html_(self) -> str:
        bars = [
            (html.text(label), html.bar(share), percent(share) if share >= 5e-5 else "0%")
            for label, share in self.best()
        ]
        head = f"<b>{html.text(self.label)}</b> {percent(self.confidence)}"
        if self.reason:
            head += f", rejected: {html.text(self.reason)}"
        title = f"{head}<br>{html.text(printable(self.name))}"
        return html.table((), [(html.picture(self.image, PICTURE_SIDE), f"{title}{html.table((), bars)}")])


@dataclass(frozen=True, repr=False, kw_only=True)
class Numbers:
    """The numbers in one picture. The fields have the meaning that they have in ``POST /predict?mode=number``."""

    name: str
    """The path of the picture, or its place among the given ones, for example ``image 3``."""
    text: str
    """The texts of the lines, from top to bottom, with a line break between two lines."""
    reason: RejectionReason | None
    """Why the picture is not accepted, or None if it is."""
    width: int
    """Width and height of the picture in pixels, turned upright. The boxes refer to them."""
    height: int
    lines: list[NumberLine]

    @classmethod
    def of(cls, name: str, found: NumberPrediction) -> Numbers:
        return cls(
            name=name,
            text=found.text,
            reason=found.reason,
            width=found.width,
            height=found.height,
            lines=found.lines,
        )

    @property
    def accepted(self) -> bool:
        """Whether the picture has a line, and all its lines are accepted."""
        return self.reason is None

    def __repr__(self) -> str:
        return f"<Numbers {self.text!r}, {_verdict(self.reason)}>"


def _verdict(reason: RejectionReason | None) -> str:
    return f"rejected: {reason}" if reason else "accepted"


class Predictions(Sequence[Prediction]):
    """The predictions for several pictures, in their order. It behaves like a list that does not change.

    Args:
        classes: the number of classes of the model. Only a list without a prediction needs it.
    """

    def __init__(self, predictions: Iterable[Prediction], classes: int = 0) -> None:
        self._all = tuple(predictions)
        self._classes = classes

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each picture."""
        return [each.label for each in self._all]

    @property
    def probabilities(self) -> Floats:
        """The probabilities as float32 ``[N, C]``, with the classes in the order of the model."""
        rows = [list(each.probabilities.values()) for each in self._all]
        return np.array(rows, np.float32).reshape(len(self), -1 if rows else self._classes)

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        return Predictions(self._all[index], self._classes) if isinstance(index, slice) else self._all[index]

    def _left(self) -> str:
        left = len(self) - MOST_ROWS
        return f"… and {left:,} more" if left > 0 else ""

    def __repr__(self) -> str:
        shown = self._all[:MOST_ROWS]
        names = [printable(each.name) for each in shown]
        name_width, label_width = max([4, *map(len, names)]), max([5, *(len(each.label) for each in shown)])
        lines = [f"{'name':{name_width}}  {'label':{label_width}}  confidence  accepted"]
        lines += [
            f"{name:{name_width}}  {each.label:{label_width}}  {percent(each.confidence):>10}  {each.reason or 'yes'}"
            for name, each in zip(names, shown, strict=True)
        ]
        return "\n".join([*lines, *filter(None, [self._left()])])

    def _repr_html_(self) -> str:
        rows = [
            (
                html.picture(each.image, THUMBNAIL_SIDE),
                f"<b>{html.text(each.label)}</b>",
                percent(each.confidence),
                html.text(each.reason or "yes"),
                html.text(printable(each.name)),
            )
            for each in self._all[:MOST_ROWS]
        ]
        return html.table(("image", "label", "confidence", "accepted", "name"), rows) + self._left()
