"""Bodies of POST /predict: every kind, and what is rejected."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest

from tests.serving.pictures.files import black_png, rle_bmp, slow_pgm
from tests.support import application, picture

PIXELS = "application/octet-stream"
JSON = "application/json"
PICTURE_FORMATS = ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"]

BLACK = np.zeros((28, 28), np.uint8)
ROW = [0] * 28
IMAGE = [ROW] * 28


def send(client, body, kind):
    return client.post("/predict", content=body, headers={"content-type": kind} if kind else {})


def predictions_of(response):
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def digits_of(response):
    return [prediction["digit"] for prediction in predictions_of(response)]


def png_bomb() -> bytes:
    """Return a PNG of a few hundred bytes whose header declares 60,000 x 60,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def enlarged(image, factor):
    """Return a picture with dark ink on bright paper."""
    return 255 - np.kron(image, np.ones((factor, factor), np.uint8))


def test_pixels_json_and_form_give_the_same_response(client, digits):
    some = digits[:3]
    pixels = send(client, some.tobytes(), PIXELS)
    as_json = send(client, json.dumps({"images": some.tolist()}), JSON)
    form = client.post("/predict", files=[("files", (f"{i}.png", picture(d), "image/png")) for i, d in enumerate(some)])
    assert pixels.json() == as_json.json() == form.json()
    for digit, expected in zip(some, predictions_of(pixels), strict=True):
        [alone] = predictions_of(send(client, picture(digit), "image/png"))
        assert alone["digit"] == expected["digit"]
        # A single image runs through other kernels than a batch, so the last bits may differ.
        np.testing.assert_allclose(alone["probabilities"], expected["probabilities"], atol=1e-5)


@pytest.mark.parametrize("format", PICTURE_FORMATS)
def test_every_picture_format_is_read(client, digits, truth, format):
    assert digits_of(send(client, picture(enlarged(digits[0], 8), format), "image/*")) == [truth[0]]


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "application/octet-stream", "*/*"])
@pytest.mark.parametrize("format", PICTURE_FORMATS)
def test_picture_is_known_by_its_bytes_where_no_content_type_says_otherwise(client, digits, truth, format, kind):
    assert digits_of(send(client, picture(enlarged(digits[0], 4), format), kind)) == [truth[0]]


FOREIGN = {
    "a TIFF": picture(BLACK, "TIFF"),
    "an AVIF": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf",
    "a HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "an SVG": b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a PDF": b"%PDF-1.7\n",
}


@pytest.mark.parametrize("query", ["", "?mode=number"])
@pytest.mark.parametrize(
    "kind", [None, "application/x-www-form-urlencoded", PIXELS, JSON, "application/pdf", "image/x"]
)
@pytest.mark.parametrize("name", FOREIGN)
def test_known_format_that_is_not_read_is_named(client, name, kind, query):
    headers = {"content-type": kind} if kind else {}
    response = client.post(f"/predict{query}", content=FOREIGN[name], headers=headers)
    assert response.status_code == 400
    assert response.json()["detail"].endswith(f"{name} is not read here; convert it to PNG or JPEG")


def test_raw_pixels_that_begin_like_a_picture_stay_raw_pixels(client, digits):
    for start in (b"BM", b"P5", b"\xff\xd8\xff\0", b"GIF8", b"\x89PNG"):
        body = start + digits[0].tobytes()[len(start) :]
        response = client.post("/predict?include=image", content=body, headers={"content-type": PIXELS})
        [prediction] = predictions_of(response)
        assert np.array(prediction["image"], np.uint8).tobytes() == body


def large(image):
    """Return a picture that is decoded in the process for large ones."""
    return picture(enlarged(image, 40))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (b"no picture", "not a picture in one of the formats"),
        (picture(BLACK)[:50], "the picture is damaged"),
        (black_png(4000, 4000)[:2000], "the picture is damaged"),
        (png_bomb(), "the picture has 60000x60000 pixels"),
    ],
)
def test_bad_picture_among_several_is_named(client, digits, second, reason):
    contents = [picture(digits[0]), second, large(digits[1])]
    response = client.post("/predict", files=[("files", (f"{i}.png", each)) for i, each in enumerate(contents)])
    assert response.status_code in (400, 413)
    assert response.json()["detail"].startswith(f"picture 2 of 3: {reason}")


@pytest.mark.parametrize("count", [7, 65])
def test_json_of_any_size_is_read(client, digits, count):
    # The larger body is decoded on a thread.
    pixels = send(client, digits[:count].tobytes(), PIXELS)
    as_json = send(client, json.dumps({"images": digits[:count].tolist()}, indent=1), JSON)
    assert as_json.json() == pixels.json()


def json_of(*images):
    return json.dumps({"images": images})


FORM_WITHOUT_FILES = b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'

