"""The command ``mnist-train compare``: print and plot runs side by side, from their folders alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from training.command import Place, PngFile, ending_at_once, naming_what_is_missing, print_output
from training.origin import RECORD

EXAMPLES = """
\b
Examples:
  mnist-train compare runs/cnn runs/momentum
  mnist-train compare runs/* --plot runs.png
"""


@dataclass(frozen=True)
class Summary:
    """What a run folder says about its run."""

    name: str
    record: dict[str, Any]
    """The content of ``run.json``; empty if the run is not finished."""
    rows: list[dict[str, Any]]
    """The rows of ``metrics.jsonl``."""

    @classmethod
    def read(cls, folder: Path, name: str) -> Summary:
        """Read a run folder.

        Raises:
            click.ClickException: it holds no run with a finished epoch.
        """
        try:
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            record = json.loads((folder / RECORD).read_text()) if (folder / RECORD).exists() else {}
            if not rows:
                raise ValueError("metrics.jsonl has no finished epoch")
            if not all(isinstance(row, dict) and {"epoch", "train_loss"} <= row.keys() for row in rows):
                raise ValueError("metrics.jsonl has other rows than those of mnist-train")
            if not isinstance(record, dict) or not isinstance(record.get("config", {}), dict):
                raise ValueError(f"{RECORD} is not the record of a run")
        except OSError as error:
            raise click.ClickException(
                f"{folder}: holds no run with a finished epoch ({error.strerror}: {Path(error.filename).name}); "
                "name the folders that mnist-train wrote"
            ) from error
        except (ValueError, RecursionError) as error:
            raise click.ClickException(f"{folder}: its files cannot be read: {error}") from error
        return cls(name, record, rows)

    @property
    def state(self) -> str:
        """What to say about a run whose results are missing, or not those of its last epoch."""
        if not self.record:
            return " (not finished)"
        # A run that goes on with more epochs keeps its record until it ends.
        epochs = self.find("config", "epochs")
        return f" (results after {epochs})" if isinstance(epochs, int) and epochs < len(self.rows) else ""

    def find(self, *keys: str) -> Any:
        """Return a value of ``run.json``, or None if it is not there."""
        found: Any = self.record
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found


def lines(runs: Sequence[Summary]) -> list[str]:
    """Return a table with a column for each run: results, costs, and the settings that differ."""
    table = [("", [run.name for run in runs]), *_results(runs), *_differing(runs)]
    rows = [[name, *cells] for name, cells in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _results(runs: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    validation = [run.rows[-1].get("validation_accuracy") for run in runs]
    best = max((value for value in validation if value is not None), default=None)
    found = [
        ("epochs trained", [f"{len(run.rows)}{run.state}" for run in runs]),
        ("training loss, last epoch", [_text(run.rows[-1].get("train_loss"), ".4f") for run in runs]),
        # Only the validation set is for choosing.
        (
            "validation accuracy",
            [_text(value, ".2%") + (" *" if value == best and len(runs) > 1 else "") for value in validation],
        ),
    ]
    calibrated = ("calibration", "result", "test")
    facts: list[tuple[str, tuple[str, ...], str]] = [
        ("test accuracy", (*calibrated, "accuracy"), ".2%"),
        ("test errors", (*calibrated, "errors"), ","),
        ("test loss", (*calibrated, "loss"), ".4f"),
        ("calibration error", (*calibrated, "calibration_error"), ".2%"),
        ("parameters", ("parameters",), ","),
    ]
    found += [(name, [_text(run.find(*keys), form) for run in runs]) for name, keys, form in facts]
    seconds = [sum(row.get("seconds", 0.0) for row in run.rows) for run in runs]
    found.append(("seconds of training", [_text(value, ".1f") for value in seconds]))
    found.append(("device", [_text(run.find("device"), "") for run in runs]))
    return [(name, cells) for name, cells in found if any(cell != "-" for cell in cells)]


def _differing(runs: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between the finished runs."""
    names = dict.fromkeys(name for run in runs for name in run.find("config") or {})
    cells = {name: [_text(run.find("config", name), "") if run.record else "?" for run in runs] for name in names}
    return [(name, values) for name, values in cells.items() if len({*values} - {"?"}) > 1]


def _text(value: Any, form: str) -> str:
    if value is None or value == "":
        return "-"
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: its last part, or the whole path if two have the same."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else list(map(str, folders))


@click.command("compare", epilog=EXAMPLES)
@click.argument("runs", nargs=-1, required=True, type=Place())
@click.option(
    "--plot",
    type=PngFile(),
    default="compare.png",
    show_default=True,
    help="PNG with the losses and the validation error of every run by epoch.",
)
def compare(runs: tuple[Path, ...], plot: Path) -> None:
    """Print and plot runs side by side.

    RUNS are run folders. The table has their results, costs, and the settings that differ.
    The best validation accuracy has a star. Choose by it, not by the test set.
    """
    folders = list(dict.fromkeys(runs))
    found = [Summary.read(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    print_output("\n".join(lines(found)))
    with ending_at_once(), naming_what_is_missing("mnist-train compare"):
        from training.plots import plot_comparison
    try:
        with warnings.catch_warnings():
            # matplotlib warns of each letter of a name that its font lacks. The table has the names too.
            warnings.simplefilter("ignore")
            plot_comparison(plot, {run.name: run.rows for run in found})
    except OSError as error:
        raise click.ClickException(f"--plot {plot}: {error.strerror or error}; name another file") from error
    print_output(f"\nPlot  {plot}")
