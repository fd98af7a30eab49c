"""The rows of an earlier run. Some of their pictures are recognised again, to find out whether the rows still hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from serving.batch.inputs import Input
from serving.batch.rows import Row

# At least this many rows are compared, if there are so many, and less than twice as many.
SAMPLES = 16
# Rows differ for other reasons too: a picture was scanned again, or is at the edge of a threshold on another CPU.
MOST_DIFFERENT = 0.25
# How far the probability of an error, 1 - confidence, may differ from CPU to CPU, and by the rounding of float32.
SHARE, ROUNDING = 0.05, 2e-7


class Known(msgspec.Struct):
    """What is read of a row of an earlier run."""

    file: str
    error: str | None
    model: str | None
    label: str | None = None
    confidence: float | None = None
    reason: str | None = None

    @property
    def accepted(self) -> bool:
        return self.error is None and self.reason is None

    @property
    def first_error(self) -> str:
        return f"{self.file}: {self.error}" if self.error else ""


class Sample:
    """Rows that are spread evenly over a file, however many it has. Pictures that could not be read are left out."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, Input, Known]] = []
        self._every = 1

    def add(self, number: int, picture: Input, known: Known) -> None:
        if known.error is not None or (number - 1) % self._every:
            return
        self._rows.append((number, picture, known))
        if len(self._rows) == 2 * SAMPLES:
            self._every *= 2
            self._rows = [row for row in self._rows if (row[0] - 1) % self._every == 0]

    def first_changed(self, recognise: Callable[[Sequence[Input]], list[Row]]) -> tuple[int, str] | None:
        """Recognise the pictures again, and return the number and the file of the first row that differs.

        Return None if at most ``MOST_DIFFERENT`` of the rows differ. A picture that cannot be read now says nothing.
        """
        if not self._rows:
            return None
        found = recognise([picture for _, picture, _ in self._rows])
        compared = [
            (number, known, row) for (number, _, known), row in zip(self._rows, found, strict=True) if row.error is None
        ]
        changed = [(number, known.file) for number, known, row in compared if not _agree(known, row)]
        return changed[0] if len(changed) > MOST_DIFFERENT * len(compared) else None


def _agree(known: Known, row: Row) -> bool:
    before, now = known.confidence or 0, row.confidence or 0
    is_near = abs(before - now) <= SHARE * (1 - now) + ROUNDING
    return is_near and (known.label, known.reason) == (row.label, row.reason)
