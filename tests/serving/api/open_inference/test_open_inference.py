"""Conformance to the Open Inference Protocol v2 over REST, as a black box.

    pytest tests/test_open_inference.py --base-url http://host:8000 --model-name mnist

points it at any server of the protocol: inputs are made up from the model's metadata, and an extension
that the server does not list is skipped. Without --base-url it starts our own.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib

import httpx
import numpy as np
import pytest

from tests.support import service

HEADER = "Inference-Header-Content-Length"
NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


@pytest.fixture(scope="module")
def server(request):
    url = request.config.getoption("--base-url")
    if url:
        with httpx.Client(base_url=url) as client:
            yield client
    else:
        with service("--admin-keys", "key") as (url, _), httpx.Client(base_url=url) as client:
            client.headers["x-api-key"] = "key"
            yield client


@pytest.fixture(scope="module")
def name(request):
    return request.config.getoption("--model-name")


@pytest.fixture(scope="module")
def metadata(server, name):
    return server.get(f"/v2/models/{name}").json()


@pytest.fixture
def extension(server):
    offered = server.get("/v2").json()["extensions"]

    def require(extension):
        if extension not in offered:
            pytest.skip(f"the server does not offer {extension}")

    return require


class Asker:
    """Requests made up from a model's metadata, and its answers."""

    def __init__(self, server, metadata):
        self.server, self.metadata = server, metadata
        self.path = f"/v2/models/{metadata['name']}/infer"
        random = np.random.default_rng(0)
        self.arrays = {
            tensor["name"]: random.integers(
                0, 100, [size if size > 0 else 2 for size in tensor["shape"]]
            ).astype(NUMPY[tensor["datatype"]])
            for tensor in metadata["inputs"]
        }  # fmt: skip

    def inputs(self, *, nested=False):
        return [
            {
                "name": tensor["name"],
                "datatype": tensor["datatype"],
                "shape": list(self.arrays[tensor["name"]].shape),
                "data": (self.arrays[tensor["name"]] if nested else self.arrays[tensor["name"]].ravel()).tolist(),
            }
            for tensor in self.metadata["inputs"]
        ]

    def binary_body(self, **members):
        inputs, tensors = [], []
        for tensor in self.inputs():
            content = self.arrays[tensor["name"]].tobytes()
            tensors.append(content)
            del tensor["data"]
            inputs.append(tensor | {"parameters": {"binary_data_size": len(content)}})
        head = json.dumps({"inputs": inputs} | members).encode()
        return head + b"".join(tensors), {HEADER: str(len(head))}

    def post(self, body=None, headers=None, path=None, **members):
        content = json.dumps({"inputs": self.inputs()} | members).encode() if body is None else body
        # As the reference client does: no Content-Type.
        request = self.server.build_request("POST", path or self.path, content=content, headers=headers)
        request.headers.pop("content-type", None)
        return self.server.send(request)

    def outputs(self, response):
        """Outputs by name as arrays, JSON or binary."""
        assert response.status_code == 200, response.text
        body, header = response.content, response.headers.get(HEADER)
        answer = json.loads(body[: int(header)] if header else body)
        rest = body[int(header) :] if header else b""
        arrays = {}
        for output in answer["outputs"]:
            kind = NUMPY[output["datatype"]]
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                array = np.array(output["data"], kind)
            else:
                array, rest = np.frombuffer(rest[:size], kind), rest[size:]
            arrays[output["name"]] = array.reshape(output["shape"])
        assert rest == b""
        return arrays


@pytest.fixture(scope="module")
def ask(server, metadata):
    return Asker(server, metadata)


def refused(response, *statuses):
    assert response.status_code in statuses, response.text
    assert isinstance(response.json()["error"], str)
    assert response.json()["error"]


# Health and metadata


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health(server, path):
    assert server.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_metadata(server, path):
    answer = server.get(path).json()
    assert isinstance(answer["name"], str)
    assert isinstance(answer["version"], str)
    assert all(isinstance(extension, str) for extension in answer["extensions"])


def test_model_metadata(server, metadata, name):
    assert metadata["name"] == name
    assert isinstance(metadata["platform"], str)
    assert metadata["versions"]
    for tensor in metadata["inputs"] + metadata["outputs"]:
        assert tensor["datatype"] in {*NUMPY, "BYTES"}
        assert all(isinstance(size, int) and (size > 0 or size == -1) for size in tensor["shape"])
    for version in metadata["versions"]:
        answer = server.get(f"/v2/models/{name}/versions/{version}").json()
        assert {key: answer[key] for key in ("name", "inputs", "outputs")} == {
            key: metadata[key] for key in ("name", "inputs", "outputs")
        }


