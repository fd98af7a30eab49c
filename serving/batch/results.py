"""The file of results. Rows are added in the order of the inputs, and an interrupted run goes on after its last row.

results.csv, results.jsonl   rows are added to the file itself
results.parquet              rows are added to results.parquet.part, which becomes the Parquet file at the end
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import msgspec

from serving import shares
from serving.batch import parquet
from serving.batch.earlier import Known, Sample
from serving.batch.inputs import CHUNK, Input, Inputs, shown
from serving.batch.job import Job
from serving.batch.rows import CSV_COLUMNS, CSV_HEADER, Csv, Form, JsonLines, Row, Rows
from serving.errors import ResultsError

SUFFIXES = (".csv", ".jsonl", ".parquet")
# What to do if the file cannot be opened.
WAY_OUT = "choose another --output, in a folder where you may write"
NOT_OURS = "it is not a file of mnist-predict"
_JSON_START = b'{"file":'
# Bytes of the longest row: a long name, and the probabilities of a thousand classes.
MAX_ROW = 1_000_000


def form_of(path: Path) -> Form:
    """Return the form of the rows in a file of results. Those of Parquet are JSON lines until the end."""
    return Csv() if path.suffix.lower() == ".csv" else JsonLines()


class _Kept(NamedTuple):
    """The rows of an earlier run that stay."""

    rows: int
    size: int
    """Bytes of these rows in the file."""
    unreadable: int
    first_error: str
    """The first of these files that could not be read, and why."""
    accepted: int
    """How many of these rows have an accepted prediction."""


class Results:
    """The file of results of one run. Use it inside a ``with`` statement.

    Args:
        job: the model, and the form that :func:`form_of` gives for the path.

    Raises:
        BundleError: the model cannot be loaded or verified, to compare the rows of an earlier run.
        ResultsError: the file cannot be used. The message names it.
    """

    rows: int
    """Rows in the file."""
    unreadable: int
    """Rows with an error."""
    first_error: str
    """The first file that could not be read, and why."""
    accepted: int
    """Rows whose prediction is accepted."""

    def __init__(self, path: Path, inputs: Inputs, job: Job) -> None:
        self.path = path
        self._job = job
        self._is_csv = isinstance(job.form, Csv)
        self._is_parquet = path.suffix.lower() == ".parquet"
        self._part = path.with_name(path.name + ".part") if self._is_parquet else path
        self._source = self._part
        """The file that the rows of an earlier run are from."""
        self._inputs = inputs
        self._model = f"{job.model}/{job.version}"

    def __enter__(self) -> Self:
        try:
            is_unpacked = False
            # "a" creates the file, and keeps what an earlier run has written.
            self._file: BinaryIO = self._part.open("ab+", buffering=0)
            try:
                if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                    raise ResultsError(f"{self.path}: must be a regular file")
                self._lock()
                # Another process may have the part until this one has the lock.
                is_unpacked = self._is_parquet and self.path.exists() and not os.fstat(self._file.fileno()).st_size
                if is_unpacked:
                    self._source = self.path
                    self._unpack()
                kept = self._kept()
                if kept.size != os.fstat(self._file.fileno()).st_size:
                    self._file.truncate(kept.size)
            except BaseException:
                if is_unpacked:
                    self._part.unlink()
                self._file.close()
                raise
        except OSError as error:
            raise ResultsError(f"{self.path}: {error.strerror}; {WAY_OUT}") from error
        self.rows, _, self.unreadable, self.first_error, self.accepted = kept
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._file.tell() and not os.fstat(self._file.fileno()).st_size:
            self._part.unlink(missing_ok=True)
        self._file.close()

    def add(self, rows: Rows) -> None:
        """Add the rows of a chunk."""
        head = CSV_HEADER if self._is_csv and not self.rows else b""
        self._write(head + b"".join(rows.encoded))
        self.rows += len(rows.encoded)
        self.unreadable += rows.unreadable
        self.first_error = self.first_error or rows.first_error
        self.accepted += rows.accepted

    def finish(self) -> None:
        """Make sure that the rows are on the disk. A Parquet file appears now."""
        try:
            shares.sync(self._file.fileno(), self._part)
            if self._is_parquet:
                parquet.pack(self._part, self.path)
                self._part.unlink()
        except OSError as error:
            raise ResultsError(f"{self.path}: {error.strerror}; the same command continues from here") from error

    def _unpack(self) -> None:
        try:
            for lines in parquet.unpack(self.path):
                self._write(lines)
        except ValueError as error:  # pyarrow's error for other files, and msgspec's for other columns
            raise self._foreign(NOT_OURS) from error
        except OSError as error:
            if error.errno:
                raise
            raise self._foreign("it is damaged") from error  # pyarrow's error for a page that it cannot decompress

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        try:
            # A write to an almost full disk may write a part.
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise ResultsError(f"{self.path}: {error.strerror}; the same command continues from here") from error

    def _lock(self) -> None:
        try:
            shares.lock(self._file.fileno(), self._part)
        except BlockingIOError as error:
            raise ResultsError(f"{self.path} is being written by another mnist-predict") from error

    def _kept(self) -> _Kept:
        """Return which rows of the file stay: whole chunks, so that the rest is recognised in the same chunks.

        Raises:
            ResultsError: the rows are not those of the first inputs, or not of this model.
        """
        sample = Sample()
        kept = _Kept(0, 0, 0, "", 0)
        unreadable, first_error, accepted = 0, "", 0
        inputs = iter(self._inputs)
        for count, (known, size) in enumerate(self._read(), 1):
            expected = next(inputs, None)
            if expected is None:
                raise self._foreign(f"it has more rows than the {self._inputs.total} inputs")
            name = shown(expected.name)
            if known.file != name:
                raise self._foreign(f"its row {count} is about {known.file}, but input {count} is {name}")
            if known.model != self._model:
                raise self._foreign(f"its row {count} is from the model {known.model}, not {self._model}")
            sample.add(count, expected, known)
            unreadable += known.error is not None
            first_error = first_error or known.first_error
            accepted += known.accepted
            if count % CHUNK == 0 or count == self._inputs.total:
                kept = _Kept(count, size, unreadable, first_error, accepted)
        # Another model may have the same name and version, and other pictures the same names.
        if changed := sample.first_changed(self._recognise):
            number, file = changed
            raise self._foreign(f"its row {number} is not what {self._model} says about {file} now")
        return kept

    def _recognise(self, pictures: Sequence[Input]) -> list[Row]:
        from serving.batch.predictor import Predictor

        return Predictor(self._job).rows(pictures)

    def _foreign(self, reason: str) -> ResultsError:
        return ResultsError(
            f"{self._source} has other results: {reason}; choose another --output, or remove the file to start again"
        )

    def _read(self) -> Iterator[tuple[Known, int]]:
        """Yield each whole row in the file, and the size of the file up to its end."""
        self._file.seek(0)
        row_start = b"" if self._is_csv else _JSON_START
        size = 0
        # The bytes of a long name that are no text take four characters each.
        csv.field_size_limit(MAX_ROW)
        with open(self._file.fileno(), "rb", closefd=False) as file:
            for number, record in enumerate(_records(file, self._is_csv)):
                is_header = self._is_csv and number == 0
                start = CSV_HEADER if is_header else row_start
                if len(record) > MAX_ROW or not (record.startswith(start) or start.startswith(record)):
                    raise self._foreign(NOT_OURS)
                if not record.endswith(b"\n"):
                    return
                size += len(record)
                if not is_header:
                    yield self._parse(record), size

    def _parse(self, record: bytes) -> Known:
        try:
            if not self._is_csv:
                return msgspec.json.decode(record, type=Known)
            [values] = csv.reader([record.decode()])
            row = dict(zip(CSV_COLUMNS, values, strict=True))
            texts = {column: row[column] or None for column in ("error", "model", "label", "reason")}
            return Known(file=row["file"], confidence=float(row["confidence"] or 0), **texts)
        except (ValueError, RecursionError, msgspec.MsgspecError, csv.Error) as error:
            raise self._foreign(NOT_OURS) from error


def _records(file: BinaryIO, is_csv: bool) -> Iterator[bytes]:
    """Yield the lines of a file. A record of CSV goes on while a quote is open: a name may have line breaks."""
    record = b""
    while line := file.readline(MAX_ROW + 1):
        record += line
        if is_csv and record.count(b'"') % 2 and len(record) <= MAX_ROW:
            continue
        yield record
        record = b""
    if record:
        # The file ends within a record, perhaps after a line break in a name. Only whole records end with one.
        yield record.removesuffix(b"\n")
