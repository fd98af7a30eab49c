"""The commands ``mnist-train check`` and ``review``, and what ``mnist-train`` says about the user's own data."""

from __future__ import annotations

import errno
import itertools
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.checkpoint import write_atomically
from training.command import Place, PngFile, ending_at_once, naming_what_is_missing, print_output
from training.config import KNOWN_DATASETS, PREPARATIONS, TrainConfig, is_place
from training.data.errors import DataError
from training.origin import as_place, exists, expanded

if TYPE_CHECKING:
    from training.data.own.check import Check

# Stands in a command for what only the user knows.
PICTURES = "./YOUR-DATA"
# With fewer training pictures than this, --recipe small-data is advised.
SMALL = 5000

EXAMPLES = """
\b
Examples:
  mnist-train check ./letters
  mnist-train check ./letters --prepare as-is --sheet letters.png
"""

REVIEW_EXAMPLES = """
\b
Example:
  mnist-train review ./feedback
"""


def place_of(dataset: str) -> str:
    """Return a data set's name as it is, and the path of a folder or file as an absolute path."""
    if dataset in KNOWN_DATASETS or not (is_place(dataset) or exists(Path(dataset))):
        return dataset
    return str(expanded(dataset).absolute())


def check_readable(*places: str) -> None:
    """Check that data sets of the user exist, and that a folder can be listed. Names of known ones are passed over.

    Raises:
        DataError: one does not exist or cannot be read.
    """
    for place in filter(is_place, places):
        try:
            if stat.S_ISDIR(Path(place).stat().st_mode):
                os.scandir(place).close()
        except (OSError, ValueError) as error:
            # No file can have a name that is too long.
            if getattr(error, "errno", None) in (errno.ENOENT, errno.ENAMETOOLONG):
                from training.data.own.layouts import HOW_TO

                raise DataError(f"{place}: does not exist; {HOW_TO}") from error
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{place}: cannot be read: {reason}; name a data set that this user can read") from error


@click.command("check", epilog=EXAMPLES)
@click.argument("folder", type=Place())
@click.option(
    "--prepare",
    type=click.Choice(PREPARATIONS),
    default="symbol",
    show_default=True,
    help="How a picture becomes 28x28 pixels, as for mnist-train.",
)
@click.option(
    "--validation/--no-validation",
    "with_validation",
    default=True,
    show_default=True,
    help="Whether some of the pictures are for the validation set, as in mnist-train.",
)
@click.option(
    "--sheet",
    type=PngFile(),
    help="PNG with each class as the network will see it.  [default: NAME-classes.png]",
)
def check(folder: Path, prepare: str, with_validation: bool, sheet: Path | None) -> None:
    """Check your own data before you train with it.

    It prints what is in FOLDER, what will be left out, and what to do about it. The exit status is 1 if no network can
    be trained with the data.
    """
    with ending_at_once(), naming_what_is_missing("mnist-train check"):
        from training.data.own.check import demand_trainable, report_lines
        from training.data.own.inspection import check_not_known, inspect, model_name
        from training.data.own.sheet import to_png
    sheet = sheet or Path(f"{folder.absolute().name}-classes.png")
    with _explained(folder):
        check_not_known(folder)
        found = inspect(folder, prepare, with_validation=with_validation)
        _write_sheet(sheet, to_png(found))
        print_output("\n".join(report_lines(found, with_validation=with_validation)))
        print_output(f"\nContact sheet  {sheet}")
        demand_trainable(found, folder, see="")
    command = ["mnist-train", "--dataset", as_place(folder)]
    command += ["--prepare", prepare] if prepare != "symbol" else []
    command += [] if with_validation else ["--validation", "0"]
    command += [*flags_for_few_pictures(found, prepare).split(), "--output", _new(f"runs/{model_name(folder)}")]
    print_output(f"Next           {shlex.join(command)}")


def _new(folder: str) -> str:
    """Return this name of a run folder, or with a number behind it if it is taken, so that a run can begin there."""
    names = itertools.chain([folder], (f"{folder}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


@click.command("review", epilog=REVIEW_EXAMPLES)
@click.argument("folder", type=Place())
@click.option(
    "--prepare",
    type=click.Choice(PREPARATIONS),
    help="How a picture becomes 28x28 pixels, as for mnist-train.  [default: as for the model that was corrected]",
)
@click.option(
    "--sheet",
    type=PngFile(),
    help="PNG with every picture and what the model had predicted.  [default: NAME-review.png]",
)
def review(folder: Path, prepare: str | None, sheet: Path | None) -> None:
    """Look at stored corrections before you train with them.

    FOLDER is that of mnist-serve --feedback. The command prints how many pictures have each label and how many of them
    the model had predicted wrongly or rejected, and lists pictures that got several labels.
    """
    with ending_at_once(), naming_what_is_missing("mnist-train review"):
        from training.data.own import review as reviewing
    sheet = sheet or Path(f"{folder.absolute().name}-review.png")
    with _explained(folder):
        model = reviewing.model_of(folder)
        start, note = reviewing.start_for(model)
        usual = reviewing.prepare_for(start)
        found = reviewing.review(folder, prepare or usual)
        _write_sheet(sheet, found.sheet())
    print_output("\n".join(found.lines()))
    print_output(f"\nContact sheet  {sheet}")
    try:
        found.demand_trainable()
    except DataError as error:
        print_output(f"Not ready      {error}")
        print_output(f"Next           {shlex.join(['mnist-train', 'review', str(folder)])}")
        return
    name = model.name if model else "mnist"
    replay = name if name in KNOWN_DATASETS else PICTURES
    command = ["mnist-train", "--dataset", as_place(folder), "--from", start, "--replay", replay]
    command += ["--prepare", prepare] if prepare and prepare != usual else []
    print_output(f"Next           {shlex.join([*command, '--output', _new('runs/corrected')])}")
    if note:
        print_output(f"               {note}")
    if replay == PICTURES:
        print_output(f"               with the pictures that {name} was trained with instead of {PICTURES}")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn the errors of the block, which reads ``folder``, into one line."""
    try:
        yield
    except DataError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error


def _write_sheet(sheet: Path, content: bytes) -> None:
    try:
        write_atomically(sheet, content)
    except OSError as error:
        raise click.ClickException(f"--sheet {sheet}: {error.strerror or error}; name another file") from error


def flags_for_few_pictures(found: Check, prepare: str) -> str:
    """Return the flags that give a better model of few pictures; empty if there are enough.

    The packaged model knows strokes, which photos do not have.
    """
    if found.parts.count("train") >= SMALL:
        return ""
    return "--recipe small-data" + (" --from packaged" if prepare != "as-is" else "")


def advised_recipe(found: Check, prepare: str) -> str:
    """Return a sentence that advises a recipe for few pictures; empty if there are enough."""
    flags = flags_for_few_pictures(found, prepare)
    count = found.parts.count("train")
    return f"There are only {count} training pictures. Add {flags} for a better model." if flags else ""


def say_findings(found: Check, config: TrainConfig, *, has_chosen: bool) -> None:
    """Print what is wrong or odd in the user's data to standard error, before a run with ``config``.

    Args:
        has_chosen: whether the user has chosen how to train, so that no recipe needs to be recommended.
    """
    from training.data.own.check import findings

    for line in findings(found, with_advice=not config.replay):
        click.echo(line, err=True)
    if not has_chosen and not found.unreadable and (advice := advised_recipe(found, config.prepare)):
        click.echo(advice, err=True)
