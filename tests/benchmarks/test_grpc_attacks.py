"""Attacks over gRPC: the service ends their calls or connections, and good calls get right responses."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.serving.grpc.door import door  # first: skips without gRPC

from benchmarks.grpc_attacks import GRPC_ATTACKS, grpc_bystanders  # isort: skip
from serving.grpc import receiving, sending


@pytest.mark.parametrize("name", GRPC_ATTACKS)
def test_service_survives_the_attack_over_grpc(name, monkeypatch):
    for module in (receiving, sending):
        monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(sending, "MAX_UNREAD", 5)

    async def test():
        async with door(max_held=1) as (client, _):
            attack = dataclasses.replace(GRPC_ATTACKS[name], connections=2, calls=4)
            good = grpc_bystanders(client.server.port)
            tasks = [asyncio.create_task(each.stay(0)) for each in good]
            # On a busy machine, half a second may be too short for the first status. The whole test has a limit too.
            while not (await attack.run(client.server.port, attack.prepared(), 0.5)).statuses.total():
                pass
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(each.right and not each.wrong for each in good)
            assert (await client.call("ServerLive")).live

    asyncio.run(asyncio.wait_for(test(), 30))
