"""Recognise pictures from beginning to end: inputs -> engine -> standard output or a file of results."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

import msgspec

from serving.batch import local
from serving.batch.inputs import Input, Inputs, shown
from serving.batch.job import Job, labels_of, newest_version
from serving.batch.progress import Progress
from serving.batch.results import SUFFIXES, WAY_OUT, Results, form_of
from serving.batch.rows import Form, Json, Rows, Table
from serving.errors import InputsError, SettingsError, printable
from serving.machine import usable_cores

# The column with the names is as wide as the longest of this many names.
NAMES_FOR_WIDTH = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    repository: Path
    model: str
    output: Path | None
    as_json: bool
    as_numbers: bool = False
    engine: str
    workers: int
    ray_address: str | None

    def check(self) -> None:
        """Check what can be checked before any picture is read.

        Raises:
            SettingsError: an option breaks its rule.
        """
        if self.ray_address and self.engine != "ray":
            raise SettingsError(f"--ray-address {self.ray_address}: needs --engine ray")
        if self.as_numbers and (self.output or self.engine == "ray"):
            raise SettingsError("--number: writes to standard output, in one process; leave out --output and --engine")
        if self.engine == "ray" and importlib.util.find_spec("ray") is None:
            raise SettingsError("--engine ray: needs Ray; install it with: pip install 'ray[data]'")
        if self.output is None:
            return
        suffix = self.output.suffix.lower()
        if self.as_json:
            raise SettingsError("--json: is for standard output; choose an --output that ends with .jsonl instead")
        if suffix not in SUFFIXES:
            raise SettingsError(f"--output {self.output}: must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
            raise SettingsError(
                f"--output {self.output}: needs pyarrow; install it with: pip install pyarrow, or choose .csv or .jsonl"
            )
        try:
            has_folder, is_folder = self.output.parent.is_dir(), self.output.is_dir()
        except OSError as error:
            raise SettingsError(f"--output {self.output}: {error.strerror}; {WAY_OUT}") from error
        if not has_folder:
            raise SettingsError(f"--output {self.output}: the folder {self.output.parent} must exist")
        if is_folder:
            raise SettingsError(f"--output {self.output}: must be a file, not a folder")


@dataclass
class Outcome:
    """What a run did."""

    rows: int = 0
    unreadable: int = 0
    first_error: str = ""
    """The first file that could not be read, and why."""
    rate: float = 0
    left_out: int = 0
    accepted: int = 0
    """Rows whose prediction is accepted, in a file of results."""


def predict(arguments: Iterable[str], options: Options, write: Callable[[bytes], None]) -> Outcome:
    """Recognise every picture that the arguments name.

    Args:
        write: writes to standard output. It is not called if there is a file of results.

    Raises:
        BundleError: the model cannot be loaded or verified.
        InputsError: the names of the pictures cannot be kept, or the current folder was removed.
        ResultsError: the file of results cannot be used.
        WorkerError: a process cannot start.
    """
    with Progress(_progress_stream(options)) as progress:
        stdin: BinaryIO = sys.stdin.buffer if sys.stdin else io.BytesIO()  # None if it is closed
        with Inputs(arguments, stdin, progress.found, options.output) as inputs:
            if options.as_numbers:
                return _numbers_to_stdout(inputs, options, write)
            if options.output is None:
                return _to_stdout(inputs, options, write, progress)
            return _to_file(options.output, inputs, options, progress)


def _to_file(path: Path, inputs: Inputs, options: Options, progress: Progress) -> Outcome:
    version = newest_version(options.repository, options.model)
    job = _job(options, version, form_of(path), inputs)
    with Results(path, inputs, job) as results:
        with closing(_rows(inputs, results.rows, job, options, progress)) as chunks:
            for rows in chunks:
                results.add(rows)
        results.finish()
        return Outcome(
            results.rows,
            results.unreadable,
            results.first_error,
            progress.rate,
            inputs.left_out,
            results.accepted,
        )


def _to_stdout(inputs: Inputs, options: Options, write: Callable[[bytes], None], progress: Progress) -> Outcome:
    version = newest_version(options.repository, options.model)
    form: Form
    if options.as_json:
        form, between = Json(), b",\n"
        model = msgspec.json.encode({"name": shown(options.model), "version": str(version)})
        head = b'{"model": %b, "predictions": [\n' % model
        tail = b"\n]}\n"
    else:
        form = Table.of(_width_of_names(inputs), labels_of(options.repository, options.model, version))
        head, between, tail = f"{form.header()}\n".encode(), b"", b""
    outcome = Outcome(left_out=inputs.left_out)
    job = _job(options, version, form, inputs)
    with closing(_rows(inputs, 0, job, options, progress)) as chunks:
        for rows in chunks:
            write((head if not outcome.rows else between) + between.join(rows.encoded))
            outcome.rows += len(rows.encoded)
            outcome.unreadable += rows.unreadable
            outcome.first_error = outcome.first_error or rows.first_error
    write(tail)
    outcome.rate = progress.rate
    return outcome


def _numbers_to_stdout(inputs: Inputs, options: Options, write: Callable[[bytes], None]) -> Outcome:
    from serving.batch import numbers

    outcome = Outcome(left_out=inputs.left_out)
    found = numbers.Numbers(options.repository, options.model, inputs)
    write_all = numbers.print_json if options.as_json else partial(numbers.print_table, width=_width_of_names(inputs))
    for file, error in write_all(found, write=write):
        outcome.unreadable += 1
        outcome.first_error = outcome.first_error or f"{file}: {error}"
    return outcome


def _width_of_names(inputs: Inputs) -> int:
    names = [printable(shown(name)) for name in inputs.first_names(NAMES_FOR_WIDTH)]
    return max(len("file"), *map(len, names))


def _job(options: Options, version: int, form: Form, inputs: Inputs) -> Job:
    try:
        folder = str(Path.cwd())
    except FileNotFoundError as error:
        raise InputsError("the current folder was removed; change to another one first") from error
    return Job(options.repository, options.model, version, form, folder, inputs.picture)


def _rows(inputs: Inputs, done: int, job: Job, options: Options, progress: Progress) -> Generator[Rows]:
    """Yield the rows of all chunks after the first ``done`` inputs."""
    if done == inputs.total:
        return
    run: Callable[[Job, Iterable[list[Input]]], Generator[Rows]]
    if options.engine == "ray":
        from serving.batch import ray_engine

        run = partial(ray_engine.predict, address=options.ray_address)
    else:
        run = partial(local.predict, workers=options.workers)
    progress.begin(inputs.total, done)
    # The processes of the engine end with the loop, also after an exception.
    with closing(run(job, inputs.chunks(done))) as chunks:
        for rows in chunks:
            yield rows
            progress.advance(len(rows.encoded))


def _progress_stream(options: Options) -> TextIO | None:
    """Return where to show progress. Rows on a terminal are progress enough."""
    shows_rows = options.output is None and sys.stdout is not None and sys.stdout.isatty()
    return None if shows_rows else sys.stderr


def default_workers() -> int:
    """Return the number of whole cores that this process may use, in a container too. Each worker takes 100 MB."""
    return max(1, int(usable_cores()))
