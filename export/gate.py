"""The gate before a publication: the accuracy that a run must have, and whether it is published already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.cascade import FAMILIAR, SURE
from export.earlier import newest_first, replayed, tested
from export.folder import ExportError
from export.run import Run
from serving.contract import SYMBOL
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import Bundle, Manifest
from training.reasons import first_names

SERVED = "served"


class GateError(Exception):
    """The run is not accurate enough to be published. The message gives the reason and the way out."""


class AlreadyPublishedError(Exception):
    """The newest version was made from the same run, with the same options and versions of packages."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(f"{bundle.folder} was made from the same run")
        self.bundle = bundle


@dataclass(frozen=True)
class Gate:
    """The accuracy on the test set that a run must have."""

    min_accuracy: float = 0.0
    not_worse_than: str | None = None
    """``served``, which is the newest version that can be verified, or the number of a version."""
    margin: float = 0.0005
    """How much of its accuracy on a replay data set a run may have lost."""

    def __post_init__(self) -> None:
        for option, value in (("--min-accuracy", self.min_accuracy), ("--margin", self.margin)):
            # Not a number would be a limit that every run keeps.
            if not 0 <= value <= 1:
                raise ExportError(f"{option} {value:g}: must be from 0 to 1; 0.99 means 99 %")

    def check(self, run: Run, repository: Path, name: str) -> None:
        """Check that the network of ``run`` may be published as the model ``name``, as :meth:`check_result` does."""
        self.check_result(run.folder, run.record["calibration"]["result"], run.record["dataset"], repository, name)

    def check_result(
        self, folder: Path, result: dict[str, Any], dataset: dict[str, Any], repository: Path, name: str
    ) -> None:
        """Check that what was made from a run may be published as the model ``name``.

        A run with ``--replay`` is compared with the model it started from, and with every version that was tested on
        the replay data set. So a little that is lost in each of many runs does not add up.

        A run is worse than a version if it has more errors than chance explains: over two standard errors of the
        difference. Two trainings that differ in their seeds only are seldom further apart.

        Args:
            folder: the run folder, for the messages.
            result, dataset: as in a manifest.

        Raises:
            GateError: it is not accurate enough, or it cannot be compared.
            ExportError: there is no such version to compare with.
        """
        found = _test_result(result, f"{folder / 'run.json'}")
        accuracy = found["correct"] / found["images"]
        if accuracy < self.min_accuracy:
            raise GateError(
                f"{folder} has a test accuracy of {accuracy:.2%}: it must be at least {self.min_accuracy:.2%} "
                f"(--min-accuracy). Train it longer, or lower the limit"
            )
        self._check_replay(folder, dataset, repository, name)
        other = self._other(repository, name)
        if other is None:
            return
        label = f"version {other.version} of {name}"
        if other.training["dataset"]["name"] != dataset["name"]:
            raise GateError(
                f"{folder} was trained on {dataset['name']}, but {label} on "
                f"{other.training['dataset']['name']}: publish it under another --name, or leave --not-worse-than out"
            )
        before = _test_result(other.result, label)
        known = before["correct"] / before["images"]
        margin = 2 * math.sqrt(
            accuracy * (1 - accuracy) / found["images"] + known * (1 - known) / before["images"],
        )
        if accuracy < known - margin:
            raise GateError(
                f"{folder} has a test accuracy of {accuracy:.2%}, and {label} has {known:.2%}: the run must have "
                f"at least {known - margin:.2%} (--not-worse-than). Train a better network, or leave the option out"
            )

    def _check_replay(self, folder: Path, dataset: dict[str, Any], repository: Path, name: str) -> None:
        found = replayed(dataset)
        if found is None:
            return
        before = [(found.errors_before, "the model that it started from")] if found.errors_before is not None else []
        for other in newest_first(repository, name):
            known = tested(other.manifest)
            if known and known[:2] == (found.name, found.images):
                before.append((known.errors, f"version {other.manifest.version} of {name}"))
        if not before:
            return
        fewest, label = min(before)
        allowed = fewest + math.floor(self.margin * found.images + 1e-9)
        if found.errors > allowed:
            errors = f"{found.errors} error{'s' * (found.errors != 1)}"
            raise GateError(
                f"{folder} has {errors} on the {found.images} test images of {found.name}, and "
                f"{label} has {fewest}: the run must have at most {allowed} (--margin {self.margin:g}). Train with "
                "more replayed images or a lower --learning-rate, or raise the margin"
            )

    def _other(self, repository: Path, name: str) -> Manifest | None:
        """Return the manifest of the version to compare with; None if there is no version yet."""
        if self.not_worse_than is None:
            return None
        if self.not_worse_than == SERVED:
            return next((found.manifest for found in newest_first(repository, name)), None)
        try:
            return bundle.read(repository / name / self.not_worse_than).manifest
        except BundleError as error:
            raise ExportError(f"--not-worse-than {self.not_worse_than}: {error}") from error


