"""Calls that wait for their messages: how many may wait, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from tests.serving.grpc import door  # noqa: F401 (first: skips without gRPC)

from serving.errors import DeadlineExceededError, OverloadedError  # isort: skip
from serving.grpc import receiving
from serving.grpc.receiving import MOST, Receiving


class Context:
    """A call whose message arrives when ``send`` is called."""

    def __init__(self):
        self._message = asyncio.get_running_loop().create_future()
        self.send = self._message.set_result

    async def read(self):
        return await self._message


async def waiting(calls, count):
    """Return this many contexts and tasks of calls that wait for their messages."""
    contexts = [Context() for _ in range(count)]
    tasks = [asyncio.create_task(calls.message(context)) for context in contexts]
    await asyncio.sleep(0)
    return contexts, tasks


def test_call_beyond_the_most_is_rejected_until_another_has_its_message():
    async def test():
        calls = Receiving(1, 600)
        contexts, tasks = await waiting(calls, MOST)
        with pytest.raises(OverloadedError):
            await calls.message(Context())
        contexts[0].send(b"first")
        assert await tasks[0] == b"first"
        late = Context()
        late.send(b"late")
        assert await calls.message(late) == b"late"
        for task in tasks:
            task.cancel()

    asyncio.run(test())


def test_call_that_has_waited_longest_ends_for_a_new_one(monkeypatch):
    async def test():
        calls = Receiving(2, 600)
        contexts, [first, second] = await waiting(calls, 2)
        monkeypatch.setattr(receiving, "PATIENCE", 0)
        new = Context()
        third = asyncio.create_task(calls.message(new))
        with pytest.raises(DeadlineExceededError):
            await first
        new.send(b"new")
        contexts[1].send(b"second")
        assert await asyncio.gather(second, third) == [b"second", b"new"]

    asyncio.run(test())


def test_client_that_takes_too_long_is_told():
    async def test():
        with pytest.raises(DeadlineExceededError, match="did not arrive in time"):
            await Receiving(1, 0.01).message(Context())

    asyncio.run(test())
