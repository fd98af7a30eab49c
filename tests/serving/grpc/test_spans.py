"""Calls over gRPC are traced like requests over HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import re

import pytest

from tests.serving.grpc.door import door, infer_request, random_images  # first: skips without gRPC

import grpc  # isort: skip
from serving.grpc.messages import SERVICE
from serving.telemetry.timing import STAGES
from tests.support import missing

if importlib.util.find_spec("opentelemetry") is None:
    missing("the packages of OpenTelemetry: make setup")
from tests.serving.telemetry.collector import attributes, collector

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = [("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"), ("tracestate", "vendor=1"), ("x-request-id", "order-7")]


def test_traced_call_is_a_span_with_its_stages_as_children_and_an_exemplar():
    async def calls(url):
        async with door(otlp_endpoint=url) as (client, service):
            await client.call("ModelInfer", SAMPLED, **infer_request(random_images(2)))
            metrics = service.recorder.openmetrics().decode()
            page = infer_request(random_images(1), parameters={"mode": {"string_param": "number"}})
            await client.call("ModelInfer", **page)
            for wrong in ({"timeout": {"int64_param": 1}}, {"mode": {"string_param": "poem"}}):
                with pytest.raises(grpc.aio.AioRpcError):
                    await client.call("ModelInfer", **infer_request(random_images(1), parameters=wrong))
            await client.call("ServerReady")  # Probes are not traced.
            await asyncio.to_thread(service.tracer.export)
            service.tracer.stop()
            return metrics

    with collector() as received:
        metrics = asyncio.run(calls(received.url))
    root, page, late, wrong = received.roots()
    assert (root.name, root.trace_id.hex(), root.parent_span_id.hex()) == (f"{SERVICE}/ModelInfer", TRACE_ID, SPAN_ID)
    assert root.trace_state == "vendor=1"
    found = attributes(root)
    assert found.pop("user_agent.original").startswith("grpc-python")
    assert found.pop("mnist.accepted") is not bool(found.pop("mnist.reasons", []))
    assert found == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/ModelInfer",
        "rpc.response.status_code": "OK",
        "mnist.request.id": "order-7",
        "mnist.model.name": "mnist",
        "mnist.model.version": "1",
        "mnist.images": 2,
    }
    assert [stage.name for stage in received.children(root)] == list(STAGES)
    assert attributes(received.children(root)[2]) == {"mnist.run.images": 2}
    assert "mnist.accepted" in attributes(page)
    ends = [(attributes(span)["rpc.response.status_code"], span.status.code) for span in (page, late, wrong)]
    assert ends == [("OK", 0), ("DEADLINE_EXCEEDED", 2), ("INVALID_ARGUMENT", 0)]
    assert attributes(late)["error.type"] == "DEADLINE_EXCEEDED"
    [line] = [line for line in metrics.splitlines() if TRACE_ID in line]
    assert re.match(rf'mnist_http_request_seconds_bucket{{.*route="/{SERVICE}/ModelInfer".*}} 1.0 # ', line)
