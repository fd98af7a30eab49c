"""One request that two versions of a model process, and what each of them predicts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.contract import Images, ModelOutput, Reasons
from serving.feedback.records import Answer
from serving.inference.numbers import NumberPrediction, NumberReading, check_reads_numbers
from serving.models.model import Model
from serving.models.rollout import Pair
from serving.pictures.mnist_form import Digit


@dataclass(slots=True, eq=False)
class Comparison:
    """One request that is repeated. It is filled while the request is processed."""

    model: Model
    """The version that responds."""
    other: Model
    """The version that repeats the request."""
    is_canary: bool
    """Whether the version that responds is the candidate."""
    request_id: str = ""
    pictures: Sequence[bytes] = ()
    """The picture files of the request, if it has any."""
    digits: Sequence[Digit] = ()
    """The digits in these pictures, each with all its readings."""
    reasons: Reasons = field(default_factory=dict)
    reading: NumberReading | None = None
    """The candidates for digits, if the request asks for whole numbers."""
    is_complete: bool = False
    """Whether inference has ended. Only then the following are known."""
    images: Images = field(init=False)
    output: ModelOutput = field(init=False)
    seconds: float = field(init=False)
    """Time of inference."""

    def ran(self, images: Images, output: ModelOutput, seconds: float) -> None:
        """Keep what the responding version was given, and what it gave."""
        self.images, self.output, self.seconds, self.is_complete = images, output, seconds, True

    def repeat(self, images: Images) -> tuple[ModelOutput, float]:
        """Run the other version, and return its output and the seconds of inference."""
        started = time.perf_counter()
        with self.other:
            output = self.other.classifier.classify(images)
        return output, time.perf_counter() - started

    @property
    def stable(self) -> Model:
        """The stable version, whichever of the two responds."""
        return self.other if self.is_canary else self.model

    @property
    def key(self) -> tuple[str, Pair]:
        """The name of the model and its two versions."""
        candidate = self.model if self.is_canary else self.other
        return self.model.name, Pair(self.stable.version, candidate.version)

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        readings = [reading.image for digit in self.digits for reading in (digit, *digit.others)]
        pages = self.reading.page_bytes if self.reading else 0
        return sum(map(len, self.pictures)) + sum(image.nbytes for image in (self.images, *readings)) + pages


def answers(model: Model, images: Images, output: ModelOutput, reasons: Reasons) -> list[Answer]:
    """Return what a version predicts for each image."""
    rejections = model.judge(images, output, reasons)
    classes = output.probabilities.argmax(axis=1).tolist()
    return [
        Answer(model.labels[best], row[best], reason is None, reason)
        for best, row, reason in zip(classes, output.probabilities.tolist(), rejections, strict=True)
    ]


def numbers(comparison: Comparison, reading: NumberReading) -> tuple[list[Answer], list[Answer], float]:
    """Return what each version reads in each picture, and the seconds of inference in the other version."""
    check_reads_numbers(comparison.other)
    output, seconds = comparison.repeat(reading.images)
    versions = ((comparison.model, comparison.output), (comparison.other, output))
    mine, others = (
        [
            Answer(read.text, _confidence(read), read.accepted, read.reason)
            for read in reading.by(model).predictions(found)
        ]
        for model, found in versions
    )
    return mine, others, seconds


def _confidence(read: NumberPrediction) -> float:
    """Return the probability that all lines are right. A picture without lines has none."""
    return math.prod(line.confidence for line in read.lines) if read.lines else 0.0
