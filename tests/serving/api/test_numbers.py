"""No number, header or parameter of a client can make the service fail."""

from __future__ import annotations

import gzip
import json
import re
import threading

import pytest

from serving.api import bodies
from serving.api.open_inference import tensors
from serving.errors import InputError
from tests.support import PIXELS, application

BODY = bytes(784)
TENSOR = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
NUMBERS = [
    *("", "-0", "-1", "+1", "1.5", "1e3", "1e400", "-1e400", "nan", "inf", "-inf", "0x10", "1_000", " 1 ", "\u0663"),
    *("9" * 20, "9" * 400, "9" * 5000, "0" * 5000, "0." + "0" * 5000 + "1", "1e-400", "\0", "a" * 5000, "\xff"),
]
HEADERS = [
    *("inference-header-content-length", "x-request-deadline", "content-encoding", "content-type", "accept-encoding"),
    *("x-request-id", "traceparent", "authorization", "x-api-key", "if-none-match", "origin", "cookie", "range"),
    *("expect", "accept", "forwarded", "x-forwarded-for", "access-control-request-method"),
]
PATHS = ["/predict", "/v2/models/mnist/infer"]


def latin(text):
    return text.encode("latin-1", "ignore").strip()


@pytest.mark.parametrize("header", HEADERS)
def test_header_with_any_number_never_fails(client, header):
    for number in NUMBERS:
        for path in PATHS:
            response = client.post(path, content=BODY, headers=PIXELS | {header: latin(number)})
            assert response.status_code < 500 or response.status_code == 504, (number, response.text)
        for path in ("/style.css", "/v2"):
            assert client.get(path, headers={header: latin(number)}).status_code < 500


@pytest.mark.parametrize("parameter", ["timeout", "version", "model", "include", "unknown", ""])
def test_query_with_any_number_never_fails(client, parameter):
    for number in NUMBERS:
        for path in ("/predict", "/certificate"):
            response = client.request("POST" if path == "/predict" else "GET", path, params={parameter: number})
            assert response.status_code < 500 or response.status_code == 504, (number, response.text)


@pytest.mark.parametrize(
    "query", ["%", "%zz", "=", "&&&", "a" * 5000, "a=1&" * 65, "a%00=%ff", "timeout=1&timeout=x", ";"]
)
def test_any_query_is_read_or_rejected(client, query):
    assert client.post(f"/predict?{query}", content=BODY, headers=PIXELS).status_code in (200, 400, 504)


def test_first_of_two_parameters_counts(client):
    assert client.get("/certificate?version=1&version=9").status_code == 200
    assert client.get("/certificate?version=9&version=1").status_code == 404


