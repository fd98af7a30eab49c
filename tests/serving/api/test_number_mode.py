"""``mode=number`` of /predict and of the inference protocol."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from serving.inference import decoder
from serving.inference.decoder_process import Session
from serving.pictures.number_form import NumberPage, to_number_page
from serving.settings import Settings
from tests.serving.pictures.numbers import page, written
from tests.support import application, picture

PNG = {"content-type": "image/png"}
URL = "/predict?mode=number"


@pytest.fixture(scope="module")
def pages(digits, truth):
    return [page(written(digits, truth, text)) for text in ("2026", "378")]


def test_picture_gets_lines_of_digits(client, pages):
    response = client.post(URL, content=picture(pages[0]), headers=PNG)
    assert response.status_code == 200
    [prediction] = response.json()["predictions"]
    assert prediction["text"] == "2026"
    assert (prediction["height"], prediction["width"]) == pages[0].shape
    [line] = prediction["lines"]
    assert line["accepted"]
    assert line["confidence"] > 0.5
    for digit, label in zip(line["digits"], "2026", strict=True):
        assert (digit["label"], digit["digit"]) == (label, int(label))
        assert len(digit["probabilities"]) == 10
        assert "image" not in digit
    assert "server-timing" in response.headers


def test_digits_have_their_images_on_request(client, pages):
    response = client.post(f"{URL}&include=image", content=picture(pages[1]), headers=PNG)
    digits = response.json()["predictions"][0]["lines"][0]["digits"]
    assert all(np.shape(digit["image"]) == (28, 28) for digit in digits)


def test_form_gets_a_prediction_for_each_picture(client, pages):
    blank = picture(np.full((50, 50), 255, np.uint8))
    files = [("files", (f"{i}.png", content)) for i, content in enumerate([*map(picture, pages), blank])]
    predictions = client.post(URL, files=files).json()["predictions"]
    assert [prediction["text"] for prediction in predictions] == ["2026", "378", ""]
    assert predictions[2]["reason"] == "empty"


def test_large_picture_is_read_in_the_decoder_process(client, pages, monkeypatch):
    used = sent_to_the_process(monkeypatch)
    response = client.post(URL, content=picture(pages[0]), headers=PNG)
    assert response.json()["predictions"][0]["text"] == "2026"
    assert len(used) == 1


def sent_to_the_process(monkeypatch):
    """Let pictures of 1000 pixels count as large, and return the list of those that the process gets from now on."""
    used = []
    original = Session.read_numbers

    async def noted(self, content):
        used.append(content)
        return await original(self, content)

    monkeypatch.setattr(decoder, "THREAD_PIXELS", 1000)
    monkeypatch.setattr(Session, "read_numbers", noted)
    return used


@pytest.mark.parametrize(
    ("url", "kind", "status", "words"),
    [
        ("/predict?mode=numbers", PNG, 400, "mode 'numbers': must be digit or number"),
        (URL, {"content-type": "text/plain"}, 415, "mode=number reads pictures only"),
        (URL, {"content-type": "application/json"}, 415, "mode=number reads pictures only"),
        (f"{URL}&timeout=0.001", PNG, 504, "deadline"),
    ],
)
def test_wrong_requests_are_rejected(client, pages, url, kind, status, words):
    response = client.post(url, content=picture(pages[0]), headers=kind)
    assert response.status_code == status
    assert words in response.json()["detail"]


def test_candidates_of_a_request_are_limited(client, pages, monkeypatch):
    monkeypatch.setattr(decoder, "MAX_REQUEST_CANDIDATES", 5)
    response = client.post(URL, content=picture(pages[0]), headers=PNG)
    assert response.status_code == 413
    assert "send fewer pictures" in response.json()["detail"]


def test_only_the_digits_count_as_predictions(client, pages):
    def counted():
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("mnist_predictions_total{"))

    before = counted()
    client.post(URL, content=picture(pages[0]), headers=PNG)
    assert counted() == before + 4


def test_candidates_survive_the_way_from_the_decoder_process(pages):
    found = to_number_page(picture(pages[0]), Settings.max_pixels)
    assert NumberPage.from_bytes(found.to_bytes()) == found


@pytest.mark.parametrize("count", [2, 3, 6, 9, 12])
def test_several_digits_get_their_reason_and_a_hint(client, digits, truth, count):
    content = picture(page(written(digits, truth, "190654738201"[:count])))
    [prediction] = client.post("/predict", content=content, headers=PNG).json()["predictions"]
    assert (prediction["accepted"], prediction["reason"]) == (False, "several")
    assert "mode=number" in prediction["hint"]


def test_one_digit_gets_no_hint(client, digits):
    [prediction] = client.post("/predict", content=picture(digits[0]), headers=PNG).json()["predictions"]
    assert "hint" not in prediction


def infer(client, shape, data, mode="number", **request):
    tensor = {"name": "images", "shape": shape, "datatype": "UINT8", "data": data}
    return client.post("/v2/models/mnist/infer", json={"parameters": {"mode": mode}, "inputs": [tensor]} | request)


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_protocol_reads_pages_of_any_size(client, pages, form):
    shape = [1, *pages[0].shape]
    response = infer(client, shape, pages[0].ravel().tolist() if form == "flat" else [pages[0].tolist()])
    text, prediction = response.json()["outputs"]
    assert text == {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["2026"]}
    [line] = json.loads(prediction["data"][0])["lines"]
    assert line["text"] == "2026"


def test_large_page_of_the_protocol_is_read_like_a_picture_in_the_decoder_process(client, pages, monkeypatch):
    used = sent_to_the_process(monkeypatch)
    text, prediction = infer(client, [1, *pages[0].shape], pages[0].ravel().tolist()).json()["outputs"]
    assert text["data"] == ["2026"]
    assert len(used) == 1
    response = client.post(URL, content=picture(pages[0]), headers=PNG)
    assert response.json()["predictions"] == [json.loads(prediction["data"][0])]


def test_decompressed_pages_count_against_the_bytes_held(pages):
    data = {"name": "images", "shape": [1, 200, 200], "datatype": "UINT8", "data": [0] * 40_000}
    body = gzip.compress(json.dumps({"parameters": {"mode": "number"}, "inputs": [data]}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    statuses = []
    for limit in (39_999, 40_000):
        with application(max_held=limit) as client:
            statuses.append(client.post("/v2/models/mnist/infer", content=body, headers=headers).status_code)
    assert statuses == [429, 200]


@pytest.mark.parametrize(
    ("shape", "request_", "words"),
    [
        ([1, 2, 2], {"outputs": [{"name": "logits"}]}, "must be one of text, prediction"),
        ([1, 2, 2], {"outputs": [{"name": "text"}, {"name": "text"}]}, "named twice"),
        ([1, 2, 2], {"outputs": [{"name": "text", "parameters": {"classification": 2}}]}, "omit classification"),
        ([1, 0, 4], {}, "must be [N, H, W]"),
        ([1, 1, 70_000], {}, "must be [N, H, W]"),
        ([1, 2, 3], {}, "4 numbers"),
        ([1, 2, 2], {"parameters": {"mode": "numbers"}}, "must be digit or number"),
    ],
)
def test_wrong_requests_of_the_protocol_are_rejected(client, shape, request_, words):
    response = infer(client, shape, [0, 0, 0, 0], **request_)
    assert response.status_code == 400
    assert words in response.json()["error"]


def test_protocol_responds_in_binary_form(client, pages):
    shape = [1, *pages[1].shape]
    response = infer(
        client, shape, pages[1].ravel().tolist(), outputs=[{"name": "text", "parameters": {"binary_data": True}}]
    )
    assert response.content.endswith(b"\x03\x00\x00\x00378")
