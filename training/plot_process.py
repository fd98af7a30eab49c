"""Draw plots in a process of their own, while this one goes on.

The process starts early, so that it imports matplotlib while this process imports torch. It reads calls of functions of
:mod:`training.plots` from its standard input and ends with that input.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import tempfile
from typing import Any, BinaryIO, Self, cast

from training.memory import no_garbage_collection
from training.own_module import start_module


class PlotProcess:
    """A process that draws plots. Leaving the ``with`` block ends it, finished or not.

    Raises:
        OSError: a plot could not be written (from :meth:`finish`).
    """

    def __init__(self) -> None:
        # No pipe: matplotlib warns of each letter that its font lacks, and would wait when the pipe is full.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = start_module(__name__, stdin=subprocess.PIPE, stderr=self._errors)

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
        """Wait until every plot is drawn."""
        self._process.communicate()
        if self._process.returncode:
            self._errors.seek(0)
            reason = self._errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["it was killed"]
            raise OSError(f"the plots could not be drawn: {reason[0]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()


def main() -> None:
    """Draw what standard input says."""
    with no_garbage_collection():
        from matplotlib.backends import backend_agg  # noqa: F401 (imported now, because this process has time now)

        from training import plots

    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 (from the parent process)
        except EOFError:
            return
        getattr(plots, function)(*arguments)


if __name__ == "__main__":
    main()
