"""A response carries its timings and its request id, and the log lines carry the same id."""

from __future__ import annotations

import json
import re

import httpx

from tests.support import PIXELS, service

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_server_timing_has_the_four_stages(client, digits):
    responses = [
        client.post("/predict", content=digits[:40].tobytes(), headers=PIXELS),
        client.post("/v2/models/mnist/infer", content=bytes(784), headers={"inference-header-content-length": "0"}),
    ]
    for response in responses:
        stages = re.findall(r"(\w+);dur=(\d+\.\d{3})", response.headers["server-timing"])
        assert [name for name, _ in stages] == ["decode", "queue", "infer", "encode"]
        assert float(dict(stages)["infer"]) > 0


def test_request_id_comes_from_the_caller_or_its_trace_or_is_new(client):
    def request_id(**headers):
        return client.get("/v2", headers=headers).headers["x-request-id"]

    assert request_id(**{"x-request-id": "order-7"}) == "order-7"
    assert request_id(traceparent=TRACE) == TRACE.split("-")[1]
    assert request_id(**{"x-request-id": "order-7", "traceparent": TRACE}) == "order-7"
    new = {request_id() for _ in range(5)}
    assert len(new) == 5
    for invalid in ("a b", "x" * 200, '"><script>'):
        assert request_id(**{"x-request-id": invalid}) != invalid
    for invalid in ("rubbish", TRACE.replace("00-", "ff-", 1), f"00-{'0' * 32}-b7ad6b7169203331-01"):
        assert request_id(traceparent=invalid) not in invalid


def log_of(*arguments):
    """Return what the service writes to standard error during two requests."""
    with service(*arguments) as (url, process):
        httpx.get(f"{url}/v2", headers={"x-request-id": "order-7", "traceparent": TRACE})
        httpx.get(f"{url}/nowhere")
        process.terminate()
        _, log = process.communicate(timeout=30)
    return log


def test_log_is_json_and_has_no_line_for_a_request_by_default():
    lines = [json.loads(line) for line in log_of().splitlines()]
    assert [line["message"] for line in lines] == ["loaded model mnist version 1"]
    assert lines[0]["level"] == "info"


def test_access_log_has_a_line_for_each_request():
    lines = [json.loads(line) for line in log_of("--access-log").splitlines()]
    first, second = (line for line in lines if line["message"] == "request")
    assert first["request_id"] == "order-7"
    assert first["trace_id"] == TRACE.split("-")[1]
    assert (first["method"], first["path"], first["status"]) == ("GET", "/v2", 200)
    assert second["status"] == 404


def test_log_can_be_text():
    assert "info loaded model mnist version 1" in log_of("--log-format", "text")


def test_fault_is_in_the_log_but_not_in_the_response(client, monkeypatch, caplog):
    from serving.api import predict

    def fail(*_, **__):
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(predict, "encode", fail)
    response = client.post("/predict", content=bytes(784), headers=PIXELS)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "a secret detail" in caplog.text
