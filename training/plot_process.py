"""Draw plots in a process of their own, while this one goes on.

The process starts early, so that it imports matplotlib while this process imports torch. It reads calls of functions of
:mod:`training.plots` from its standard input and ends with that input.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, Self, cast

from training.memory import no_garbage_collection
from training.own_module import start_module
from training.reasons import first_line


class PlotProcess:
    """A process that draws plots. Leaving the ``with`` block ends it, finished or not.

    Raises:
        OSError: a plot could not be written (from :meth:`finish`).
    """

    def __init__(self) -> None:
        # No pipe: matplotlib warns of each letter that its font lacks, and would wait when the pipe is full.
        self._errors = _scratch_file()
        self._process = start_module(__name__, stdin=subprocess.PIPE, stderr=self._errors or subprocess.DEVNULL)

    def draw(self, function: str, *arguments: Any) -> None:
        """Call the function of this name in :mod:`training.plots` with ``arguments``.

        This waits until the process has read them, but not until the plot is drawn.
        """
        pipe = cast("BinaryIO", self._process.stdin)
        # If the process has failed, finish() says why.
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((function, arguments), pipe)
            pipe.flush()

    def finish(self) -> None:
        """Wait until every plot is drawn. If one cannot be drawn, the others are."""
        self._process.communicate()
        if status := self._process.returncode:
            raise OSError(f"some plots could not be drawn: {self._reason(status)}")

    def _reason(self, status: int) -> str:
        if status < 0:  # Then the last line is at most a warning.
            return f"their process was killed by {signal.Signals(-status).name}"
        lines = []
        if self._errors:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"their process ended with status {status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        if self._errors:
            self._errors.close()


def _scratch_file() -> IO[bytes] | None:
    """Return an empty file, in memory or in a temporary folder. None if there is neither."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("plots"), "w+b")
    with contextlib.suppress(OSError):
        return tempfile.TemporaryFile()
    return None


def main() -> None:
    """Draw what standard input says. If some of it cannot be drawn, the last line of standard error is a reason."""
    os.environ["MPLBACKEND"] = "agg"  # That of the user may need a notebook or a window.
    with no_garbage_collection():
        from matplotlib.backends import backend_agg  # noqa: F401 (imported now, because this process has time now)

        from training import plots

    reasons = []
    for function, arguments in _calls():
        try:
            getattr(plots, function)(*arguments)
        except Exception as error:  # The other plots can be drawn all the same.
            reasons.append(f"{type(error).__name__}: {first_line(error)}")
    if reasons:
        sys.exit(reasons[0])


def _calls() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the name and the arguments of each call."""
    with contextlib.suppress(EOFError):
        while True:
            yield pickle.load(sys.stdin.buffer)  # noqa: S301 (from the parent process)


if __name__ == "__main__":
    main()
