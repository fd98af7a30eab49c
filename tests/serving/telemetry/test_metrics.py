"""GET /metrics shows what the service did."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import PIXELS, application, missing


@pytest.fixture
def client():
    with application() as client:
        yield client


def value(client, name, **labels):
    """The value of a sample, 0 if it is not there."""
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


def test_first_bucket_ends_at_50_microseconds(client):
    client.post("/predict", content=bytes(784), headers=PIXELS)
    text = client.get("/metrics").text
    assert 'mnist_http_request_seconds_bucket{le="5e-05",route="/predict"}' in text


def test_requests_in_flight_and_rejected_requests_are_counted(client):
    assert value(client, "mnist_http_requests_in_flight") == 1  # the scrape itself
    client.post("/predict", content=bytes(784 * 1025), headers=PIXELS)
    assert value(client, "mnist_rejected_requests_total", status="413") == 1


def test_promtool_accepts_the_metrics(client):
    promtool = shutil.which("promtool") or missing("promtool (Debian: prometheus)")
    client.post("/predict", content=bytes(784), headers=PIXELS)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=client.get("/metrics").content, capture_output=True
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr.decode()
    assert checked.stderr == b""
