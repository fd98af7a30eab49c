"""Threads for large requests, so that requests with a single image do not wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from serving.errors import OverloadedError

# A body of more bytes than this is decoded on a thread. For a smaller body, switching to a thread would take as long as
# the work.
INLINE_BYTES = 16_384

# Number of these threads in one worker process.
THREADS = 2
# Added to the niceness of these threads, so that the event loop with the small requests runs first.
NICENESS = 10

T = TypeVar("T")


class ThreadPool:
    """A few threads of low priority for a limited number of large requests, used from one event loop.

    Args:
        limit: the largest number of large requests. If it is smaller than the limit of all requests in flight, large
            requests leave places for small ones.
    """

    def __init__(self, limit: int) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "large", initializer=lower_priority)
        # Work waits here and not in the queue of the executor, where work of cancelled calls would stay.
        self._free = asyncio.Semaphore(THREADS)
        self._limit = limit
        self._requests = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place among the large requests inside the ``with`` statement.

        Raises:
            OverloadedError: there are too many large requests.
        """
        if self._requests >= self._limit:
            raise OverloadedError
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def do(self, work: Callable[[], T]) -> T:
        """Do ``work`` on a thread and return its result. The request must have a place already.

        If the caller is cancelled, work that waits is dropped, and work that runs keeps the caller until it ends.
        """
        async with self._free:
            return await to_its_end(asyncio.get_running_loop().run_in_executor(self._threads, work))

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` for a large request on a thread and return its result.

        Raises:
            OverloadedError: there are too many large requests.
        """
        with self.place():
            return await self.do(work)

    async def run_by_size(self, work: Callable[[], T], size: int) -> T:
        """Do ``work`` on a body of ``size`` bytes: on a thread if the body is large, otherwise at once.

        Raises:
            OverloadedError: the body is large, and there are too many large requests.
        """
        return await self.run(work) if size > INLINE_BYTES else work()


async def to_its_end(running: asyncio.Future[T]) -> T:
    """Return the result of running work. A caller that is cancelled goes on only when the work has ended.

    So its places and locks are taken for as long as the work needs a thread and memory. Otherwise a client could cancel
    one call after another, and have any number of them running. A second cancellation, which only the end of the
    process causes, ends the wait.
    """
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        # asyncio logs an exception that nobody takes.
        running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait([running])
        raise
    try:
        return running.result()
    finally:
        # An exception refers to this frame and to what it used, and the future to the exception. Without this line, all
        # of it stays in memory until a garbage collection.
        del running


@asynccontextmanager
async def turn(lock: asyncio.Lock, deadline: float, too_late: Callable[[], Exception]) -> AsyncIterator[None]:
    """Hold ``lock`` inside the ``async with`` statement.

    Raises:
        What ``too_late`` returns: the deadline, in the time of ``time.monotonic``, passes before.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            await lock.acquire()
    except TimeoutError as error:
        raise too_late() from error
    try:
        yield
    finally:
        lock.release()


def lower_priority() -> None:
    """Let the event loop run before this thread."""
    # On Linux each thread has its own niceness. On other systems the niceness belongs to the whole process.
    with contextlib.suppress(OSError, AttributeError):
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
