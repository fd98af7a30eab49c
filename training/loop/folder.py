"""The run folder: what protects it from another run, and whether it can be written."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from training.config import is_place
from training.data.own.files import DATA_FILE, REPLAY_FILE, SHEET, is_saved
from training.loop.errors import TrainingError
from training.origin import RECORD
from training.track.shown import PLOTS, TrackingError

# Any of these files shows that the folder holds a run, although last.pt may have been removed.
RUN_FILES = ("last.pt", "model.pt", "calibration.pt", RECORD, "metrics.jsonl", *PLOTS)
# What a run of the user's own data writes first. A run that was killed right after it may begin again.
OWN_FILES = (DATA_FILE, REPLAY_FILE, SHEET)
# And these show a published version. A run must not mix its files with them.
BUNDLE_FILES = ("manifest.json", "model.onnx", "model.int8.onnx", "model.torchscript.pt", "golden.npz")
# A name as long as the longest one in a run folder: that of a temporary file. It shows whether a path gets too long.
LONG_NAME = ".calibration.pt.12345678"


def check_output(output: Path, *places: str, resume: bool) -> None:
    """Check that a run may write into ``output``, and that it can.

    Args:
        places: the data sets of the run.
        resume: whether the run may continue one that ``output`` holds.

    Raises:
        TrainingError: it may not or cannot. The message says why.
    """
    check_writable(output)
    check_free(output, resume=resume)
    check_apart(output, *places)


def check_free(output: Path, *, resume: bool) -> None:
    """Check that a run may write into ``output``: it is empty, or it holds a run to resume.

    Raises:
        TrainingError: it holds something that the run would overwrite.
    """
    if found := next((name for name in BUNDLE_FILES if (output / name).exists()), None):
        raise TrainingError(f"--output {output}: holds a published model ({found}); name another --output")
    # A version that was published next would come between the files of the run, or get a number after its folder.
    for models in (output, output.parent) if output.name.isdecimal() else (output,):
        if version := next(models.glob("[0-9]*/manifest.json"), None):
            raise TrainingError(
                f"--output {output}: {models} holds published versions ({version.parent.name}); name another --output"
            )
    if version := next(output.glob("*/[0-9]*/manifest.json"), None):
        raise TrainingError(
            f"--output {output}: is a model repository, with {version.parent.relative_to(output)}; name another "
            "--output, and publish the run there with mnist-export"
        )
    found = next((name for name in RUN_FILES if (output / name).exists()), None)
    if found == "last.pt" and not resume:
        raise TrainingError(
            f"--output {output}: already holds a run; add --resume to continue it, or name another --output"
        )
    if found and found != "last.pt":
        raise TrainingError(
            f"--output {output}: already holds a run ({found}), and without its last.pt it cannot be resumed; "
            "name another --output"
        )
    if not found and (foreign := _foreign_file(output)):
        raise TrainingError(
            f"--output {output}: the run would replace {foreign}, which no run has written; name another --output"
        )


def _foreign_file(output: Path) -> str:
    """Return the name of a file that a run would replace, and that no run has written; empty if there is none."""
    for name in (DATA_FILE, REPLAY_FILE):
        if (output / name).exists() and not is_saved(output / name):
            return name
    # A contact sheet comes after the images.
    return SHEET if (output / SHEET).exists() and not (output / DATA_FILE).exists() else ""


def check_apart(output: Path, *places: str) -> None:
    """Check that ``output`` does not lie in a data set of the user, where its plots would become pictures.

    It does not hold the file of a data set either, which the run could replace.

    Args:
        places: data sets. Names of known ones are passed over.

    Raises:
        TrainingError: it does.
    """
    # Unlike Path.resolve(), os.path.realpath() raises no error for a link that leads to itself.
    folder = Path(os.path.realpath(output))
    for place in filter(is_place, places):
        found = Path(os.path.realpath(place))
        # Path.is_file() may raise an OSError.
        if found.parent == folder and os.path.isfile(found):  # noqa: PTH113
            raise TrainingError(f"--output {output}: holds the data set {place}; name another --output")
        if found in (folder, *folder.parents):
            raise TrainingError(f"--output {output}: lies in the data set {place}; name a folder outside of it")


@contextlib.contextmanager
def made(output: Path) -> Iterator[None]:
    """Make the folder of a run. If the run cannot be shown elsewhere, so that it does not begin, remove it again."""
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except TrackingError:
        with contextlib.suppress(OSError):  # It is not empty.
            if is_new:
                output.rmdir()
        raise


def remove_leftovers(output: Path, *, is_new: bool) -> None:
    """Remove the temporary files of a run that was killed while it wrote them. The caller holds the lock.

    Args:
        is_new: whether a run begins. Then the pictures of one that was killed before its first checkpoint go too.
    """
    for name in OWN_FILES if is_new else ():
        (output / name).unlink(missing_ok=True)
    for name in (*RUN_FILES, *OWN_FILES):
        for temporary in output.glob(f".{name}.*"):
            if re.fullmatch(r"[0-9a-f]{8}", temporary.name.removeprefix(f".{name}.")):
                temporary.unlink(missing_ok=True)


def check_writable(output: Path) -> None:
    """Check that files can be written into ``output``, which may not exist yet. Nothing is left behind.

    Raises:
        TrainingError: the path is too long, a part of it is no folder, or the folder cannot be written.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            (output / LONG_NAME).stat()
        # A link that leads nowhere is there, but no folder can be made of it.
        folder = next(path for path in (output.absolute(), *output.absolute().parents) if os.path.lexists(path))
        # Rights do not tell all: a disk may be full or mounted for reading only.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else error
        raise TrainingError(f"--output {output}: cannot be written: {reason}; name another --output") from error
