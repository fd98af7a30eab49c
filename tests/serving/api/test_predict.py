"""POST /predict: every kind of body, every kind of bad body."""

from __future__ import annotations

import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from serving.models import bundle
from serving.settings import RELEASE
from tests.support import application, picture

PIXELS = "application/octet-stream"
JSON = "application/json"


def send(client, body, kind):
    return client.post("/predict", content=body, headers={"content-type": kind} if kind else {})


def labels(answer):
    assert answer.status_code == 200, answer.text
    return [prediction["digit"] for prediction in answer.json()["predictions"]]


def test_answer_has_the_form_of_the_contract(client, digits):
    answer = send(client, digits[:2].tobytes(), PIXELS).json()
    assert answer["model"] == {"name": "mnist", "version": "1"}
    for prediction in answer["predictions"]:
        assert prediction["confidence"] == max(prediction["probabilities"])
        assert prediction["probabilities"].index(prediction["confidence"]) == prediction["digit"]
        assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert prediction["label"] == str(prediction["digit"])


def test_four_kinds_of_body_are_one_answer(client, digits):
    some = digits[:3]
    pixels = send(client, some.tobytes(), PIXELS)
    as_json = send(client, json.dumps({"images": some.tolist()}), JSON)
    form = client.post("/predict", files=[("files", (f"{i}.png", picture(d), "image/png")) for i, d in enumerate(some)])
    assert pixels.json() == as_json.json() == form.json()
    for i, digit in enumerate(some):
        # One at a time goes through other kernels, so the last bits may differ.
        one = send(client, picture(digit), "image/png").json()["predictions"][0]
        expected = pixels.json()["predictions"][i]
        assert one["digit"] == expected["digit"]
        np.testing.assert_allclose(one["probabilities"], expected["probabilities"], atol=1e-5)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_picture_formats(client, digits, truth, format):
    large = 255 - np.kron(digits[0], np.ones((8, 8), np.uint8))
    assert labels(send(client, picture(large, format), "image/*")) == [truth[0]]


@pytest.mark.parametrize("count", [1, 16, 17, 64, 65, 1024])
def test_batches(client, digits, truth, count):
    got = labels(send(client, digits[:count].tobytes(), PIXELS))
    assert np.mean(np.array(got) == truth[:count]) > 0.98


def test_answer_carries_what_the_network_saw_if_asked(client, digits):
    some = digits[:2]
    large = 255 - np.kron(some[0], np.ones((8, 8), np.uint8))
    bodies = [
        {"content": some.tobytes(), "headers": {"content-type": PIXELS}},
        {"content": json.dumps({"images": some.tolist()}), "headers": {"content-type": JSON}},
        {"files": [("files", (f"{i}.png", picture(digit), "image/png")) for i, digit in enumerate(some)]},
        {"content": picture(large), "headers": {"content-type": "image/png"}},
    ]
    for body in bodies:
        plain = client.post("/predict", **body).json()
        asked = client.post("/predict?include=image", **body).json()
        seen = np.array([prediction.pop("image") for prediction in asked["predictions"]])
        assert asked == plain
        assert seen.shape == (len(asked["predictions"]), 28, 28)
        if len(seen) == 2:
            np.testing.assert_array_equal(seen, some)
        # Sent again as pixels, it is what the answer was about.
        again = send(client, seen.astype(np.uint8).tobytes(), PIXELS).json()["predictions"]
        for one, other in zip(asked["predictions"], again, strict=True):
            np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)


def test_unknown_include_is_refused(client, digits):
    answer = client.post("/predict?include=logits", content=digits[0].tobytes(), headers={"content-type": PIXELS})
    assert answer.status_code == 400
    assert "'logits'; it can be: image" in answer.json()["detail"]


def test_certificate_is_the_manifest_of_the_model_that_answers(client):
    manifest = bundle.read(RELEASE / "mnist" / "1").manifest
    for query in ("", "?model=mnist", "?version=1"):
        answer = client.get(f"/certificate{query}")
        assert answer.headers["content-type"] == "application/json"
        assert msgspec.json.decode(answer.content, type=bundle.Manifest) == manifest
    for query in ("?model=none", "?version=9"):
        assert client.get(f"/certificate{query}").status_code == 404


def test_certificate_needs_a_key_where_predictions_do():
    with application(predict_keys="key") as client:
        assert client.get("/certificate").status_code == 401
        assert client.get("/certificate", headers={"x-api-key": "key"}).status_code == 200


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 60,000 pixels wide and high."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


WHITE = np.zeros((28, 28), np.uint8)
ROW = [0] * 28
SQUARE = [ROW] * 28


def images(*squares):
    return json.dumps({"images": squares})