# Body, Content-Type, status of the response, and a part of its detail.
REJECTED_BODIES = {
    "no content type": (b"x", None, 415, "Content-Type: is missing; send a picture"),
    "unknown content type": (b"x", "text/plain", 415, "text/plain"),
    "empty picture": (b"", "image/png", 400, "the body is empty"),
    "no body": (b"", None, 400, "the body is empty"),
    "empty JSON": (b"", JSON, 400, "the body is empty"),
    "text sent as a picture": (b"hello", "image/png", 400, "not a picture"),
    "truncated picture": (picture(BLACK)[:50], "image/png", 400, "damaged"),
    "truncated JPEG header": (picture(BLACK, "JPEG")[:100], "image/jpeg", 400, ""),
    "picture format that is not read": (picture(BLACK, "TIFF"), "image/tiff", 400, "convert it to PNG"),
    "decompression bomb": (png_bomb(), "image/png", 413, "60000x60000 pixels: must be at most 25000000"),
    "row of pixels": (black_png(25_000_000, 1, 1), "image/png", 413, "at most 16384 pixels wide and high"),
    "BMP with run lengths": (rle_bmp(5000, 5000), "image/bmp", 400, "send it as PNG"),
    "PGM as text": (b"P2 1 1 255 0", "image/x-portable-graymap", 400, "send it as PNG"),
    "PFM": (b"Pf 28 28 -1.0\n" + np.full(784, np.nan, np.float32).tobytes(), "image/x", 400, "not a picture"),
    "large picture that is cut off": (black_png(4000, 4000)[:2000], "image/png", 400, "damaged"),
    "no pixels": (b"", PIXELS, 400, "the body is empty"),
    "part of an image": (bytes(783), PIXELS, 400, "783 bytes"),
    "batch over the limit": (bytes(784 * 1025), PIXELS, 413, "at most 1024"),
    "body over the limit": (bytes(8_000_001), PIXELS, 413, "8000000"),
    "malformed JSON": (b"{", JSON, 400, "JSON"),
    "JSON that is not UTF-8": (b'{"images": "\xff"}', JSON, 400, "JSON"),
    "JSON of another type": (b"[1, 2]", JSON, 400, "object"),
    "JSON without images": (b"{}", JSON, 400, "images"),
    "empty JSON batch": (json_of(), JSON, 400, "no image"),
    "JSON batch over the limit": (json_of(*[IMAGE] * 1025), JSON, 413, "at most 1024"),
    "JSON images that are text": (b'{"images": "text"}', JSON, 400, "$.images"),
    "short row": (json_of([ROW] * 27 + [[0] * 27]), JSON, 400, "$.images[0][27]"),
    "short row in the second image": (json_of(IMAGE, [ROW] * 27 + [[0] * 27]), JSON, 400, "$.images[1][27]"),
    "short row in a large body": (json_of(*[IMAGE] * 99, [ROW] * 27 + [[0] * 29]), JSON, 400, "$.images[99][27]"),
    "too few rows": (json_of([ROW] * 27), JSON, 400, "`$.images[0]`"),
    "too many rows": (json_of([ROW] * 29), JSON, 400, "`$.images[0]`"),
    "number instead of an image": (json_of(IMAGE, 1), JSON, 400, "got `int` - at `$.images[1]`"),
    "pixel of 256": (json_of([[256] * 28] * 28), JSON, 400, "out of range - at `$.images[0]`"),
    "negative pixel": (json_of([[-1] * 28] * 28), JSON, 400, "out of range - at `$.images[0]`"),
    "pixel of 400 digits": (json_of([[10**400] * 28] * 28), JSON, 400, "$.images[0]"),
    "fractional pixel": (json_of([[0.5] * 28] * 28), JSON, 400, "Expected `int`"),
    "text instead of a pixel": (json_of([["1"] * 28] * 28), JSON, 400, "Expected `int`"),
    "truth value instead of a pixel": (json_of([[True] * 28] * 28), JSON, 400, "Expected `int`"),
    "deeply nested JSON": (b"[" * 100_000, JSON, 400, "JSON"),
    "deeply nested JSON images": (b'{"images":' + b"[" * 100_000, JSON, 400, "JSON"),
    "type of curl -d": (b"{}", "application/x-www-form-urlencoded", 415, "add -H 'content-type: TYPE'"),
    "name of a file": (b"my scan.PNG", None, 400, "the name 'my scan.PNG' and not a file"),
    "name of a JSON file": (b"@images.json", JSON, 400, "write --data-binary @FILE"),
    "form without a boundary": (b"x", "multipart/form-data", 400, "boundary"),
    "damaged form": (b"--b\r\nrubbish", "multipart/form-data; boundary=b", 400, ""),
    "form without files": (FORM_WITHOUT_FILES, "multipart/form-data; boundary=b", 400, "no image"),
}


