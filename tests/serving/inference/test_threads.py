"""Threads for large requests."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref

import pytest

from serving.errors import OverloadedError
from serving.inference.threads import INLINE_BYTES, THREADS, ThreadPool


def test_large_requests_beyond_the_limit_are_rejected_and_small_ones_are_not():
    async def steps():
        threads, release = ThreadPool(2), threading.Event()
        running = [asyncio.create_task(threads.run(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await threads.run(release.wait)
        with pytest.raises(OverloadedError):
            await threads.run_by_size(release.wait, INLINE_BYTES + 1)
        assert await threads.run_by_size(lambda: "small", INLINE_BYTES) == "small"
        release.set()
        await asyncio.gather(*running)
        # The places are free again.
        assert await threads.run_by_size(lambda: "large", INLINE_BYTES + 1) == "large"

    asyncio.run(steps())


def test_failed_work_frees_its_place():
    async def steps():
        threads = ThreadPool(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await threads.run(lambda: 1 / 0)

    asyncio.run(steps())


class Message:
    """What the work of one call keeps in memory."""


def test_cancelled_call_that_waits_leaves_nothing_and_one_that_runs_keeps_its_place():
    async def steps():
        threads, release, begun = ThreadPool(THREADS + 1), threading.Event(), threading.Semaphore(0)
        running = [
            asyncio.create_task(threads.run(lambda: begun.release() or release.wait(60))) for _ in range(THREADS)
        ]
        for _ in running:
            assert await asyncio.to_thread(begun.acquire, timeout=60)
        messages = []

        async def call():
            message = Message()
            messages.append(weakref.ref(message))
            await threads.run(lambda: message)

        for _ in range(20):
            waiting = asyncio.create_task(call())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            del waiting
        gc.collect()
        assert [each() for each in messages] == [None] * 20

        for call in running:
            call.cancel()
        await asyncio.wait(running, timeout=0)
        waiting = asyncio.create_task(threads.run(lambda: "free"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await threads.run(lambda: None)
        assert not any(each.done() for each in (*running, waiting))
        release.set()
        assert await waiting == "free"
        await asyncio.wait(running)
        assert all(each.cancelled() for each in running)

    asyncio.run(steps())


def test_failure_of_cancelled_work_is_no_error_of_the_service():
    errors = []

    async def steps():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        threads, release, begun = ThreadPool(1), threading.Event(), threading.Event()
        running = asyncio.create_task(threads.run(lambda: begun.set() or (release.wait(60) and 1 / 0)))
        assert await asyncio.to_thread(begun.wait, 60)
        running.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(steps())
    gc.collect()
    assert errors == []


def test_failed_work_leaves_nothing_that_waits_for_a_garbage_collection():
    def fail(message):
        raise ValueError(message)

    async def call(threads, message):
        with contextlib.suppress(ValueError):
            await threads.run(lambda: fail(message))

    async def steps():
        message = Message()
        reference = weakref.ref(message)
        threads = ThreadPool(1)
        await call(threads, message)
        del message
        threads._threads.shutdown()  # A thread keeps its work for a moment after it has reported the result.
        await asyncio.sleep(0)
        return reference()

    gc.disable()
    try:
        assert asyncio.run(steps()) is None
    finally:
        gc.enable()