def test_model_ready(server, metadata, name):
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{metadata['versions'][-1]}"):
        assert server.get(f"{path}/ready").status_code == 200


@pytest.mark.parametrize("path", ["", "/ready", "/versions/999999", "/versions/999999/ready", "/versions/x"])
def test_unknown_model_or_version(server, name, path):
    model = name if "versions" in path else f"{name}-that-does-not-exist"
    refused(server.get(f"/v2/models/{model}{path}"), 400, 404)


def test_unknown_path_and_method(server):
    refused(server.get("/v2/nothing-here"), 404)
    answer = server.delete("/v2/health/live")
    refused(answer, 405)
    assert "GET" in answer.headers["allow"]


# Inference


def test_answer(ask, metadata, name):
    answer = ask.post(id="forty-two").json()
    assert answer["model_name"] == name
    assert answer["model_version"] in metadata["versions"]
    assert answer["id"] == "forty-two"
    assert [output["name"] for output in answer["outputs"]] == [output["name"] for output in metadata["outputs"]]
    for output, declared in zip(answer["outputs"], metadata["outputs"], strict=True):
        assert output["datatype"] == declared["datatype"]
        assert len(output["shape"]) == len(declared["shape"])
        assert np.array(output["data"]).size == math.prod(output["shape"])


def test_no_id_gives_no_id(ask):
    assert "id" not in ask.post().json()


def test_version_in_the_path(ask, metadata, name):
    version = metadata["versions"][-1]
    answer = ask.post(path=f"/v2/models/{name}/versions/{version}/infer")
    assert answer.json()["model_version"] == version


def test_nested_and_flat_data_are_the_same(ask):
    flat, nested = ask.outputs(ask.post()), ask.outputs(ask.post(inputs=ask.inputs(nested=True)))
    for output in flat:
        np.testing.assert_array_equal(flat[output], nested[output])


