"""Threads for large requests."""

from __future__ import annotations

import asyncio
import threading

import pytest

from serving.errors import OverloadedError
from serving.inference.threads import INLINE_BYTES, ThreadPool


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
