"""What is stored of a correction, and what is reported of all of them."""

from __future__ import annotations

from typing import Literal

import msgspec

from serving.contract import RejectionReason

Outcome = Literal["stored", "known", "disputed"]


class Answer(msgspec.Struct):
    """What a model predicts for a picture."""

    label: str
    """With ``mode=number``, the text of the picture."""
    confidence: float
    accepted: bool
    reason: RejectionReason | None


class ModelVersion(msgspec.Struct):
    """The model that made a prediction."""

    name: str
    version: str


class Record(msgspec.Struct):
    """What is stored beside a picture."""

    label: str
    """What the visitor said."""
    answer: Answer
    """The prediction of the version that the visitor saw."""
    model: ModelVersion
    request_id: str
    time: str
    """In UTC, as in ISO 8601."""
    image: list[list[int]]
    """The 28x28 pixels that the model received."""
    model_sha256: str = ""
    """That of its float32 ONNX file: a model of another repository may have the same name and version."""


class LabelCount(msgspec.Struct):
    """How many pictures have a label."""

    pictures: int = 0
    right: int = 0
    """For how many of them the prediction was accepted and right."""


class DisputedPicture(msgspec.Struct):
    """A picture that got several labels, and is set aside."""

    digest: str
    labels: list[str]


class FeedbackReport(msgspec.Struct):
    """What the folder holds."""

    pictures: int
    files: int
    bytes: int
    max_files: int
    max_bytes: int
    labels: dict[str, LabelCount]
    disputed_pictures: int
    disputed: list[DisputedPicture]
    """The first of them."""
