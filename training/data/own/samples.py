"""The samples of a data set before they are decoded: where each picture is, its class, its group and its part."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from training.data.errors import DataError

MIN_CLASSES, MAX_CLASSES, MAX_NAME = 2, 1000, 128
# The folders of an explicit division, by the part that they hold.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    "test": "test",
}


class Sample(NamedTuple):
    """A picture with its class."""

    name: str
    """Where it is, for messages: a path in the folder, or a place in an array."""
    label: str
    read: Callable[[], bytes]
    """Returns the bytes of a picture file. Raises OSError."""
    group: str = ""
    """For example the writer. All pictures of a group are on the same side of the split."""
    part: str = ""
    """``train``, ``validation`` or ``test`` if the data set says so; otherwise the content decides."""


def class_name(text: str, where: str) -> str:
    """Return the name of a class in its normal form.

    Raises:
        DataError: it is empty, too long, or has characters that cannot be shown.
    """
    # Some systems write an accent as a character of its own. Names that look the same must be the same class.
    name = unicodedata.normalize("NFC", text.strip())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise DataError(
            f"{where}: the class name {text[:40]!r} must have 1 to {MAX_NAME} characters that can be shown; rename it"
        )
    return name


def part_name(text: str, where: str) -> str:
    """Return the part that a table names, or the empty string if it names none.

    Raises:
        DataError: there is no such part.
    """
    if not text.strip():
        return ""
    part = PARTS.get(text.strip().lower())
    if part is None:
        raise DataError(f"{where}: the split {text[:40]!r} must be train, validation or test, or empty")
    return part


def class_names(samples: list[Sample], where: object, least: int) -> tuple[str, ...]:
    """Return the sorted names of all classes, of which there must be at least ``least``.

    Raises:
        DataError: there are too few or too many.
    """
    names = tuple(sorted({sample.label for sample in samples}))
    if not least <= len(names) <= MAX_CLASSES:
        found = f" ({', '.join(names)})" if len(names) == 1 else ""
        raise DataError(
            f"{where}: has {len(names)} class{'' if len(names) == 1 else 'es'}{found}: must have {least} to "
            f"{MAX_CLASSES}; put the pictures of each class into a folder with the name of the class"
        )
    return names
