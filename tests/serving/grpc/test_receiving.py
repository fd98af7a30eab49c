"""Calls that wait for their messages: how many may wait, and for how long."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.serving.grpc.door import door  # first: skips without gRPC

import grpc  # isort: skip
from serving.errors import DeadlineExceededError, OverloadedError  # isort: skip
from serving.grpc import receiving, reflection
from serving.grpc.receiving import Receiving, limit_of
from serving.settings import Settings


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


def test_call_beyond_all_places_ends_the_first_new_one(monkeypatch):
    monkeypatch.setattr(receiving, "MAX_NEW", 2)
    monkeypatch.setattr(receiving, "GLANCE", 600)

    async def test():
        calls = Receiving(1, 600)
        contexts, tasks = await waiting(calls, 4)
        late = Context()
        late.send(b"late")
        assert await calls.message(late) == b"late"
        with pytest.raises(OverloadedError):
            await tasks[2]
        # The one that may wait for long, the one that may wait for a while, and the other new one still wait.
        others = [0, 1, 3]
        for number in others:
            contexts[number].send(b"message")
        assert await asyncio.gather(*(tasks[number] for number in others)) == [b"message"] * 3

    asyncio.run(test())


def test_messages_of_calls_that_may_wait_are_no_more_than_the_service_may_hold():
    assert limit_of(Settings(), 8) == Settings().max_held // Settings().max_body == 4
    assert limit_of(Settings(max_held=1), 8) == 1
    assert limit_of(Settings(max_body=1000), 8) == 8


def test_call_that_has_waited_longest_ends_for_a_new_one(monkeypatch):
    async def test():
        calls = Receiving(2, 600)
        contexts, [first, second] = await waiting(calls, 2)
        monkeypatch.setattr(receiving, "PATIENCE", 0)
        new = Context()
        third = asyncio.create_task(calls.message(new))
        with pytest.raises(OverloadedError):
            await first
        new.send(b"new")
        contexts[1].send(b"second")
        assert await asyncio.gather(second, third) == [b"second", b"new"]

    asyncio.run(test())


def test_new_call_gets_the_place_of_one_that_ends_at_the_same_time(monkeypatch):
    async def test():
        monkeypatch.setattr(receiving, "PATIENCE", 0)
        calls = Receiving(1, 0.01)
        _, [first] = await waiting(calls, 1)
        loop = asyncio.get_running_loop()
        new = Context()
        new.send(b"new")
        # Its task begins after the first call's time is over, and before the task of the first call goes on.
        found = loop.create_future()
        loop.call_soon(lambda: found.set_result(loop.create_task(calls.message(new))))
        time.sleep(0.02)
        assert await (await found) == b"new"
        calls.stop()
        with pytest.raises((DeadlineExceededError, OverloadedError)):
            await first

    asyncio.run(test())


def test_client_that_takes_too_long_is_told():
    async def test():
        with pytest.raises(DeadlineExceededError, match="did not arrive in time"):
            await Receiving(1, 0.01).message(Context())

    asyncio.run(test())


@pytest.mark.parametrize(
    "method", ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch", f"{reflection.NAME}/ServerReflectionInfo"]
)
def test_health_and_reflection_are_bounded_like_predictions(monkeypatch, method):
    monkeypatch.setattr(receiving, "PATIENCE", 0)

    async def test():
        async with door(max_held=1) as (client, _):
            open_call = client.channel.stream_stream(f"/{method}")
            first = open_call()
            while not client.server._receiving._long:
                await asyncio.sleep(0.001)
            second = open_call()  # It ends the first one, which has sent no message.
            assert await first.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            large = open_call()
            await large.write(bytes(receiving.MAX_SMALL + 1))
            assert await large.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await client.call("ServerLive")).live

    asyncio.run(asyncio.wait_for(test(), 15))
