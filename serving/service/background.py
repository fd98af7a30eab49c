"""Background work: threads for which the process does not wait at its end, and tasks that go on after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from serving.errors import ModelUnavailableError, OverloadedError
from serving.inference.threads import lower_priority, to_its_end, turn
from serving.telemetry.recorder import Recorder

# Seconds for which the application waits, at its end, for work that has begun.
STOP_SECONDS = 1.0
# Seconds that a change of the repository waits for the one before it.
LOCK_SECONDS = 30.0

FAILED = "the background task %r failed"

T = TypeVar("T")

log = logging.getLogger("serving")


async def on_own_thread(work: Callable[[], T]) -> T:
    """Do ``work`` on a thread of its own, of low priority, and return its result.

    A hung network disk can stop a thread for ever. A thread of a pool would then be missing for other work, and the
    process would not end, because it waits for the threads of its pools.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not future.done():  # It was cancelled if nobody waits any more.
            set_outcome(outcome)

    def deliver(set_outcome: Callable[[Any], None], outcome: object) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop was closed before the work ended.
            loop.call_soon_threadsafe(settle, set_outcome, outcome)

    def run() -> None:
        lower_priority()
        try:
            try:
                result = context.run(work)
            except StopIteration as error:  # A future does not take this exception, so nobody would get it.
                raise RuntimeError("background work raised StopIteration") from error
        except BaseException as error:
            deliver(future.set_exception, error)
        else:
            deliver(future.set_result, result)

    context = contextvars.copy_context()
    threading.Thread(target=run, name="background", daemon=True).start()
    return await future


class SerialQueue:
    """Does work on threads, one after another. Only ``limit`` calls may have work to do or wait for it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls = 0
        self._lock = asyncio.Lock()

    async def do(self, work: Callable[[], T], deadline: float) -> T:
        """Do ``work`` on a thread of its own and return its result.

        Raises:
            OverloadedError: too many calls wait, or others have not finished before the deadline, in the time of
                ``time.monotonic``.
        """
        if self._calls >= self._limit:
            raise OverloadedError
        self._calls += 1
        try:
            async with turn(self._lock, deadline, OverloadedError):
                return await to_its_end(asyncio.create_task(on_own_thread(work)))
        finally:
            self._calls -= 1


class RepositoryLock:
    """A lock for ``with``. Waiting for it ends after ``LOCK_SECONDS``, because its holder may wait for a hung disk.

    Raises:
        ModelUnavailableError: another thread has held it for that long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise ModelUnavailableError(
                f"the repository cannot be read: its scan has not ended for {LOCK_SECONDS:g} seconds; try again later"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@asynccontextmanager
async def repeated(
    task: str, seconds: float, work: Callable[[], Awaitable[None]], recorder: Recorder
) -> AsyncIterator[None]:
    """Do ``work`` every ``seconds`` inside the ``async with`` statement. If it fails, it is still repeated.

    Args:
        task: the name of the work in the log and in the metrics.
    """
    stop = asyncio.Event()

    async def repeat() -> None:
        is_failing = False
        while not await _happens(stop, seconds):
            problem = None if is_failing else f"{FAILED}; it is tried again"
            is_failing = not await attempt(task, work, recorder, problem)

    running = asyncio.create_task(repeat())
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait({running}, timeout=STOP_SECONDS)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def attempt(
    task: str, work: Callable[[], Awaitable[None]], recorder: Recorder, problem: str | None = FAILED
) -> bool:
    """Do ``work`` and return True. If it fails, count that, log the ``problem`` if there is one, and return False."""
    try:
        await work()
    except Exception:
        if problem:
            log.exception(problem, task)
        with contextlib.suppress(Exception):  # The metrics themselves may be what fails.
            recorder.background_failed(task)
        return False
    return True


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event for at most ``seconds``. Return whether it happened."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
