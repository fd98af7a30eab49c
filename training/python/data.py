"""Look at a data set from Python before training, as ``mnist-train check`` does."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

from training.python.arrays import Data, on_disk
from training.python.results import Plot, as_table

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, repr=False)
class DataReport:
    """What is in a data set."""

    name: str
    counts: dict[str, dict[str, int]]
    """The number of pictures of each class by part: ``train``, ``validation`` and ``test``."""
    findings: tuple[str, ...]
    """What is wrong or odd, and what to do about it."""
    sheet: Plot
    """Each class as the network will see it."""
    text: str
    """All of this as text."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.counts)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows = [(label, *(found[part] for part in PARTS)) for label, found in self.counts.items()]
        advice = "".join(f"<li>{html.escape(line)}</li>" for line in self.findings)
        return as_table(rows, ("class", *PARTS)) + (f"<ul>{advice}</ul>" if advice else "")


def check(data: Data, prepare: str = "symbol", *, with_validation: bool = True) -> DataReport:
    """Return what is in a data set of your own: its classes, what will be left out, and advice. Nothing is written.

    Args:
        data: the path of a folder or an ``.npz`` file, or its arrays, as for :func:`training.train`.
        prepare: how a picture comes to 28x28: ``symbol``, ``dotted`` or ``as-is``.
        with_validation: whether a validation set is taken out.

    Raises:
        DataError: it is not a data set of your own.
        ConfigError: there is no such way to prepare pictures, or a value is no array.
    """
    from training.config import PREPARATIONS, check_name
    from training.data.own.check import findings, report_lines
    from training.data.own.cli import advised_recipe
    from training.data.own.inspection import check_not_known, inspect, model_name
    from training.data.own.sheet import to_png

    check_name("prepare", prepare, PREPARATIONS)
    with on_disk(data) as path:
        place = Path(path).expanduser()
        check_not_known(place)
        found = inspect(place, prepare, with_validation=with_validation)
        advice = list(filter(None, [advised_recipe(found, prepare)]))
        by_part = {part: found.count(part) for part in PARTS}
        return DataReport(
            name=model_name(place),
            counts={label: {part: by_part[part][label] for part in PARTS} for label in found.labels},
            findings=(*findings(found), *advice),
            sheet=Plot("classes", to_png(found)),
            text="\n".join([*report_lines(found, with_validation=with_validation), *advice]),
        )
