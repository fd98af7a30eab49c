"""What the decoder says about input tensors that it rejects."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving.api.open_inference.tensors import FLAT_PIECE_BYTES, decode
from serving.errors import InputError
from serving.open_inference.messages import MAX_ID

ROW = [0] * 28
IMAGE = [ROW] * 28

# JSON data of an input with the shape [2, 28, 28], and a part of the message.
REJECTED_DATA = {
    "one image too few": ([IMAGE], "data has 784 numbers, but shape [2, 28, 28] needs 1568"),
    "one number too few": ([0] * 1567, "data has 1567 numbers, but shape [2, 28, 28] needs 1568"),
    "short row": ([IMAGE, [ROW] * 27 + [[0]]], "`$.inputs[0].data[1][27]`"),
    "nested number out of range": ([IMAGE, [[256] * 28] * 28], "out of range - at `$.inputs[0].data[1]`"),
    "flat number out of range": ([0] * 1567 + [256], "`$.inputs[0].data` has a number out of range"),
    "nested fraction": ([IMAGE, [[0.5] * 28] * 28], "got `float` - at `$.inputs[0].data[1][0][0]`"),
    "flat fraction": ([0.5] * 1568, "`$.inputs[0].data` is not a list of integers"),
    "mixed nesting": ([IMAGE, 0], "got `int` - at `$.inputs[0].data[1]`"),
    "text": ("text", "`$.inputs[0].data` is not a list of integers"),
}


def request(data, count=2):
    tensor = {"name": "images", "shape": [count, 28, 28], "datatype": "UINT8", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(("data", "message"), REJECTED_DATA.values(), ids=REJECTED_DATA.keys())
def test_message_says_what_is_wrong_and_where(data, message):
    with pytest.raises(InputError) as raised:
        decode(request(data), None, max_batch=1024)
    assert message in str(raised.value)


@pytest.mark.parametrize("length", ["", "x", "-1", "+1", "1_0", " 1", "1e3", "\u0663", "99999999", "9" * 5000])
def test_wrong_json_length_is_rejected(length):
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        decode(request([0] * 1568), length, max_batch=1024)


def test_id_is_limited_because_it_comes_back_in_the_response():
    def body(size):
        return request([IMAGE] * 2).replace(b"{", b'{"id": "%b", ' % (b"a" * size), 1)

    assert decode(body(MAX_ID), None, max_batch=1024)[0].id == "a" * MAX_ID
    with pytest.raises(InputError, match=rf"length <= {MAX_ID} - at `\$.id`"):
        decode(body(MAX_ID + 1), None, max_batch=1024)


@pytest.mark.parametrize("depth", [10, 100, 1000, 100_000])
def test_deep_nesting_is_rejected(depth):
    body = request("DATA").replace(b'"DATA"', b"[" * depth + b"0" + b"]" * depth)
    with pytest.raises(InputError):
        decode(body, None, max_batch=1024)


def test_flat_list_is_read_in_pieces_without_losing_a_number():
    images = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
    body = request(images.ravel().tolist(), len(images))
    assert len(body) > 3 * FLAT_PIECE_BYTES
    np.testing.assert_array_equal(decode(body, None, max_batch=1024)[1], images)
