"""The results of training in Python, and how they look in a terminal and in a notebook. This module loads no torch."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.command import PNG_SUFFIXES
from training.data.own.files import SHEET
from training.loop.errors import TrainingError
from training.origin import RECORD
from training.track.shown import PLOTS

METRICS = "metrics.jsonl"


@dataclass(frozen=True, repr=False)
class Plot:
    """A picture that a notebook shows."""

    name: str
    png: bytes
    """The content of a PNG file."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a PNG file.

        Raises:
            OSError: the file cannot be written.
            ValueError: the name has the suffix of another kind of file.
        """
        place = Path(path)
        if place.suffix.lower() not in PNG_SUFFIXES:
            raise ValueError(f"{place}: gets a PNG; name it {place.with_suffix('.png')}")
        place.write_bytes(self.png)

    def __repr__(self) -> str:
        return f"<Plot {self.name}: PNG of {len(self.png):,} bytes>"

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True, repr=False)
class TrainingRun(os.PathLike[str]):
    """A finished run folder. It can stand wherever a path can, for example in ``export.publish(run, "models")``."""

    folder: Path
    record: Mapping[str, Any]
    """The content of ``run.json``: settings, data set, results and versions."""
    history: Sequence[Mapping[str, Any]]
    """Losses, validation accuracy and seconds of each epoch."""

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> TrainingRun:
        """Return the finished run in a folder.

        Raises:
            TrainingError: the folder holds no finished run.
        """
        path = Path(folder).expanduser()
        try:
            record = json.loads((path / RECORD).read_text())
            history = [json.loads(line) for line in (path / METRICS).read_text().splitlines()]
            found = cls(path, record, history)
            # An incomplete record raises a KeyError here, and not where the caller uses it.
            _ = found.labels, found.accuracy, found.settings["model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path}: holds no finished run; name the folder that a training wrote") from error
        return found

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every setting of the run by its name, as in :class:`TrainConfig`."""
        settings: Mapping[str, Any] = self.record["config"]
        return settings

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.record["dataset"]["labels"])

    @property
    def test(self) -> Mapping[str, Any]:
        """The result on the test set: ``images``, ``correct``, ``errors``, ``accuracy``, ``loss``."""
        test: Mapping[str, Any] = self.record["result"]["test"]
        return test

    @property
    def accuracy(self) -> float:
        """The accuracy on the test set, from 0 to 1."""
        return float(self.test["accuracy"])

    @property
    def plots(self) -> dict[str, Plot]:
        """The plots of the run by name: ``curves``, ``confusion``, ``mistakes``, ``reliability``, ``classes``."""
        paths = (self.folder / name for name in (*PLOTS, SHEET))
        return {path.stem: Plot(path.stem, path.read_bytes()) for path in paths if path.exists()}

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def _facts(self) -> dict[str, str]:
        dataset, test = self.record["dataset"], self.test
        return {
            "run": str(self.folder),
            "data": f"{dataset['name']}: {len(self.labels)} classes, {dataset['train_images']:,} training images, "
            f"{dataset['validation_images']:,} for validation",
            "network": f"{self.settings['model']}, {self.record['parameters']:,} parameters",
            "epochs": str(len(self.history)),
            "test accuracy": f"{self.accuracy:.2%} ({test['correct']:,} of {test['images']:,})",
            "time": f"{self.record['seconds']:.0f} s",
        }

    def __repr__(self) -> str:
        return (
            f"<TrainingRun {self.folder}: {self.settings['model']} on {self.record['dataset']['name']}, "
            f"{self.test['correct']:,} of {self.test['images']:,} test images correct>"
        )

    def _repr_html_(self) -> str:
        return as_table(self._facts().items())


def as_table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Return texts as an HTML table. Every text is escaped: the name of a class may hold anything."""

    def line(tag: str, cells: Iterable[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    header = f"<thead>{line('th', head)}</thead>" if head else ""
    return f"<table>{header}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"