JSON_NUMBERS = [
    *("-0", "-1", "1.5", "1e3", "1e400", "-1e400", "1" * 20, "9" * 400, "9" * 5000, "0." + "0" * 5000 + "1", "1e-400"),
    *("true", "null", '"1"', '"' + "9" * 5000 + '"', "[1]", "{}", "[" * 500 + "]" * 500, '"\\u0000"'),
]
PLACES = {
    "timeout": {"inputs": [TENSOR], "parameters": {"timeout": "HERE"}},
    "id": {"inputs": [TENSOR], "id": "HERE"},
    "unknown parameter": {"inputs": [TENSOR], "parameters": {"priority": "HERE"}},
    "classification": {"inputs": [TENSOR], "outputs": [{"name": "logits", "parameters": {"classification": "HERE"}}]},
    "binary_data": {"inputs": [TENSOR], "outputs": [{"name": "logits", "parameters": {"binary_data": "HERE"}}]},
    "output": {"inputs": [TENSOR], "outputs": ["HERE"]},
    "outputs": {"inputs": [TENSOR], "outputs": "HERE"},
    "binary_data_size": {"inputs": [TENSOR | {"data": None, "parameters": {"binary_data_size": "HERE"}}]},
    "shape": {"inputs": [TENSOR | {"shape": ["HERE", 28, 28]}]},
    "whole shape": {"inputs": [TENSOR | {"shape": "HERE"}]},
    "datatype": {"inputs": [TENSOR | {"datatype": "HERE"}]},
    "pixel": {"inputs": [TENSOR | {"data": [*TENSOR["data"][:-1], "HERE"]}]},
    "data": {"inputs": [TENSOR | {"data": "HERE"}]},
    "parameters": {"inputs": [TENSOR], "parameters": "HERE"},
    "input": {"inputs": ["HERE"]},
    "inputs": {"inputs": "HERE"},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_json_with_any_number_never_fails(client, place):
    for number in JSON_NUMBERS:
        body = json.dumps(place).replace('"HERE"', number).encode()
        response = client.post("/v2/models/mnist/infer", content=body)
        assert response.status_code < 500 or response.status_code == 504, (number, response.text)
        assert len(response.content) < 12_000


@pytest.mark.parametrize("body", ["HERE", '{"images":HERE}', '{"images":[HERE]}', '{"images":[[[HERE]]]}'])
def test_json_of_predict_with_any_number_never_fails(client, body):
    for number in JSON_NUMBERS:
        kind = {"content-type": "application/json; charset=utf-7"}
        response = client.post("/predict", content=body.replace("HERE", number).encode(), headers=kind)
        assert response.status_code in (400, 413), (number, response.text)
        assert len(response.content) < 3000


def test_long_text_of_a_client_is_cut_in_the_message(client):
    long = "x" * 100_000
    for body in ({"inputs": [TENSOR | {"name": long}]}, {"inputs": [TENSOR], "outputs": [{"name": long[:10_000]}]}):
        response = client.post("/v2/models/mnist/infer", content=json.dumps(body))
        assert response.status_code == 400
        assert len(response.content) < 3000
    response = client.post("/predict", content=BODY, headers={"content-type": long[:30_000]})
    assert (response.status_code, len(response.content) < 3000) == (415, True)


def test_small_compressed_body_is_decoded_on_a_thread(client, monkeypatch):
    threads = []

    def decode(*arguments):
        threads.append(threading.current_thread().name)
        return real(*arguments)

    real = tensors.decode
    monkeypatch.setattr(tensors, "decode", decode)
    for content in (b"[]," * 2_600_000, json.dumps({"inputs": [TENSOR]}).encode()):
        packed = gzip.compress(content)
        assert len(packed) < 16_000
        client.post("/v2/models/mnist/infer", content=packed, headers={"content-encoding": "gzip"})
    assert len(threads) == 2
    assert all(name.startswith("large") for name in threads)


@pytest.mark.parametrize(
    "error", [OSError(122, "Disk quota exceeded"), RuntimeError("failed"), InputError("damaged")], ids=repr
)
def test_full_disk_is_507_and_logged(client, monkeypatch, caplog, error):
    def fail(*_):
        try:
            raise OSError(28, "No space left on device", "/a/secret/path")
        except OSError as full:
            raise error from full

    monkeypatch.setattr(bodies, "decode_raw_pixels", fail)
    response = client.post("/predict", content=BODY, headers=PIXELS)
    assert response.status_code == response.json()["status"] == 507
    assert "disk" in response.json()["detail"]
    assert "secret" not in response.text
    [record] = caplog.records
    assert re.search(r"^POST /predict failed: a disk is full: \[Errno (28|122)\] ", record.getMessage())
    assert record.exc_info is None
    monkeypatch.undo()
    assert client.post("/predict", content=BODY, headers=PIXELS).status_code == 200


def test_full_disk_at_an_unload_is_507(monkeypatch):
    with application(admin_keys="key") as client:
        service = client.app.state.service

        def fail(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(service.repository, "unload", fail)
        response = client.post("/v2/repository/models/mnist/unload", headers={"x-api-key": "key"})
        assert response.status_code == 507
        assert "disk" in response.json()["error"]