def check_new(run: Run, repository: Path, name: str, *, int8: bool, versions: dict[str, str]) -> None:
    """Check that the newest version was not made from the same run with the same options and ``versions``.

    Raises:
        AlreadyPublishedError: it was.
    """
    newest = next(newest_first(repository, name), None)
    if newest is None:
        return
    manifest, first = newest.manifest, newest.manifest.first
    published_first = first and (first.training["model_sha256"], first.share, first.sure, first.familiar)
    run_first = run.first and (run.first.record["model_sha256"], run.share, SURE, FAMILIAR)
    is_same = (
        manifest.training["model_sha256"] == run.record["model_sha256"]
        and published_first == run_first
        # The results of a cascade are not those of a run.
        and (first is not None or manifest.result == run.record["calibration"]["result"])
        and manifest.temperature == run.calibration.temperature
        and _are_near(manifest.novelty.threshold, run.calibration.threshold)
        and _are_near(manifest.confidence.threshold if manifest.confidence else None, run.calibration.confidence)
        and (bundle.INT8 in manifest.files) == int8
        and manifest.versions == versions
        # An older version of this project wrote no reference histograms.
        and (manifest.reference is not None) == (run.record["dataset"].get("validation_images", 0) > 0)
    )
    if is_same:
        raise AlreadyPublishedError(newest)


def _are_near(threshold: float | None, other: float | None) -> bool:
    """Return whether two thresholds are the same. Those of a cascade are fitted by each export, on any CPU."""
    if threshold is None or other is None:
        return threshold is other
    return math.isclose(threshold, other, rel_tol=1e-4)


def check_classes(run: Run, repository: Path, name: str) -> None:
    """Check that the run has every class of the newest version, and prepares pictures in the same way.

    Its clients expect these classes, and go on to send the same pictures.

    Raises:
        ExportError: a class would disappear, or pictures would be prepared in another way.
    """
    newest = next(newest_first(repository, name), None)
    if newest is None:
        return
    said, labels = run.record["dataset"], newest.manifest.labels
    if gone := [label for label in labels if label not in said["labels"]]:
        raise ExportError(
            f"{run.folder}: lacks {len(gone)} of the {len(labels)} classes of {newest.folder} "
            f"({first_names(gone)}); publish it as another model with --name, or train it with --replay"
        )
    before, now = newest.manifest.prepare, said.get("prepare", SYMBOL)
    if now != before:
        raise ExportError(
            f"{run.folder}: was trained with --prepare {now}, and {newest.folder} with --prepare {before}; publish it "
            f"as another model with --name, or train it with --prepare {before}"
        )


def _test_result(result: dict[str, Any], place: str) -> dict[str, Any]:
    test = result.get("test")
    if not test or not test.get("images"):
        raise GateError(f"{place} has no test result, so it cannot be compared")
    return dict(test)