def test_large_lists_are_the_same_flat_and_nested(ask):
    """So large that they are read in parts."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8)
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8"}
    flat, nested = (ask.outputs(ask.post(inputs=[tensor | {"data": d.tolist()}])) for d in (images.ravel(), images))
    for output in flat:
        assert len(flat[output]) == len(images)
        np.testing.assert_array_equal(flat[output], nested[output])


def test_outputs_in_the_order_asked_for(ask, metadata):
    names = [output["name"] for output in metadata["outputs"]][::-1]
    answer = ask.post(outputs=[{"name": output} for output in names]).json()
    assert [output["name"] for output in answer["outputs"]] == names
    one = ask.post(outputs=[{"name": names[0]}]).json()
    assert [output["name"] for output in one["outputs"]] == names[:1]


def test_unknown_members_are_passed_over(ask):
    assert ask.post(model_name="x", parameters={"unheard_of": 1}).status_code == 200


def first(ask, **changes):
    inputs = ask.inputs()
    inputs[0] |= changes
    return inputs


@pytest.mark.parametrize(
    "change",
    [
        {"name": "no-such-input"},
        {"datatype": "NONSENSE"},
        {"datatype": "BYTES"},
        {"shape": []},
        {"shape": [-1, 28, 28]},
        {"shape": [2**62, 28, 28]},
        {"shape": [3, 28, 28]},
        {"shape": ["2", 28, 28]},
        {"shape": "2"},
        {"data": []},
        {"data": "text"},
        {"data": None},
        {"data": {"a": 1}},
        {"data": ["1"] * 1568},
        {"data": [[1], [2, 3]]},
    ],
    ids=str,
)
def test_wrong_input_is_refused(ask, change):
    refused(ask.post(inputs=first(ask, **change)), 400, 413)


def test_numbers_out_of_range_are_refused(ask, metadata):
    kind = np.dtype(NUMPY[metadata["inputs"][0]["datatype"]])
    if kind.kind not in "iu":
        pytest.skip("the model takes no integers")
    for wrong in (int(np.iinfo(kind).max) + 1, int(np.iinfo(kind).min) - 1, 0.5, 10**30, True):
        data = ask.inputs()[0]["data"]
        data[0] = wrong
        refused(ask.post(inputs=first(ask, data=data)), 400)


def test_missing_and_doubled_inputs_are_refused(ask):
    refused(ask.post(inputs=[]), 400)
    refused(ask.post(inputs=ask.inputs() * 2), 400)
    refused(ask.post(body=b"{}"), 400)


def test_unknown_output_is_refused(ask):
    refused(ask.post(outputs=[{"name": "no-such-output"}]), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"inputs": 1}'])
def test_malformed_json_is_refused(ask, body):
    refused(ask.post(body=body), 400)


def test_unknown_model_is_refused(ask, name):
    refused(ask.post(path=f"/v2/models/{name}-x/infer"), 400, 404)
    refused(ask.post(path=f"/v2/models/{name}/versions/999999/infer"), 400, 404)


def test_server_goes_on_after_refusals(ask):
    ask.post(body=b"{")
    assert ask.post().status_code == 200


# Binary tensors


def test_binary_is_json_bit_for_bit(ask, extension):
    extension("binary_tensor_data")
    expected = ask.outputs(ask.post())
    body, headers = ask.binary_body(parameters={"binary_data_output": True})
    answer = ask.post(body, headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    for actual in (ask.outputs(answer), ask.outputs(ask.post(*ask.binary_body()))):
        for output in expected:
            np.testing.assert_array_equal(actual[output], expected[output])


def test_no_binary_output_gives_plain_json(ask, extension):
    extension("binary_tensor_data")
    answer = ask.post(*ask.binary_body())
    assert HEADER not in answer.headers
    assert answer.headers["content-type"].startswith("application/json")
    assert "binary_data_size" not in answer.text


def test_an_output_overrides_the_request(ask, metadata, extension):
    extension("binary_tensor_data")
    first, *others = (output["name"] for output in metadata["outputs"])
    outputs = [{"name": first, "parameters": {"binary_data": False}}, *({"name": other} for other in others)]
    answer = ask.post(parameters={"binary_data_output": True}, outputs=outputs)
    ask.outputs(answer)
    described = json.loads(answer.content[: int(answer.headers.get(HEADER, len(answer.content)))])["outputs"]
    assert "data" in described[0]
    assert all("binary_data_size" in output["parameters"] for output in described[1:])


@pytest.mark.parametrize("header", ["x", "-1", "1e3", "99999999", "1.0", "٣"])
def test_wrong_header_length_is_refused(ask, extension, header):
    extension("binary_tensor_data")
    body, _ = ask.binary_body()
    refused(ask.post(body, {HEADER: header.encode()}), 400)


@pytest.mark.parametrize("change", [b"", b"more"])
def test_sizes_that_do_not_add_up_are_refused(ask, extension, change):
    extension("binary_tensor_data")
    body, headers = ask.binary_body()
    refused(ask.post(body + change if change else body[:-1], headers), 400)


@pytest.mark.parametrize("size", [0, -1, 1, 2**40, "8", 1.5, None, True])
def test_wrong_binary_size_is_refused(ask, extension, size):
    extension("binary_tensor_data")
    tensor = ask.inputs()[0]
    content = ask.arrays[tensor["name"]].tobytes()
    del tensor["data"]
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}).encode()
    refused(ask.post(head + content, {HEADER: str(len(head))}), 400)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_both_ways(ask, extension, encoding, pack):
    extension("binary_tensor_data")
    body, headers = ask.binary_body(parameters={"binary_data_output": True})
    sent = {"content-encoding": encoding, "accept-encoding": encoding}
    answer = ask.outputs(ask.post(pack(body), headers | sent))
    expected = ask.outputs(ask.post())
    for output in expected:
        np.testing.assert_array_equal(answer[output], expected[output])


def test_unknown_encoding_and_damaged_compression_are_refused(ask):
    refused(ask.post(b"x", {"content-encoding": "br"}), 400, 415)
    refused(ask.post(b"x", {"content-encoding": "gzip"}), 400)
    packed = gzip.compress(json.dumps({"inputs": ask.inputs()}).encode())
    refused(ask.post(packed[:-10], {"content-encoding": "gzip"}), 400)


def test_a_compressed_bomb_is_refused(ask):
    refused(ask.post(gzip.compress(bytes(200_000_000)), {"content-encoding": "gzip"}), 400, 413)


# Raw requests


def test_raw_request(ask, extension, metadata):
    extension("raw_request")
    if len(ask.arrays) != 1:
        pytest.skip("the model has several inputs")
    [array] = ask.arrays.values()
    answer = ask.outputs(ask.post(array[:1].tobytes(), {HEADER: "0"}))
    expected = ask.outputs(ask.post(inputs=first(ask, shape=[1, *array.shape[1:]], data=array[:1].ravel().tolist())))
    for output in expected:
        np.testing.assert_array_equal(answer[output], expected[output])
    refused(ask.post(array[:1].tobytes()[:-1], {HEADER: "0"}), 400)
    refused(ask.post(b"", {HEADER: "0"}), 400)


# Classification


def by_class(metadata):
    """An output with a value for each class."""
    return [output["name"] for output in metadata["outputs"] if len(output["shape"]) == 2][-1]


def test_classification(ask, extension, metadata):
    extension("classification")
    output = by_class(metadata)
    values = ask.outputs(ask.post())[output]
    answer = ask.post(outputs=[{"name": output, "parameters": {"classification": 3}}]).json()["outputs"][0]
    assert answer["datatype"] == "BYTES"
    assert answer["shape"] == [len(values), 3]
    texts = [text.split(":") for text in answer["data"]]
    for row, expected in zip(np.reshape([int(index) for _, index, *_ in texts], (-1, 3)), values, strict=True):
        assert row.tolist() == np.argsort(-expected, kind="stable")[:3].tolist()
    for value, index, *_ in texts:
        assert np.isclose(float(value), values[:, int(index)], rtol=1e-4).any()


def test_binary_classification_is_length_and_bytes(ask, extension, metadata):
    extension("classification")
    output = by_class(metadata)
    plain = ask.post(outputs=[{"name": output, "parameters": {"classification": 2}}]).json()["outputs"][0]["data"]
    binary = ask.post(outputs=[{"name": output, "parameters": {"classification": 2, "binary_data": True}}])
    rest, texts = binary.content[int(binary.headers[HEADER]) :], []
    while rest:
        size = int.from_bytes(rest[:4], "little")
        texts.append(rest[4 : 4 + size].decode())
        rest = rest[4 + size :]
    assert texts == plain


@pytest.mark.parametrize("top", [-1, "3", 1.5, True])
def test_wrong_classification_is_refused(ask, extension, metadata, top):
    extension("classification")
    outputs = [{"name": metadata["outputs"][0]["name"], "parameters": {"classification": top}}]
    refused(ask.post(outputs=outputs), 400)


# Repository, configuration, statistics


def test_index(server, name, extension):
    extension("model_repository")
    for body in (b"", b"{}", b'{"ready": true}'):
        entries = server.post("/v2/repository/index", content=body).json()
        assert name in [entry["name"] for entry in entries]
        assert all(entry["state"] in ("READY", "UNAVAILABLE", "LOADING", "UNLOADING") for entry in entries)
        assert all({"name", "version", "state", "reason"} <= entry.keys() for entry in entries)
    refused(server.post("/v2/repository/index", content=b"["), 400)


def test_unload_and_load(server, name, ask, extension):
    extension("model_repository")
    assert server.post(f"/v2/repository/models/{name}/unload").status_code == 200
    assert server.get(f"/v2/models/{name}/ready").status_code >= 400
    refused(ask.post(), 400, 404, 503)
    assert server.post(f"/v2/repository/models/{name}/load", json={"parameters": {}}).status_code == 200
    assert server.get(f"/v2/models/{name}/ready").status_code == 200
    assert ask.post().status_code == 200
    for action in ("load", "unload"):
        refused(server.post(f"/v2/repository/models/{name}-x/{action}"), 400, 404)


def test_configuration(server, name, metadata, extension):
    extension("model_configuration")
    answer = server.get(f"/v2/models/{name}/config").json()
    assert answer["name"] == name
    assert {tensor["name"] for tensor in answer["input"]} == {tensor["name"] for tensor in metadata["inputs"]}
    assert all(tensor["data_type"].startswith("TYPE_") for tensor in answer["input"] + answer["output"])


def test_statistics_count(server, name, ask, extension):
    extension("statistics")

    def read():
        [entry] = server.get(f"/v2/models/{name}/versions/{ask.metadata['versions'][-1]}/stats").json()["model_stats"]
        return entry

    before = read()
    ask.post()
    after = read()
    [array] = [next(iter(ask.arrays.values()))]
    assert after["inference_count"] - before["inference_count"] == len(array)
    assert after["execution_count"] - before["execution_count"] == 1
    for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        assert {"count", "ns"} <= after["inference_stats"][part].keys()
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert name in [entry["name"] for entry in server.get("/v2/models/stats").json()["model_stats"]]
    refused(server.get(f"/v2/models/{name}-x/stats"), 400, 404)
