"""Calls over gRPC: predictions equal those over HTTP, and errors have the status codes that clients expect."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import httpx
import numpy as np
import pytest

from tests.serving.grpc.door import Client, door, infer_request, random_images  # first: skips without gRPC

import grpc  # isort: skip
from serving.grpc.calls import GrpcCall
from serving.grpc.infer import decode_typed
from serving.grpc.messages import REQUESTS, SERVICE
from tests.support import PIXELS, started

BLANK = np.zeros((1, 28, 28), np.uint8)
CODES = grpc.StatusCode
INFER = f"/{SERVICE}/ModelInfer"


@pytest.fixture(scope="module")
def addresses():
    # Room for all calls of a burst: on a busy machine more than the default 16 may be in flight, and would be rejected.
    with started("--grpc-port", 0, "--admin-keys", "key", "--max-concurrency", 400) as (addresses, _):
        yield addresses


@pytest.fixture(scope="module")
def client(addresses):
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        yield Client(channel)


def test_many_calls_at_once_on_one_connection_all_succeed(addresses):
    async def run():
        async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
            calls = [Client(channel).call("ModelInfer", **infer_request(BLANK)) for _ in range(400)]
            return {await each.code() for each in calls}

    assert asyncio.run(run()) == {CODES.OK}


def floats(response, name):
    """Return an output of a response as float32."""
    [index] = [i for i, output in enumerate(response.outputs) if output.name == name]
    output = response.outputs[index]
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[index], "<f4").reshape(output.shape)
    return np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)


def texts(response, index=0):
    """Return an output of texts. In raw form, each text follows its length."""
    if not response.raw_output_contents:
        return [text.decode() for text in response.outputs[index].contents.bytes_contents]
    content, found = response.raw_output_contents[index], []
    while content:
        size = int.from_bytes(content[:4], "little")
        found.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return found


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "raw"])
@pytest.mark.parametrize("count", [1, 70])
def test_probabilities_are_those_of_predict_bit_for_bit(addresses, client, typed, count):
    images = random_images(count)
    response = client.call("ModelInfer", **infer_request(images, typed=typed, id="7"))
    over_http = httpx.post(f"{addresses['http']}/predict", content=images.tobytes(), headers=PIXELS).json()
    expected = np.array([prediction["probabilities"] for prediction in over_http["predictions"]], np.float32)
    np.testing.assert_array_equal(floats(response, "probabilities"), expected)
    assert (response.model_name, response.model_version, response.id) == ("mnist", "1", "7")
    assert [output.name for output in response.outputs] == ["logits", "probabilities", "novelty"]


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "raw"])
def test_classification_gives_the_most_probable_classes(client, typed):
    output = {"name": "probabilities", "parameters": {"classification": {"int64_param": 2}}}
    response = client.call("ModelInfer", **infer_request(BLANK, typed=typed, outputs=[output]))
    [found] = response.outputs
    assert (found.datatype, found.shape) == ("BYTES", [1, 2])
    first, second = (float(text.split(":")[0]) for text in texts(response))
    assert first > second


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "raw"])
def test_number_mode_reads_pages(client, typed):
    page = np.full((1, 60, 90), 255, np.uint8)
    parameters = {"mode": {"string_param": "number"}}
    response = client.call("ModelInfer", **infer_request(page, typed=typed, parameters=parameters))
    assert [output.name for output in response.outputs] == ["text", "prediction"]
    assert texts(response) == [""]
    assert json.loads(texts(response, 1)[0])["accepted"] is False


def test_metadata_configuration_and_statistics_are_those_of_http(addresses, client):
    client.call("ModelInfer", **infer_request(BLANK))
    metadata = client.call("ModelMetadata", name="mnist")
    over_http = httpx.get(f"{addresses['http']}/v2/models/mnist").json()
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.outputs] == [
        (tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in over_http["outputs"]
    ]
    assert client.call("ModelConfig", name="mnist").config.max_batch_size == 1024
    [statistics] = client.call("ModelStatistics").model_stats
    assert statistics.inference_stats.success.count > 0
    assert client.call("ModelStatistics", name="mnist", version="1").model_stats[0].name == "mnist"
    assert client.call("ServerLive").live
    assert client.call("ServerReady").ready
    assert "statistics" in client.call("ServerMetadata").extensions


def test_id_and_times_come_back_and_the_call_is_counted(addresses, client):
    stub = client.channel.unary_unary(INFER, REQUESTS["ModelInfer"].SerializeToString)
    request = REQUESTS["ModelInfer"](**infer_request(BLANK))
    _, call = stub.with_call(request, metadata=[("x-request-id", "mine")])
    found = dict(call.trailing_metadata())
    assert found["x-request-id"] == "mine"
    assert found["server-timing"].startswith("decode;dur=")
    metrics = httpx.get(f"{addresses['http']}/metrics").text
    assert f'mnist_http_requests_total{{method="POST",route="{INFER}",status="200"}}' in metrics


def tensor(**fields):
    return {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]} | fields


RAW = {"raw_input_contents": [bytes(784)]}
REJECTED = {
    "unknown model": ({"model_name": "letters"}, CODES.NOT_FOUND, "no model 'letters'; choose one of mnist"),
    "unknown version": ({"model_version": "9"}, CODES.NOT_FOUND, "no version '9'; choose one of 1"),
    "no input": ({}, CODES.INVALID_ARGUMENT, "has 0 inputs"),
    "two inputs": ({"inputs": [tensor(), tensor()]}, CODES.INVALID_ARGUMENT, "has 2 inputs"),
    "other name": ({"inputs": [tensor(name="x")], **RAW}, CODES.INVALID_ARGUMENT, "exactly one input, 'images'"),
    "other type": ({"inputs": [tensor(datatype="FP32")], **RAW}, CODES.INVALID_ARGUMENT, "must be UINT8"),
    "other shape": ({"inputs": [tensor(shape=[1, 784])], **RAW}, CODES.INVALID_ARGUMENT, "must be [N, 28, 28]"),
    "no shape": ({"inputs": [tensor(shape=[])], **RAW}, CODES.INVALID_ARGUMENT, "must be [N, 28, 28]"),
    "huge shape": ({"inputs": [tensor(shape=[1 << 62, 28, 28])]}, CODES.INVALID_ARGUMENT, "must be at most 1024"),
    "negative shape": ({"inputs": [tensor(shape=[-1, 28, 28])]}, CODES.INVALID_ARGUMENT, "N at least 1"),
    "too many bytes": (
        {"inputs": [tensor()], "raw_input_contents": [bytes(785)]}, CODES.INVALID_ARGUMENT, "raw_input_contents has 785"
    ),
    "two contents": (
        {"inputs": [tensor()], "raw_input_contents": [bytes(784)] * 2}, CODES.INVALID_ARGUMENT, "has 2 entries"
    ),
    "both forms": ({"inputs": [tensor(contents={})], **RAW}, CODES.INVALID_ARGUMENT, "not both"),
    "too few numbers": (
        {"inputs": [tensor(contents={"uint_contents": [0] * 783})]}, CODES.INVALID_ARGUMENT, "uint_contents has 783"
    ),
    "other contents": (
        {"inputs": [tensor(contents={"int_contents": [0] * 784})]}, CODES.INVALID_ARGUMENT, "uint_contents has 0"
    ),
    "number out of range": (
        {"inputs": [tensor(contents={"uint_contents": [256] * 784})]}, CODES.INVALID_ARGUMENT, "must be in 0..255"
    ),
    "unknown output": (
        {"inputs": [tensor()], **RAW, "outputs": [{"name": "x"}]}, CODES.INVALID_ARGUMENT, "must be one of logits"
    ),
    "long id": ({"inputs": [tensor()], **RAW, "id": "x" * 1025}, CODES.INVALID_ARGUMENT, "1025 characters"),
    "other mode": (
        {"inputs": [tensor()], **RAW, "parameters": {"mode": {"string_param": "x"}}}, CODES.INVALID_ARGUMENT, "mode 'x'"
    ),
    "other timeout": (
        {"inputs": [tensor()], **RAW, "parameters": {"timeout": {"string_param": "x"}}},
        CODES.INVALID_ARGUMENT,
        "timeout 'x': must be a number",
    ),
    "large parameters": (
        {"parameters": {str(number): {} for number in range(5000)}}, CODES.INVALID_ARGUMENT, "are not pixels"
    ),
    "short deadline": (
        {"inputs": [tensor()], **RAW, "parameters": {"timeout": {"int64_param": 1}}},
        CODES.DEADLINE_EXCEEDED,
        "deadline",
    ),
    "too large": (
        {"inputs": [tensor()], "raw_input_contents": [bytes(8_000_001)]}, CODES.RESOURCE_EXHAUSTED, "larger than max"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "text"), REJECTED.values(), ids=REJECTED.keys())
def test_request_that_cannot_be_used_gets_a_code_and_a_reason(client, fields, code, text):
    with pytest.raises(grpc.RpcError) as raised:
        client.call("ModelInfer", **({"model_name": "mnist"} | fields))
    assert raised.value.code() is code
    assert text in raised.value.details()


def test_unknown_parameters_and_parameters_without_a_value_are_ignored(client):
    parameters = {"mode": {}, "timeout": {}, "other": {"double_param": 0.5}}
    assert client.call("ModelInfer", **infer_request(BLANK, parameters=parameters)).outputs


@pytest.mark.parametrize("message", [b"\x0f", b"\x0a\xff", b"\x3a\xff\xff\xff\xff", b"\x0b" * 20_000, bytes(5000)])
def test_bytes_that_are_no_message_are_rejected(client, message):
    with pytest.raises(grpc.RpcError) as raised:
        client.channel.unary_unary(INFER)(message)
    assert raised.value.code() is CODES.INVALID_ARGUMENT
    assert "not a ModelInferRequest" in raised.value.details()


def test_unknown_method_is_unimplemented(client):
    with pytest.raises(grpc.RpcError) as raised:
        client.channel.unary_unary(f"/{SERVICE}/ModelStreamInfer")(b"")
    assert raised.value.code() is CODES.UNIMPLEMENTED


def test_models_are_unloaded_and_loaded_with_an_admin_key(client):
    key = [("authorization", "Bearer key")]
    with pytest.raises(grpc.RpcError) as raised:
        client.call("RepositoryModelUnload", model_name="mnist")
    assert raised.value.code() is CODES.UNAUTHENTICATED
    client.call("RepositoryModelUnload", metadata=key, model_name="mnist")
    assert not client.call("ModelReady", name="mnist").ready
    assert not client.call("ServerReady").ready
    assert client.call("RepositoryIndex").models[0].state == "UNAVAILABLE"
    assert not client.call("RepositoryIndex", ready=True).models
    with pytest.raises(grpc.RpcError) as raised:
        client.call("ModelInfer", **infer_request(BLANK))
    assert raised.value.code() is CODES.UNAVAILABLE
    with pytest.raises(grpc.RpcError) as raised:
        client.call("RepositoryModelLoad", key, model_name="mnist", parameters={"config": {"string_param": "{}"}})
    assert raised.value.code() is CODES.INVALID_ARGUMENT
    client.call("RepositoryModelLoad", metadata=key, model_name="mnist")
    assert client.call("ModelReady", name="mnist", version="1").ready


# Settings other than the defaults.


def run(test, **settings):
    async def with_door():
        async with door(**settings) as (client, service):
            await asyncio.wait_for(test(client, service), 30)

    asyncio.run(with_door())


async def fails(call, code):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is code, raised.value.details()


def test_prediction_needs_a_key_before_its_message_is_read():
    async def test(client, service):
        # A call whose message never comes gets its answer nevertheless.
        await fails(client.channel.stream_unary(INFER)(), CODES.UNAUTHENTICATED)
        for wrong in (None, [("x-api-key", "wrong")]):
            await fails(client.call("ModelInfer", wrong, **infer_request(BLANK)), CODES.UNAUTHENTICATED)
            await fails(client.call("ModelStatistics", wrong), CODES.UNAUTHENTICATED)
            await fails(client.call("RepositoryIndex", wrong), CODES.UNAUTHENTICATED)
        for right in ([("x-api-key", "right")], [("authorization", "Bearer right")]):
            await client.call("ModelInfer", right, **infer_request(BLANK))
        await fails(client.call("RepositoryModelLoad", model_name="mnist"), CODES.PERMISSION_DENIED)
        await client.call("ModelMetadata", name="mnist")

    run(test, predict_keys="right")


def test_prediction_beyond_the_limit_is_rejected_and_counts_like_one_over_http():
    async def test(client, service):
        assert service.admission.enter()
        await fails(client.call("ModelInfer", **infer_request(BLANK)), CODES.RESOURCE_EXHAUSTED)
        await client.call("ServerReady")
        service.admission.leave()
        await client.call("ModelInfer", **infer_request(BLANK))
        assert 'mnist_rejected_requests_total{status="429"} 1.0' in service.recorder.text().decode()

    run(test, max_concurrency=1)


def test_large_messages_count_as_held_bytes():
    async def test(client, service):
        service.held.bytes = 50_000
        await fails(client.call("ModelInfer", **infer_request(random_images(30))), CODES.RESOURCE_EXHAUSTED)
        await client.call("ModelInfer", **infer_request(BLANK))
        assert service.held.bytes == 50_000
        service.held.bytes = 0
        await client.call("ModelInfer", **infer_request(random_images(30)))
        assert service.held.bytes == 0

    run(test, max_held=60_000)


def test_compressed_message_counts_with_its_full_size_and_leaves_no_line_in_the_log(caplog):
    async def test(client, service):
        stub = client.channel.unary_unary(INFER)
        await fails(stub(bytes(9_000_000), compression=grpc.Compression.Gzip), CODES.RESOURCE_EXHAUSTED)
        images = infer_request(BLANK)
        request = REQUESTS["ModelInfer"](**images).SerializeToString()
        await stub(request, compression=grpc.Compression.Gzip)

    run(test)
    assert caplog.records == []


def test_cancelled_call_frees_its_place():
    async def test(client, service):
        call = client.channel.stream_unary(INFER)()
        await call.wait_for_connection()
        while service.recorder.in_flight == 0:  # gRPC does not begin a call that is cancelled before.
            await asyncio.sleep(0.01)
        call.cancel()
        while 'status="499"' not in service.recorder.text().decode():
            await asyncio.sleep(0.01)
        assert service.recorder.in_flight == 0
        await client.call("ModelInfer", **infer_request(BLANK))

    run(test, max_concurrency=1)


def test_cancelled_call_keeps_its_place_while_a_thread_works_on_it(monkeypatch):
    begun, release = threading.Event(), threading.Event()

    def decode(call, message):
        begun.set()
        assert release.wait(60)
        return decode_typed(call, message)

    monkeypatch.setattr("serving.grpc.infer.decode_typed", decode)

    async def test(client, service):
        large = infer_request(random_images(30), typed=True)
        call = client.call("ModelInfer", **large)
        assert await asyncio.to_thread(begun.wait, 60)
        call.cancel()
        await fails(client.call("ModelInfer", **infer_request(BLANK)), CODES.RESOURCE_EXHAUSTED)
        assert service.held.bytes > 0
        release.set()
        while 'status="499"' not in service.recorder.text().decode():
            await asyncio.sleep(0.01)
        assert service.held.bytes == 0
        await client.call("ModelInfer", **large)

    run(test, max_concurrency=1)


def test_deadline_of_grpc_counts():
    class Context:
        def __init__(self, remaining):
            self.time_remaining = lambda: remaining

    async def test(client, service):
        now = time.monotonic()
        assert GrpcCall(service, [], now, context=Context(0.5)).deadline() == pytest.approx(now + 0.5, abs=0.1)
        assert GrpcCall(service, [], now, context=Context(None)).deadline() == now + 5
        assert GrpcCall(service, [], now, context=Context(99)).deadline(1e6) == now + 1

    run(test)
