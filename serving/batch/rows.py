"""The row of a picture, and the forms in which rows are written."""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from serving.errors import printable


class Row(msgspec.Struct):
    """The result for one picture. A picture that could not be read has only ``file`` and ``error``."""

    file: str
    digit: int | msgspec.UnsetType | None = None
    """The digit, if the classes of the model are digits."""
    label: str | None = None
    """Name of that class."""
    confidence: float | None = None
    """Probability of that class."""
    probabilities: list[float] | None = None
    """Probability of every class."""
    accepted: bool = False
    """Whether to rely on the prediction. If not, ``reason`` says why."""
    reason: str | None = None
    """Why the picture is not accepted."""
    error: str | None = None
    """Why the picture could not be read."""
    model: str | None = None
    """Name and version of the model, for example ``mnist/1``."""


class Rows(NamedTuple):
    """The encoded rows of a chunk."""

    encoded: list[bytes]
    unreadable: int
    """Number of rows with an error."""
    first_error: str
    """The first file with an error, and the error."""
    accepted: int
    """Number of rows whose prediction is accepted."""


class Form(Protocol):
    """How a row is written."""

    def encode(self, row: Row) -> bytes:
        """Return the text of a row, in UTF-8, with the line break if the form has one."""


_encoder = msgspec.json.Encoder()


def _encode_json(row: Row) -> bytes:
    """Return a row as JSON. As in /predict, a prediction of a model of other symbols has no ``digit``."""
    has_no_digit = row.digit is None and row.label is not None
    return _encoder.encode(msgspec.structs.replace(row, digit=msgspec.UNSET) if has_no_digit else row)


# Probabilities are left out: a column for each class would make the file four times as large.
CSV_COLUMNS = ("file", "digit", "label", "confidence", "accepted", "reason", "error", "model")
# A longer label moves the rest of its row.
MOST_LABEL_WIDTH = 32
CSV_HEADER = ",".join(CSV_COLUMNS).encode() + b"\n"


@dataclass(frozen=True)
class JsonLines:
    """One JSON object per line."""

    def encode(self, row: Row) -> bytes:
        return _encode_json(row) + b"\n"


@dataclass(frozen=True)
class Json:
    """A JSON object without a line break. The caller puts objects into a list."""

    def encode(self, row: Row) -> bytes:
        return _encode_json(row)


@dataclass(frozen=True)
class Csv:
    """Comma-separated values with ``CSV_COLUMNS``. An absent value is empty."""

    def encode(self, row: Row) -> bytes:
        line = io.StringIO()
        values = [getattr(row, column) for column in CSV_COLUMNS]
        values = [str(value).lower() if isinstance(value, bool) else value for value in values]
        # With this line terminator, csv also quotes a name with a carriage return alone.
        csv.writer(line, lineterminator="\r\n").writerow(values)
        return line.getvalue().removesuffix("\r\n").encode() + b"\n"


@dataclass(frozen=True)
class Table:
    """Columns for a reader. A digit is shown only where it is accepted."""

    width: int
    """Characters of the column with the names."""
    title: str = "digit"
    """Title of the column with the labels."""
    label_width: int = 5
    """Characters of that column."""

    @classmethod
    def of(cls, width: int, labels: Sequence[str]) -> Table:
        """Return the table of a model with these classes."""
        are_digits = set(labels) <= set(string.digits)
        longest = max((len(printable(label)) for label in labels), default=0)
        return cls(width, "digit" if are_digits else "label", min(max(5, longest), MOST_LABEL_WIDTH))

    def header(self) -> str:
        """Return the titles of the columns, without a line break."""
        return f"{'file':{self.width}}  {self.title:{self.label_width}}  confidence  accepted"

    def encode(self, row: Row) -> bytes:
        label, confidence = (printable(row.label or ""), percent(row.confidence or 0)) if row.accepted else ("-", "-")
        verdict = row.error or row.reason or "yes"
        if row.reason == "several" and self.title == "digit":
            verdict = "several; try --number"
        name = f"{printable(row.file):{self.width}}  {label:{self.label_width}}"
        return f"{name}  {confidence:>10}  {printable(verdict)}\n".encode()


def percent(probability: float) -> str:
    """Return a probability in percent. No probability is 100 %, so none is shown so."""
    return ">99.99%" if probability > 0.9999 else f"{probability:.2%}"
