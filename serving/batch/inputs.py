"""The pictures to recognise: files, folders, globs, lists of names, and standard input, in a fixed order."""

from __future__ import annotations

import codecs
import difflib
import glob
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from serving.errors import InputError, InputsError
from serving.pictures.signatures import MAX_FILE_BYTES, conversion_advice, is_picture, is_picture_name

STDIN = "-"
LIST_SUFFIX = ".txt"

# Pictures that are recognised together. The rows of an interrupted run are kept in whole chunks, so that the pictures
# of a chunk are the same in every run. The last bits of a probability may depend on them.
CHUNK = 32

# Bytes of the longest name in a list.
MAX_NAME_BYTES = 65_536
BLOCK = 65_536

# The names of a file of results, of its part, and of the hidden files beside it while it is written.
OUTPUTS = ("{}", "{}.part", ".{}.part", ".{}.old")

# Names between two reports of the number of names.
REPORT_NAMES = 10_000

# Files of a folder whose names are compared with a misspelt one, and how alike two names must be. Most end alike.
MAX_COMPARED, ALIKE = 1000, 0.8


class Input(NamedTuple):
    """A picture to recognise, or the reason why there is none."""

    name: str
    """The path of a file, or ``-`` for standard input."""
    error: str | None = None


class Inputs:
    """All pictures that the arguments of a command name. Their number is known, and their order stays the same.

    The names are in a temporary database of SQLite, which keeps large ones on disk and sorts folders there. So a
    million names take no memory.

    Args:
        arguments: names of files, folders, globs, lists (``*.txt``, one name per line), and ``-`` for standard input,
            which holds a picture or a list of names.
        stdin: standard input.
        found: is called with the number of names so far, now and then.
        output: the file of results. It is left out: a pattern or ``find`` sees it when the same command continues.

    Raises:
        InputsError: the temporary database cannot be written or read, or there is no input but the file of results.
    """

    def __init__(
        self,
        arguments: Iterable[str],
        stdin: BinaryIO,
        found: Callable[[int], None] = lambda number: None,
        output: Path | None = None,
    ) -> None:
        self.left_out = 0
        """Files in the folders that have no ending of a picture."""
        self.picture: bytes | None = None
        """The content of standard input, if it is a picture."""
        self._stdin = stdin
        self._found = found
        self._outputs = {form.format(output.name) for form in OUTPUTS} if output else set()
        self._output_folder = os.path.realpath(output.parent) if output else ""
        with _reported():
            # An empty name is a temporary database, which SQLite deletes by itself.
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.execute("CREATE TABLE inputs (number INTEGER PRIMARY KEY, name BLOB, error TEXT)")
            self._database.execute("CREATE TABLE folder (name BLOB, error TEXT)")
            self._database.execute("BEGIN")
            for argument in arguments:
                self._add(argument)
            self.total: int = self._database.execute("SELECT count(*) FROM inputs").fetchone()[0]
        if output and not self.total:
            raise InputsError(f"{output}: is the file of results; name the pictures")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the names."""
        self._database.close()

    def __iter__(self) -> Iterator[Input]:
        return self.since(0)

    def since(self, number: int) -> Iterator[Input]:
        """Yield the inputs after the first ``number`` inputs."""
        query = "SELECT name, error FROM inputs WHERE number > ? ORDER BY number"
        with _reported():
            for name, error in self._database.execute(query, [number]):
                yield Input(os.fsdecode(name), error)

    def chunks(self, number: int) -> Iterator[list[Input]]:
        """Yield the inputs after the first ``number`` inputs in lists of ``CHUNK``."""
        inputs = self.since(number)
        while chunk := list(islice(inputs, CHUNK)):
            yield chunk

    def first_names(self, number: int) -> list[str]:
        """Return the names of the first ``number`` inputs."""
        return [name for name, _ in islice(self, number)]

    def _add(self, argument: str) -> None:
        """Add at least one input for an argument, unless it is the file of results."""
        if argument == STDIN:
            try:
                self._add_stdin()
            except OSError as error:
                self._insert([Input(STDIN, error.strerror)])
        elif _is_folder(argument):
            self._add_sorted(_walk(argument, self._leave_out), Input(argument, "the folder holds no picture"))
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            self._add_sorted(_matches(argument), Input(argument, "no file has a name of this form"))
        elif argument.lower().endswith(LIST_SUFFIX):
            try:
                with Path(argument).open("rb") as file:
                    self._add_list(file, argument)
            except OSError as error:
                self._insert([Input(argument, error.strerror)])
            except ValueError as error:  # a zero byte in the name
                self._insert([Input(argument, str(error))])
        else:
            # An empty name comes from an unset variable.
            self._insert([Input(argument, None if argument else "the name is empty; name a picture")])

    def _add_stdin(self) -> None:
        beginning = self._stdin.read(BLOCK)
        if not (is_picture(beginning) or conversion_advice(beginning)):
            self._add_list(self._stdin, STDIN, beginning)
            return
        self.picture = beginning + self._stdin.read(MAX_FILE_BYTES - len(beginning) + 1)
        is_large = len(self.picture) > MAX_FILE_BYTES
        self._insert([Input(STDIN, f"it has more than {MAX_FILE_BYTES} bytes" if is_large else None)])

    def _add_list(self, file: BinaryIO, name: str, beginning: bytes = b"") -> None:
        try:
            if not self._insert(_names_in(file, beginning)):
                self._insert([Input(name, "the list of names is empty")])
        except InputError as error:
            self._insert([Input(name, str(error))])

    def _add_sorted(self, inputs: Iterable[Input], otherwise: Input) -> None:
        self._database.executemany("INSERT INTO folder VALUES (?, ?)", self._counted(inputs))
        added = self._database.execute("INSERT INTO inputs (name, error) SELECT name, error FROM folder ORDER BY name")
        if not added.rowcount:
            self._insert([otherwise])
        self._database.execute("DELETE FROM folder")

    def _insert(self, inputs: Iterable[Input]) -> int:
        """Add inputs and return their number."""
        rows = self._counted(inputs)
        return self._database.executemany("INSERT INTO inputs (name, error) VALUES (?, ?)", rows).rowcount

    def _counted(self, inputs: Iterable[Input]) -> Iterator[tuple[bytes, str | None]]:
        for number, (name, error) in enumerate(inputs, 1):
            if self._is_output(name):
                continue
            if number % REPORT_NAMES == 0:
                self._found(number)
            # A name may have bytes that are no text. They are kept as they are.
            yield os.fsencode(name), error

    def _leave_out(self, name: str) -> None:
        self.left_out += not self._is_output(name)

    def _is_output(self, name: str) -> bool:
        folder, base = os.path.split(name)
        return base in self._outputs and os.path.realpath(folder) == self._output_folder


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InputsError(
            f"the names of the pictures cannot be kept in a temporary file: {error}; "
            "free some space there, or name another folder with SQLITE_TMPDIR"
        ) from error


def similar_name(name: str) -> str:
    """Return the existing file that a missing one may be meant for, by its name; empty if there is none."""
    folder, base = os.path.split(name)
    if name == STDIN or os.path.lexists(name) or not os.path.isdir(folder or "."):  # noqa: PTH112
        return ""
    with suppress(OSError), os.scandir(folder or ".") as entries:
        names = [entry.name for entry in islice(entries, MAX_COMPARED)]
        return next((os.path.join(folder, near) for near in difflib.get_close_matches(base, names, 1, ALIKE)), "")  # noqa: PTH118
    return ""


def shown(name: str) -> str:
    r"""Return a file name as text. Bytes of the name that are not UTF-8 are written as ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_folder(name: str) -> bool:
    # For Path, the empty name is the current folder, and a name that is too long is an error.
    return os.path.isdir(name)  # noqa: PTH112