@pytest.mark.parametrize(("body", "kind", "status", "detail"), REJECTED_BODIES.values(), ids=REJECTED_BODIES.keys())
def test_rejected_body_gets_a_problem_document(client, digits, truth, body, kind, status, detail):
    response = send(client, body, kind)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert detail in problem["detail"]
    # The service still works afterwards.
    assert digits_of(send(client, digits[0].tobytes(), PIXELS)) == [truth[0]]


@pytest.mark.parametrize("format", PICTURE_FORMATS)
def test_truncated_picture_never_causes_a_server_error(client, digits, format):
    whole = picture(enlarged(digits[0], 4), format)
    for end in range(0, len(whole), max(1, len(whole) // 40)):
        assert send(client, whole[:end], "image/*").status_code in (200, 400)


def test_compressed_body_is_rejected(client):
    response = client.post("/predict", content=b"x", headers={"content-type": PIXELS, "content-encoding": "gzip"})
    assert response.status_code == 415
    assert "uncompressed" in response.json()["detail"]


def test_headers_of_a_body_are_read_in_one_way_on_every_route(digits, tmp_path):
    seven, tensor = picture(enlarged(digits[0], 4)), {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}
    inference = {"inputs": [tensor | {"data": digits[0].ravel().tolist()}]}
    with application(feedback=str(tmp_path)) as client:

        def statuses(encoding):
            headers = {"content-type": " Image/PNG ;x=y", "content-encoding": encoding}
            yield client.post("/predict", content=seven, headers=headers).status_code
            yield client.post("/feedback?label=7&consent=yes", content=seven, headers=headers).status_code
            yield client.post("/v2/models/mnist/infer", json=inference, headers=headers).status_code

        assert list(statuses("")) == [200, 201, 200]
        for encoding in ("identity", " Identity "):
            assert list(statuses(encoding)) == [200, 200, 200]
        assert list(statuses("br")) == [415, 415, 415]


def test_limits_are_settings(digits):
    with application(max_batch=2, max_body=5000, max_pixels=900) as client:
        assert send(client, digits[:2].tobytes(), PIXELS).status_code == 200
        assert send(client, digits[:3].tobytes(), PIXELS).status_code == 413
        assert send(client, bytes(5001), PIXELS).status_code == 413
        assert send(client, picture(np.zeros((30, 31), np.uint8)), "image/png").status_code == 413


def test_pixels_of_all_pictures_together_are_limited(digits):
    files = [("files", (f"{i}.png", picture(enlarged(digits[0], 4)), "image/png")) for i in range(3)]
    with application(max_request_pixels=30_000) as client:
        assert (
            digits_of(client.post("/predict", files=files[:2]))
            == [digits_of(client.post("/predict", files=files[:1]))[0]] * 2
        )
        response = client.post("/predict", files=files)
        assert response.status_code == 413
        assert "37632 pixels together: must be at most 30000" in response.json()["detail"]


def test_large_pictures_are_read_and_keep_their_order(client, digits, truth):
    large = [picture(enlarged(digit, 50)) for digit in digits[:2]]
    files = [large[0], picture(digits[2]), large[1], picture(enlarged(digits[3], 20))]
    response = client.post("/predict", files=[("files", ("f.png", file, "image/png")) for file in files])
    assert digits_of(response) == truth[[0, 2, 1, 3]].tolist()


def test_large_picture_gets_no_longer_than_its_deadline(client):
    response = client.post(
        "/predict", params={"timeout": 20_000}, content=slow_pgm(), headers={"content-type": "image/x"}
    )
    assert response.status_code == 504
    assert "deadline" in response.json()["detail"]


def test_empty_picture_gets_a_prediction(client):
    white = np.full((50, 50), 255, np.uint8)
    assert len(predictions_of(send(client, picture(white), "image/png"))) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [(bytes(784), PIXELS), (json_of(IMAGE), JSON), (picture(BLACK), "image/png")],
    ids=["pixels", "JSON", "picture"],
)
def test_empty_image_is_not_accepted(client, body, kind):
    [prediction] = predictions_of(send(client, body, kind))
    assert (prediction["accepted"], prediction["reason"]) == (False, "empty")


def test_picture_of_two_digits_is_not_accepted(client, digits):
    page = enlarged(np.hstack([digits[0], digits[2]]), 5)
    [prediction] = predictions_of(send(client, picture(page), "image/png"))
    assert (prediction["accepted"], prediction["reason"]) == (False, "several")


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_picture_that_curl_has_changed_is_named(client, digits, format, kind):
    body = picture(enlarged(digits[0], 4), format).translate(None, b"\0\r\n")
    response = send(client, body, kind)
    assert response.status_code == 400
    assert "write --data-binary @FILE instead of -d @FILE" in response.json()["detail"]
