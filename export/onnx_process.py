"""Write the ONNX file in a process of its own, while this one writes and checks the TorchScript file.

torch takes longer to write an ONNX file than to check all files of a bundle, and it uses one core. The process starts
early, so that both import torch at the same time. It reads the arguments of :func:`export.onnx.export_onnx` from its
standard input.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from typing import Any, BinaryIO, Self, cast

from training.memory import no_garbage_collection
from training.own_module import start_module


class OnnxProcess:
    """A process that writes one ONNX file. Leaving the ``with`` block ends it, finished or not."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = start_module(__name__, **pipes)

    def begin(self, *arguments: Any) -> None:
        """Begin to write the file that ``arguments`` describe. This waits until the process has read them."""
        # If the process has failed, finish() says so.
        with contextlib.suppress(BrokenPipeError):
            pipe = cast("BinaryIO", self._process.stdin)
            pickle.dump(arguments, pipe)
            pipe.flush()

    def finish(self) -> bool:
        """Wait for the file, and return whether it is there. It is not if the process failed, for example was killed.

        Raises:
            OSError: the file could not be written.
        """
        try:
            error = pickle.load(cast("BinaryIO", self._process.stdout))  # noqa: S301 (from our own process)
        except (EOFError, pickle.UnpicklingError):
            return False
        if error:
            raise error
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def write(source: BinaryIO, outcome: BinaryIO) -> None:
    """Write the file that ``source`` describes, and tell ``outcome`` the error, or None."""
    with no_garbage_collection():
        from export.onnx import export_onnx

        try:
            arguments = pickle.load(source)  # noqa: S301 (from the parent process)
        except EOFError:  # The other process found nothing to export.
            return
        try:
            export_onnx(*arguments)
        except OSError as error:
            pickle.dump(error, outcome)
        else:
            pickle.dump(None, outcome)
        outcome.flush()


def main() -> None:
    """Write the file that standard input describes. Only the outcome goes to the true standard output."""
    outcome = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    write(sys.stdin.buffer, outcome)


if __name__ == "__main__":
    main()
