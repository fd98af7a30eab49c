"""Threads for large requests, so that requests with a single image do not wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# A body of more bytes than this is decoded on a thread. For a smaller body, switching to a thread would take as long as
# the work.
INLINE_BYTES = 16_384

# Number of these threads in one worker process.
THREADS = 2
# Added to the niceness of these threads, so that the event loop with the small requests runs first.
NICENESS = 10

T = TypeVar("T")


class ThreadPool:
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
    # On Linux each thread has its own niceness. On other systems the niceness belongs to the whole process.
    with contextlib.suppress(OSError, AttributeError):
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