def _matches(pattern: str) -> Iterator[Input]:
    """Yield the files whose names have the form of ``pattern``."""
    # Path.glob takes no absolute patterns, and it changes names such as ./a.png.
    names = glob.iglob(pattern, recursive=True)  # noqa: PTH207
    return (Input(name) for name in names if not _is_folder(name))


def _walk(folder: str, leave_out: Callable[[str], None]) -> Iterator[Input]:
    """Yield the pictures in a folder and in the folders below. Hidden ones are skipped, and links to folders."""
    # A function that calls itself for each folder would not get to the bottom of a thousand of them.
    folders = [folder]
    while folders:
        folder = folders.pop()
        below = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
                    elif is_picture_name(entry.name):
                        # Also one of a format that cannot be read, which gets a row with an error.
                        yield Input(entry.path)
                    else:
                        leave_out(entry.path)  # A folder of scans often holds notes and thumbnails too.
        except OSError as error:
            yield Input(folder, error.strerror)
        folders += reversed(below)


def _names_in(file: BinaryIO, beginning: bytes) -> Iterator[Input]:
    """Yield the names in a list, one per line. If the list has zero bytes, as that of ``find -print0``, they end names.

    Raises:
        InputError: a name is far too long, or the file is in UTF-16, so it is no list of names.
    """
    rest = (beginning or file.read(BLOCK)).removeprefix(codecs.BOM_UTF8)
    # Without the mark at the beginning, the zero bytes beside a line break tell UTF-16.
    if rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0\n\0" in rest:
        raise InputError("not a list of names in UTF-8: it is in UTF-16, as PowerShell writes it; save it in UTF-8")
    separator = b"\0" if b"\0" in rest else b"\n"
    while True:
        *names, rest = rest.split(separator)
        for name in names:
            if name := _without_return(name, separator):
                yield Input(os.fsdecode(name))
        if len(rest) > MAX_NAME_BYTES:
            raise InputError(f"not a list of names: a line has more than {MAX_NAME_BYTES} bytes")
        block = file.read(BLOCK)
        if not block:
            break
        rest += block
    if rest := _without_return(rest, separator):
        yield Input(os.fsdecode(rest))


def _without_return(name: bytes, separator: bytes) -> bytes:
    """Return a line without the carriage return that Windows writes at its end."""
    return name.removesuffix(b"\r") if separator == b"\n" else name
