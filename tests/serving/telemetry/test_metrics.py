"""What the service tells of itself: metrics, timings, request ids, logs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import application, missing, service

PIXELS = {"content-type": "application/octet-stream"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def client():
    with application() as client:
        yield client


def value(client, name, **labels):
    """A sample's value, 0 if it is not there."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0


def test_requests_are_counted_by_declared_route(client, digits):
    for _ in range(3):
        client.post("/predict", content=digits[0].tobytes(), headers=PIXELS)
    client.post("/predict", content=b"", headers=PIXELS)
    client.get("/v2/models/mnist")
    for path in ("/nowhere/1", "/nowhere/2", "/%00", "/v2/models/x"):
        client.get(path)
    requests = "mnist_http_requests_total"
    assert value(client, requests, route="/predict", method="POST", status="200") == 3
    assert value(client, requests, route="/predict", method="POST", status="400") == 1
    assert value(client, requests, route="/v2/models/{name}", status="200") == 1
    assert value(client, requests, route="unmatched", status="404") == 4
    assert value(client, "mnist_http_request_seconds_count", route="/predict") == 4
    assert "nowhere" not in client.get("/metrics").text


def test_predictions_are_counted(client, digits, truth):
    client.post("/predict", content=digits[:20].tobytes(), headers=PIXELS)
    for label in range(10):
        expected = int((truth[:20] == label).sum())
        assert value(client, "mnist_predictions_total", model="mnist", label=str(label)) == expected
    assert value(client, "mnist_confidence_ratio_count", model="mnist") == 20
    assert value(client, "mnist_ink_ratio_sum", model="mnist") == pytest.approx(
        digits[:20].mean(axis=(1, 2)).sum() / 255
    )
    assert value(client, "mnist_batch_images_sum", model="mnist", version="1") == 20
    for stage in ("decode", "queue", "infer", "encode"):
        assert value(client, "mnist_stage_seconds_total", stage=stage) > 0
    assert value(client, "mnist_inference_seconds_count", model="mnist", version="1") == 1
    assert value(client, "mnist_model_loaded", model="mnist", version="1") == 1


def test_buckets_resolve_50_microseconds(client):
    client.post("/predict", content=bytes(784), headers=PIXELS)
    text = client.get("/metrics").text
    assert 'mnist_http_request_seconds_bucket{le="5e-05",route="/predict"}' in text


def test_in_flight_and_refused(client):
    assert value(client, "mnist_http_requests_in_flight") == 1  # the scrape itself
    client.post("/predict", content=bytes(784 * 1025), headers=PIXELS)
    assert value(client, "mnist_refused_requests_total", status="413") == 1


def test_promtool_accepts_the_metrics(client):
    promtool = shutil.which("promtool") or missing("promtool (Debian: prometheus)")
    client.post("/predict", content=bytes(784), headers=PIXELS)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=client.get("/metrics").content, capture_output=True
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr.decode()
    assert checked.stderr == b""


def test_server_timing(client, digits):
    answers = [
        client.post("/predict", content=digits[:40].tobytes(), headers=PIXELS),
        client.post("/v2/models/mnist/infer", content=bytes(784), headers={"inference-header-content-length": "0"}),
    ]
    for answer in answers:
        parts = re.findall(r"(\w+);dur=(\d+\.\d{3})", answer.headers["server-timing"])
        assert [name for name, _ in parts] == ["decode", "queue", "infer", "encode"]
        assert float(dict(parts)["infer"]) > 0


def test_request_id(client):
    def request_id(**headers):
        return client.get("/v2", headers=headers).headers["x-request-id"]

    assert request_id(**{"x-request-id": "order-7"}) == "order-7"
    assert request_id(traceparent=TRACE) == TRACE.split("-")[1]
    assert request_id(**{"x-request-id": "order-7", "traceparent": TRACE}) == "order-7"
    made = {request_id() for _ in range(5)}
    assert len(made) == 5
    for bad in ("a b", "x" * 200, '"><script>'):
        assert request_id(**{"x-request-id": bad}) != bad
    for bad in ("rubbish", TRACE.replace("00-", "ff-", 1), f"00-{'0' * 32}-b7ad6b7169203331-01"):
        assert request_id(traceparent=bad) not in bad


def logged(*arguments, ask):
    with service(*arguments) as (url, process):
        ask(url)
        process.terminate()
        _, err = process.communicate(timeout=30)
    return err


def ask_twice(url):
    httpx.get(f"{url}/v2", headers={"x-request-id": "order-7", "traceparent": TRACE})
    httpx.get(f"{url}/nowhere")


def test_logs_are_json_and_quiet():
    lines = [json.loads(line) for line in logged(ask=ask_twice).splitlines()]
    assert [line["message"] for line in lines] == ["loaded model mnist version 1"]
    assert lines[0]["level"] == "info"


def test_access_log_is_asked_for():
    lines = [json.loads(line) for line in logged("--access-log", ask=ask_twice).splitlines()]
    first, second = (line for line in lines if line["message"] == "request")
    assert first["request_id"] == "order-7"
    assert first["trace_id"] == TRACE.split("-")[1]
    assert (first["method"], first["path"], first["status"]) == ("GET", "/v2", 200)
    assert second["status"] == 404


def test_log_for_a_persons_eyes():
    assert "info loaded model mnist version 1" in logged("--log-format", "text", ask=ask_twice)


def test_fault_is_logged_with_its_request_and_not_told(client, monkeypatch, caplog):
    from serving.api import predict

    def fail(*_, **__):
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(predict, "encode", fail)
    answer = client.post("/predict", content=bytes(784), headers=PIXELS)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "the secret of the house" in caplog.text
