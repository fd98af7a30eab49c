"""Calls over gRPC take part in a rollout as requests over HTTP do."""

from __future__ import annotations

import asyncio

import pytest

from tests.serving.grpc.door import door, infer_request, random_images  # first: skips without gRPC

from tests.serving.models.bundles import publish  # isort: skip


@pytest.mark.parametrize(("canary", "responds"), [(0.0, "1"), (1.0, "2")])
@pytest.mark.parametrize("count", [1, 70])
def test_calls_are_routed_and_compared(models, canary, responds, count):
    images = random_images(count)

    async def steps():
        async with door(repository=models, rollout=True, canary=canary) as (client, service):
            publish(models, 2, labels=list("abcdefghij"))
            service.scan()
            response = await client.call("ModelInfer", **infer_request(images, typed=True))
            named = await client.call("ModelInfer", **infer_request(images, model_version="1"))
            assert (response.model_version, named.model_version) == (responds, "1")
            while True:
                report = await asyncio.to_thread(service.report_rollout, "mnist")
                if report.compared:
                    return report

    report = asyncio.run(asyncio.wait_for(steps(), 60))
    assert (report.stable, report.candidate, report.compared, report.disagreements) == ("1", "2", count, count)
    assert report.sample[0]["stable"]["label"] in "0123456789"
    assert report.sample[0]["request_id"]
