"""Threads for large pieces of work, so that they do not keep single digits waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# A body of more bytes than this is decoded on a thread. For a smaller body the change of thread would cost as much
# as the work.
INLINE_BYTES = 16_384

# Large pieces of work at a time in one worker process.
THREADS = 2
# Added to the niceness of these threads, so that the event loop and its single digits go first.
NICENESS = 10

T = TypeVar("T")


class WorkerThreads:
    """A few threads of low priority."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "large", initializer=_lower_priority)

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` on a thread and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def run_by_size(self, work: Callable[[], T], size: int) -> T:
        """Do ``work`` on a body of ``size`` bytes: on a thread if the body is large, otherwise at once."""
        return await self.run(work) if size > INLINE_BYTES else work()


def _lower_priority() -> None:
    # On Linux each thread has a niceness of its own. On other systems it belongs to the whole process.
    with contextlib.suppress(OSError, AttributeError):
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
