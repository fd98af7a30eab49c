"""The base of the commands mnist-train and mnist-export: how they end at a signal, and how they print."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from training.reasons import first_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A device, such as /dev/stdout, has none.
PNG_SUFFIXES = (".png", "")


class Stopped(KeyboardInterrupt):
    """The process got one of SIGNALS. Its ``status`` is the exit status that shells expect."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class _Ending(click.Command):
    """What commands have in common: they end at a signal with one line, and need no working output."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run as a program. The process ends at once, because Python takes up to a second to remove torch's objects."""
        try:
            return super().__call__(*arguments, **options)
        except SystemExit as end:
            # An output that nobody reads any longer is left to Python.
            with suppress(OSError):
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.flush()
                if isinstance(end.code, int):
                    os._exit(end.code)
            raise

    def main(self, *arguments: Any, **options: Any) -> Any:
        _open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            # A path may have characters that the terminal cannot show.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        stops: list[Stopped] = []

        def stop(number: int, _: FrameType | None) -> None:
            stops.append(Stopped(number))
            raise stops[-1]

        _on_signals(stop)
        try:
            return super().invoke(context)
        except Exception as error:
            # torch may turn the exception of a signal into one of its own.
            if stops:
                _say_stopped(stops[-1])
            if not isinstance(error, click.ClickException):
                raise
            vars(error)["message"] = readable(error.message, sys.argv[1:])
            # torchrun starts several processes with the same flags. One of them on each machine names the mistake.
            if is_first_of_machine():
                raise
            sys.exit(error.exit_code)
        except KeyboardInterrupt as error:
            _say_stopped(error)


class Command(_Ending):
    """A command that ends at Ctrl-C and SIGTERM with one line, and works although its output is closed or odd."""


class Group(_Ending, click.Group):
    """The same for a command that has commands of its own, and also does its work without one of them."""


class Place(click.Path):
    """A path. ``~`` stands for the home folder, as in a shell."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        # An empty name comes from an unset variable of a shell, and would stand for the current folder.
        if not str(value):
            self.fail("must not be empty", param, ctx)
        try:
            return super().convert(Path(value).expanduser(), param, ctx)
        except (RuntimeError, ValueError, OSError) as error:
            self.fail(f"{str(value)!r}: {getattr(error, 'strerror', None) or error}", param, ctx)


class Folder(Place):
    """A path of a folder."""

    def __init__(self) -> None:
        super().__init__(file_okay=False)


class PngFile(Place):
    """A path of a file that gets a PNG. A viewer would believe another suffix, and show nothing."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        if path.suffix.lower() not in PNG_SUFFIXES:
            self.fail(f"{str(path)!r}: gets a PNG; name it {str(path.with_suffix('.png'))!r}", param, ctx)
        return path


def readable(message: str, arguments: Sequence[str]) -> str:
    """Return a message with an escape for each control character that comes from the command line.

    Otherwise a name with a line break would make several lines of an error.
    """
    for part in {part for argument in arguments for part in re.split("[/=]", argument)}:
        if part.strip() and not part.isprintable():
            escaped = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in part)
            message = message.replace(part, escaped)
    return message


def is_speaker() -> bool:
    """Return whether this process prints: without torchrun always, with it in the first process only."""
    return _is_first("RANK")


def is_first_of_machine() -> bool:
    """Return whether this is the first process that torchrun started on this machine, or torchrun started none."""
    return _is_first("LOCAL_RANK")


def is_one_of_several() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _is_first(rank: str) -> bool:
    return not is_one_of_several() or os.environ[rank] == "0"


def leave(stop: KeyboardInterrupt) -> NoReturn:
    """End the process with the status of the signal."""
    status = stop.status if isinstance(stop, Stopped) else 128 + signal.SIGINT
    if is_one_of_several():
        # The threads of a process group abort the process while Python ends.
        os._exit(status)
    sys.exit(status)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at a signal, without an exception, while the block runs.

    This is for imports: an exception that a signal raises inside an import of numpy or torch may get lost, and then
    the process would go on.
    """
    before = _on_signals(_end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_signals(handler: Any) -> dict[int, Any]:
    """Set the handler of SIGNALS, except of those that this process was started to ignore. Return the old ones."""
    try:
        return {
            number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN
        }
    except ValueError:  # Only the main thread may do this.
        return {}


def _say_stopped(stop: KeyboardInterrupt) -> NoReturn:
    if is_speaker():
        click.echo("\nStopped.", err=True)
    leave(stop)


def _end(number: int, _: FrameType | None) -> None:
    if is_speaker():
        os.write(2, b"\nStopped.\n")
    os._exit(128 + number)


def _open_standard_streams() -> None:
    """Open /dev/null as each standard stream that is closed. Otherwise the next file would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # The system takes the lowest free number.


@contextmanager
def naming_what_is_missing(command: str) -> Iterator[None]:
    """Turn the error of an import in the block into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{command} needs {error.name}, which is not installed; "
            f"run `make setup` in the source folder of this project, and use .venv/bin/{command}"
        ) from error
    except (ImportError, OSError, MemoryError) as error:
        raise click.ClickException(f"{command} cannot load what it needs: {first_line(error)}") from error


def print_output(text: str) -> None:
    """Print lines to standard output. It is no error if nobody reads them any longer."""
    try:
        click.echo(text)
    except OSError:
        abandon_output()


def abandon_output() -> None:
    """Drop what standard output did not take, because it would fail again at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