BAD = {
    "no content type": (b"x", None, 415, "Content-Type"),
    "an unknown type": (b"x", "text/plain", 415, "text/plain"),
    "an empty picture": (b"", "image/png", 400, "not a picture"),
    "no picture": (b"hello", "image/png", 400, "not a picture"),
    "a truncated picture": (picture(WHITE)[:50], "image/png", 400, "damaged"),
    "a cut JPEG header": (picture(WHITE, "JPEG")[:100], "image/jpeg", 400, ""),
    "a format that is not read": (picture(WHITE, "TIFF"), "image/tiff", 400, "not a picture"),
    "a decompression bomb": (bomb(), "image/png", 413, "3600000000 pixels"),
    "no pixels": (b"", PIXELS, 400, "no image"),
    "a piece of an image": (bytes(783), PIXELS, 400, "783 bytes"),
    "a batch over the limit": (bytes(784 * 1025), PIXELS, 413, "1024"),
    "a body over the limit": (bytes(8_000_001), PIXELS, 413, "8000000"),
    "no JSON": (b"{", JSON, 400, "JSON"),
    "JSON that is not UTF-8": (b'{"images": "\xff"}', JSON, 400, "JSON"),
    "another JSON": (b"[1, 2]", JSON, 400, "object"),
    "JSON without images": (b"{}", JSON, 400, "images"),
    "an empty JSON batch": (images(), JSON, 400, "images"),
    "a JSON batch over the limit": (images(*[SQUARE] * 1025), JSON, 413, "1024"),
    "ragged rows": (images([ROW] * 27 + [[0] * 27]), JSON, 400, "$.images[0][27]"),
    "too few rows": (images([ROW] * 27), JSON, 400, "$.images[0]"),
    "a number too large": (images([[256] * 28] * 28), JSON, 400, "255"),
    "a negative number": (images([[-1] * 28] * 28), JSON, 400, "0"),
    "a huge number": (images([[10**400] * 28] * 28), JSON, 400, ""),
    "a fraction": (images([[0.5] * 28] * 28), JSON, 400, "int"),
    "a text for a number": (images([["1"] * 28] * 28), JSON, 400, "int"),
    "deep JSON": (b"[" * 100_000, JSON, 400, "JSON"),
    "a form without a boundary": (b"x", "multipart/form-data", 400, "boundary"),
    "a damaged form": (b"--b\r\nrubbish", "multipart/form-data; boundary=b", 400, ""),
    "a form without files": (
        b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n',
        "multipart/form-data; boundary=b",
        400,
        "no image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_body_is_a_problem_document(client, digits, truth, case):
    body, kind, status, detail = BAD[case]
    answer = send(client, body, kind)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert detail in problem["detail"]
    assert labels(send(client, digits[0].tobytes(), PIXELS)) == [truth[0]]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_cut_pictures_never_fail_the_server(client, digits, format):
    whole = picture(255 - np.kron(digits[0], np.ones((4, 4), np.uint8)), format)
    for end in range(0, len(whole), max(1, len(whole) // 40)):
        assert send(client, whole[:end], "image/*").status_code in (200, 400)


def test_compressed_body_is_refused(client):
    answer = client.post("/predict", content=b"x", headers={"content-type": PIXELS, "content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "uncompressed" in answer.json()["detail"]


def test_picture_of_nothing_is_answered(client):
    assert len(labels(send(client, picture(np.full((50, 50), 255, np.uint8)), "image/png"))) == 1


def test_limits_are_settings(digits):
    with application(max_batch=2, max_body=5000, max_pixels=900) as client:
        assert send(client, digits[:2].tobytes(), PIXELS).status_code == 200
        assert send(client, digits[:3].tobytes(), PIXELS).status_code == 413
        assert send(client, bytes(5001), PIXELS).status_code == 413
        assert send(client, picture(np.zeros((30, 31), np.uint8)), "image/png").status_code == 413


def test_wrong_path_and_method(client):
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/predict", 405), ("DELETE", "/predict", 405)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["status"] == status
        assert path in answer.json()["detail"]
    assert "POST" in answer.headers["allow"]


def test_concurrent_requests_get_their_own_answers(client, digits):
    batches = [digits[i : i + size] for i, size in zip(range(0, 400, 10), [1, 3, 20, 70] * 10, strict=True)]
    alone = [send(client, batch.tobytes(), PIXELS).json() for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: send(client, batch.tobytes(), PIXELS).json(), batches))
    assert together == alone


@pytest.mark.parametrize("kind", [PIXELS, JSON, "image/png"])
def test_empty_image_is_not_accepted(client, digits, kind):
    bodies = {PIXELS: bytes(784), JSON: images(SQUARE), "image/png": picture(WHITE)}
    [prediction] = send(client, bodies[kind], kind).json()["predictions"]
    assert (prediction["accepted"], prediction["reason"]) == (False, "empty")
    [prediction] = send(client, digits[0].tobytes(), PIXELS).json()["predictions"]
    assert (prediction["accepted"], prediction["reason"]) == (True, None)


def test_two_digits_in_a_picture_are_not_accepted(client, digits):
    page = 255 - np.kron(np.hstack([digits[0], digits[2]]), np.ones((5, 5), np.uint8))
    [prediction] = send(client, picture(page), "image/png").json()["predictions"]
    assert (prediction["accepted"], prediction["reason"]) == (False, "several")
