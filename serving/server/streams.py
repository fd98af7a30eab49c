"""Commands that work although their standard streams are closed or full."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from serving.errors import printable

# Errors of writing to a standard stream. EPIPE is missing, because click handles it.
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


class Command(click.Command):
    """A command that also works with closed or full standard streams."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        _open_standard_streams()
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            if error.errno not in WRITE_ERRORS:
                raise
            abandon_output()
            warn(f"Error: cannot write the output: {error.strerror}")
            sys.exit(1)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except click.ClickException as error:
            vars(error)["message"] = readable(error.message, sys.argv[1:])
            raise


class Group(Command, click.Group):
    """The same for a command that has commands of its own, and also does its work without one of them."""


def readable(message: str, arguments: Sequence[str]) -> str:
    """Return a message with an escape for each control character that comes from the command line.

    Otherwise a name with a line break would make several lines of an error.
    """
    for part in {part for argument in arguments for part in re.split("[/=]", argument)}:
        if part.strip() and not part.isprintable():
            escaped = printable(part)
            message = message.replace(part, escaped)
    return message


def warn(text: str) -> None:
    """Print a line to standard error, if it can be written."""
    try:
        click.echo(text, err=True)
    except OSError:
        abandon_output()


def print_output(text: str) -> None:
    """Print a line to standard output.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    click.echo(text)


def write_output(content: bytes) -> None:
    """Write lines of UTF-8 to standard output at once. Characters that it cannot show are escaped.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    text = content.decode().encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)
    sys.stdout.write(text)
    sys.stdout.flush()


def _open_standard_streams() -> None:
    """Open /dev/null as each standard stream that is closed.

    Otherwise the next socket or file would get the number of that stream. libuv aborts the process when a file with
    such a number is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # The system takes the lowest free number.


def abandon_output() -> None:
    """Drop what Python could not write, because it would fail again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


class Line:
    """A line on a terminal that shows what is being done. Nothing is shown where there is no terminal."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the line by ``text``; an empty text removes it."""
        if self._stream is None or not (text or self._width):
            return
        with contextlib.suppress(OSError):
            self._stream.write(f"\r{text.ljust(self._width)}" + ("" if text else "\r"))
            self._stream.flush()
        self._width = len(text)
