"""The parts of ``run.json``, and of a manifest, that the export reads. msgspec checks that they are there."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from serving.contract import SYMBOL, Preparation, Several

Count = Annotated[int, Meta(ge=0)]


class Result(msgspec.Struct, frozen=True):
    """The figures of an evaluation, as :meth:`training.evaluate.Evaluation.summary` returns them."""

    images: Count
    loss: float
    correct: Count
    errors: Count
    accuracy: float
    calibration_error: float


class Results(msgspec.Struct, frozen=True):
    """The evaluation on the test set, and on the validation set if there is one."""

    test: Result
    validation: Result | None = None


class Config(msgspec.Struct, frozen=True):
    """The settings that decide which network and which data a run has."""

    model: str
    dataset: str
    epochs: Annotated[int, Meta(ge=1)]
    validation: Annotated[int, Meta(ge=0, le=30_000)]
    subset: Count
    prepare: Preparation = SYMBOL
    replay: str = ""


class ReplayRecord(msgspec.Struct, frozen=True):
    """The replay data set of a run, and how many predictions for its test images are wrong."""

    name: str
    own: bool
    images: Count
    errors: Count
    errors_before: Count | None
    """Those of the model that the run started from."""


class DataRecord(msgspec.Struct, frozen=True):
    """The data set of a run."""

    name: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    train_images: Count
    validation_images: Count
    own: bool = False
    """Whether these are the user's own pictures. Otherwise the name is that of a known data set."""
    prepare: Preparation = SYMBOL
    several: Several = "rejected"
    replay: ReplayRecord | None = None


class Step(msgspec.Struct, frozen=True):
    """Where and when a bundle was trained, or exported."""

    revision: str = ""
    host: dict[str, str | int] = {}
    version: str = ""
    time: str = ""


class RunProvenance(msgspec.Struct, frozen=True):
    """Where a run comes from: its revision and machine, its seed, and the digests of what it learnt from."""

    training: Step = Step()
    seed: int | None = None
    teachers: tuple[str, ...] = ()
    fonts: dict[str, str] = {}
    start: tuple[str, ...] = ()


class Provenance(RunProvenance, frozen=True):
    """What a manifest says about how its bundle was made. Older bundles say nothing."""

    export: Step = Step()
    first: RunProvenance | None = None
    """The run of the first network of a cascade. Cascades of older versions say nothing about it."""


class Training(msgspec.Struct, frozen=True):
    """What a manifest holds of its run."""

    config: Config
    dataset: DataRecord
    seconds: float
    model_sha256: str


class CalibrationRecord(msgspec.Struct, frozen=True):
    """Digest of ``calibration.pt``, and the results with the calibration temperature applied."""

    sha256: str
    result: Results


class RunRecord(Training, frozen=True):
    """What the export needs of ``run.json``."""

    calibration: CalibrationRecord
    versions: dict[str, str]
    teachers: dict[str, str] = {}
    fonts: dict[str, str] = {}
    start: dict[str, str] = {}
