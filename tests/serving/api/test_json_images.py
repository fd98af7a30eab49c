"""Images in JSON are decoded one at a time, and any text gets a result or an error."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest

from serving.api.bodies import decode_json
from serving.api.json_images import MAX_IMAGE_TEXT, pixels_of
from serving.api.open_inference import tensors
from serving.errors import InputError, InputTooLargeError

IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28)).tolist()
TEXT = json.dumps(IMAGE, separators=(",", ":")).encode()
SIZE = 8_000_000


@pytest.mark.parametrize("indent", [None, 0, 1, 4, "\t"])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_list_in_any_layout_is_read(indent, count):
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
    text = json.dumps(images.tolist(), indent=indent).encode()
    assert pixels_of(text, "$", count) == images.tobytes()
    assert pixels_of(text.replace(b"]", b" \r\n\t] "), "$", count) == images.tobytes()
    with pytest.raises(InputTooLargeError, match=f"at most {count - 1}"):
        pixels_of(text, "$", count - 1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_is_named(client, encoding):
    # Programs of Windows write one, and no editor shows it.
    pixels = json.dumps({"images": [IMAGE]}).encode(encoding)
    tensor = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": IMAGE}
    request = json.dumps({"inputs": [tensor]}).encode(encoding)
    for path, body in (("/predict", pixels), ("/v2/models/mnist/infer", request)):
        response = client.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400
        assert "byte order mark; JSON must be UTF-8 without this mark" in response.text


def test_empty_list_has_no_image():
    assert pixels_of(b"[]", "$", 1) == pixels_of(b"[ \n ]", "$", 1) == b""


def test_text_of_an_image_has_a_limit():
    spaces = b" " * (MAX_IMAGE_TEXT - len(TEXT))
    assert len(pixels_of(b"[" + TEXT.replace(b",", b"," + spaces, 1) + b"]", "$", 1)) == 784
    with pytest.raises(InputError, match="65536 bytes"):
        pixels_of(b"[" + TEXT.replace(b",", b"," + spaces + b" ", 1) + b"]", "$", 1)


WRONG = {
    "no list": (b"1", "got `int` - at `$`"),
    "number": (b"[1]", "got `int` - at `$[0]`"),
    "fraction": (b"[-1.5]", "got `float` - at `$[0]`"),
    "text with brackets": (b'["]]"]', "got `str` - at `$[0]`"),
    "null": (b"[null]", "got `null` - at `$[0]`"),
    "object": (b'[{"a":[[1]]}]', "got `object` - at `$[0]`"),
    "list of numbers": (b"[[1,2]]", "got `int` - at `$[0][0]`"),
    "text in the image": (b'[["]]"]]', "$[0]"),
    "object in the image": (b'[[{"a":[[1]]}]]', "got `object` - at `$[0][0]`"),
    "deeper nesting": (b"[[[[1]]]]", "$[0]"),
    "empty image": (b"[[],%b]" % TEXT, "length >= 28 - at `$[0]`"),
    "second image": (b"[%b,7]" % TEXT, "got `int` - at `$[1]`"),
    "short row in the second image": (b"[%b,[[1]]]" % TEXT, "at `$[1][0]`"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_message_names_the_place(text, message):
    json.loads(text)
    with pytest.raises(InputError) as raised:
        pixels_of(text, "$", 10)
    assert message in str(raised.value)


def filled(start, element, end):
    return start + element * ((SIZE - len(start) - len(end)) // len(element)) + end


ELEMENTS = {
    "ones": (b"1,", b"1"),
    "empty lists": (b"[],", b"1"),
    "short lists": (b"[1],", b"1"),
    "short images": (b"[[1]],", b"1"),
    "nested brackets": (b"[[1],1],", b"1"),
    "objects": (b'{"":0},', b"1"),
    "spaces": (b" ", b"1"),
    "large numbers": (b"9" * 4000 + b",", b"1"),
    "images": (TEXT + b",", TEXT),
}
START = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,28,28],"data":['


def decode_inference(body, max_batch):
    asked, images = tensors.decode(body, None, max_batch)
    return asked, images


def assert_cheap(decode, body):
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(InputError):
            decode(body, 1024)
        assert time.monotonic() - started < 30
        assert tracemalloc.get_traced_memory()[1] < 3 * SIZE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("element", "last"), ELEMENTS.values(), ids=ELEMENTS.keys())
def test_hostile_json_takes_little_time_and_memory(element, last):
    assert_cheap(decode_json, filled(b'{"images":[', element, last + b"]}"))
    assert_cheap(decode_inference, filled(START, element, last + b"]}]}"))


TENSOR = b'{"name":"images","datatype":"UINT8","shape":[1,28,28]},'
MEMBERS = {
    "shape": filled(b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[', b"1,", b"1]}]}"),
    "inputs": filled(b'{"inputs":[', TENSOR, TENSOR[:-1] + b"]}"),
    "parameters": b'{"inputs":1,"parameters":{%b}}' % b",".join(b'"%x":1' % i for i in range(SIZE // 11)),
    "members": b'{"inputs":1,%b}' % b",".join(b'"%x":1' % i for i in range(SIZE // 11)),
    "member given often": filled(b'{"inputs":1', b',"inputs":1', b"}"),
    "name": filled(b'{"inputs":[{"name":"', b"\\u0001", b'","datatype":"UINT8","shape":[1,28,28]}]}'),
    "datatype": filled(b'{"inputs":[{"name":"images","datatype":"', "\u00e9".encode(), b'","shape":[1,28,28]}]}'),
    "deep nesting": b'{"x":' + b"[" * (SIZE // 2) + b"]" * (SIZE // 2) + b"}",
    "deep objects": b'{"x":' * (SIZE // 6) + b"1" + b"}" * (SIZE // 6),
    "digits": filled(START, b"9", b"]}]}"),
}


@pytest.mark.parametrize("body", MEMBERS.values(), ids=MEMBERS.keys())
def test_hostile_inference_request_takes_little_time_and_memory(body):
    assert_cheap(decode_inference, body)
