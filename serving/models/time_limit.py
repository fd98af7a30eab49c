"""A time limit for runs of a session whose graph nobody has vouched for yet: it may contain an endless loop."""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

# Seconds that the end of the process waits for the runs that it ends.
EXIT_SECONDS = 2.0
CHECK_SECONDS = 0.05


class RunOptions(Protocol):
    """The part of onnxruntime's RunOptions that ends a run: between two operators, and in each turn of a loop."""

    terminate: bool


_running: set[RunOptions] = set()
_process_ends = threading.Event()


@contextmanager
def time_limit(options: RunOptions, seconds: float) -> Iterator[None]:
    """End the runs with these options inside the ``with`` statement after ``seconds`` of this thread's CPU time.

    A machine with much other work makes a good model slow, but it does not make it need more CPU time.

    Raises:
        TimeoutError: a run was ended.
    """
    clock = time.pthread_getcpuclockid(threading.get_ident()) if sys.platform == "linux" else time.CLOCK_MONOTONIC
    end = time.clock_gettime(clock) + seconds
    finished = threading.Event()

    def watch() -> None:
        with suppress(OSError):  # The clock goes with its thread, which has finished then.
            while not finished.wait(CHECK_SECONDS):
                if time.clock_gettime(clock) > end:
                    options.terminate = True
                    return

    options.terminate = _process_ends.is_set()
    _running.add(options)
    threading.Thread(target=watch, name="time limit", daemon=True).start()
    try:
        yield
    except Exception as error:
        if options.terminate:
            raise TimeoutError(f"it did not finish its verification within {seconds:g} seconds") from error
        raise
    finally:
        finished.set()
        _running.discard(options)


@atexit.register
def _end_runs() -> None:
    """End all runs. onnxruntime would abort a process that ends while a daemon thread runs a session."""
    _process_ends.set()
    end = time.monotonic() + EXIT_SECONDS
    while _running and time.monotonic() < end:
        for options in list(_running):
            options.terminate = True
        time.sleep(0.01)
