"""Look at the corrections that the service has stored: what they say, which are disputed, and all on one sheet."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from training.config import ConfigError, TrainConfig
from training.data.errors import DataError
from training.data.own.check import Check, check, demand_trainable, findings
from training.data.own.layouts import DISPUTED, find
from training.data.own.prepare import Prepared, prepare_all
from training.data.own.sheet import Row, Shown, contact_sheet, spread
from training.origin import PACKAGED, digest_of, exists, prepare_of

# Images of each class on the sheet.
SHOWN = 480
# How many disputed pictures are listed.
LISTED = 20
# Stands in a command for the model repository, which only the user knows.
REPOSITORY = "./YOUR-MODELS"
# What stands for a rejected prediction in the counts, and on the sheet. No class has an empty name.
REJECTED, SHOWN_REJECTED = "", "?"


@dataclass
class Review:
    """What a folder of corrections holds."""

    folder: Path
    found: Check | None
    """The corrections to learn from; None if there are none."""
    disputed: dict[str, list[Prepared]]
    """Pictures that got several labels, by their digest: each label has a file of its own."""

    def demand_trainable(self) -> None:
        """Check that a run with ``--replay`` can learn from the corrections.

        Raises:
            DataError: there are none, or one cannot be read.
        """
        if self.found is None:
            raise DataError(f"{self.folder}: every picture is disputed; move those of the right labels, as said above")
        demand_trainable(self.found, self.folder, self.found.labels, see="")

    def sheet(self) -> bytes:
        """Return a PNG of all pictures by label. A caption says what the model had predicted instead."""
        rows: list[Row] = []
        kept = self.found.kept if self.found else []
        for label in self.found.labels if self.found else ():
            shown = [
                Shown(each.image, _caption(_wrong_prediction(self.folder, each)))
                for each in kept
                if each.sample.label == label and each.image is not None
            ]
            rows.append(Row(label, len(shown), spread(shown, SHOWN)))
        doubtful = [
            Shown(same[0].image, "|".join(each.sample.label for each in same))
            for same in self.disputed.values()
            if same[0].image is not None
        ]
        if doubtful:
            rows.append(Row("disputed", len(doubtful), spread(doubtful, SHOWN)))
        return contact_sheet(rows)

    def lines(self) -> list[str]:
        """Return a table of the labels, what is wrong or odd, and the disputed pictures with the way out."""
        lines: list[str] = []
        if self.found:
            total = Counter(each.sample.label for each in self.found.kept)
            wrong_predictions = [(each.sample.label, _wrong_prediction(self.folder, each)) for each in self.found.kept]
            rejected = Counter(label for label, prediction in wrong_predictions if prediction == REJECTED)
            wrong = Counter(label for label, prediction in wrong_predictions if prediction)
            width = max(5, *map(len, self.found.labels))
            lines.append(f"{'label':{width}}  {'pictures':>8} {'wrong':>8} {'rejected':>8}")
            lines += [
                f"{label:{width}}  {total[label]:8} {wrong[label]:8} {rejected[label]:8}" for label in self.found.labels
            ]
            lines += [f"{'all':{width}}  {total.total():8} {wrong.total():8} {rejected.total():8}"]
            lines += findings(self.found, with_advice=False)
        if self.disputed:
            lines.append(
                f"{len(self.disputed)} disputed, so the training ignores them. Of each, move the picture of the right "
                f"label from {self.folder / DISPUTED}/LABEL to {self.folder}/LABEL, and remove the others:"
            )
            lines += [
                f"  {' or '.join(each.sample.label for each in same)}  {Path(same[0].sample.name).name}"
                for same in list(self.disputed.values())[:LISTED]
            ]
            if len(self.disputed) > LISTED:
                lines.append(f"  and {len(self.disputed) - LISTED} more")
        return lines


def review(folder: Path, how: str) -> Review:
    """Return what is in a folder of corrections.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; name the folder of mnist-serve --feedback")
    aside: dict[str, list[Prepared]] = {}
    if (folder / DISPUTED).is_dir() and any((folder / DISPUTED).rglob("*.png")):
        for each in prepare_all(find(folder / DISPUTED), how):
            aside.setdefault(Path(each.sample.name).stem, []).append(each)
    try:
        found = check(prepare_all(find(folder), how), folder, least=1)
    except DataError:
        if not aside:
            raise
        found = None
    return Review(folder, found, aside)


class ShownTo(NamedTuple):
    """The model that pictures were shown to."""

    name: str
    version: str
    digest: str
    """The SHA-256 of its ONNX file; empty if the records are of an older version of the service."""


def model_of(folder: Path) -> ShownTo | None:
    """Return the model that most of the pictures were shown to; None if the folder does not say."""
    models: Counter[ShownTo] = Counter()
    for path in folder.glob("*/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            record = json.loads(path.read_bytes())
            name, version = record["model"]["name"], record["model"]["version"]
            models[ShownTo(str(name), str(version), str(record.get("model_sha256", "")))] += 1
    return max(models, key=models.__getitem__, default=None)


def start_for(model: ShownTo | None) -> tuple[str, str]:
    """Return the value of ``--from`` for pictures that were shown to ``model``, and what to say about it.

    A service without a repository serves the packaged model. The first model of MNIST that a user publishes has the
    same name and version, so only the digest tells them apart.
    """
    name, version, digest = model or ShownTo("mnist", "1", "")
    place = f"models/{name}/{version}"
    if digest:
        known = next((each for each in (place, PACKAGED) if digest_of(each) == digest), "")
        if known:
            return known, ""
        return f"{REPOSITORY}/{name}/{version}", f"with the model repository of that service instead of {REPOSITORY}"
    if (name, version) != ("mnist", "1") or digest_of(place) == digest_of(PACKAGED):
        return place, ""
    if not exists(Path(place)):
        return PACKAGED, ""
    return place, f"or --from {PACKAGED}, if the service had no --repository: these corrections do not say it"


def prepare_for(start: str) -> str:
    """Return how to prepare pictures for a training ``--from`` this model; the default if it cannot be found."""
    try:
        return prepare_of(start)
    except ConfigError:
        return TrainConfig.prepare


def _wrong_prediction(folder: Path, each: Prepared) -> str | None:
    """Return what the model had predicted, or REJECTED; None if that was right or is unknown."""
    try:
        answer: dict[str, Any] = json.loads((folder / each.sample.name).with_suffix(".json").read_bytes())["answer"]
        predicted = str(answer["label"]) if answer["accepted"] else REJECTED
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return None if predicted == each.sample.label else predicted


def _caption(wrong: str | None) -> str:
    return "" if wrong is None else wrong or SHOWN_REJECTED
