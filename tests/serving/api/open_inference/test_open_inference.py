"""Conformance to the Open Inference Protocol v2 over REST, as a black box.

    pytest tests/serving/api/open_inference/test_open_inference.py --base-url http://host:8000 --model-name mnist

tests any server of the protocol. The inputs are generated from the model's metadata. The tests of an extension are
skipped if the server does not list it. Without --base-url the tests start this project's service.
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

JSON_LENGTH = "Inference-Header-Content-Length"
NUMPY_TYPES = {
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


class Client:
    """Sends inference requests with inputs generated from a model's metadata, and reads the responses."""

    def __init__(self, server, metadata):
        self.server, self.metadata = server, metadata
        self.path = f"/v2/models/{metadata['name']}/infer"
        random = np.random.default_rng(0)
        self.arrays = {
            tensor["name"]: random.integers(
                0, 100, [size if size > 0 else 2 for size in tensor["shape"]]
            ).astype(NUMPY_TYPES[tensor["datatype"]])
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
        return head + b"".join(tensors), {JSON_LENGTH: str(len(head))}

    def post(self, body=None, headers=None, path=None, **members):
        content = json.dumps({"inputs": self.inputs()} | members).encode() if body is None else body
        # The reference client sends no Content-Type either.
        request = self.server.build_request("POST", path or self.path, content=content, headers=headers)
        request.headers.pop("content-type", None)
        return self.server.send(request)

    def outputs(self, response):
        """Return the outputs in a response by name, as arrays. In the body they may be JSON or binary."""
        assert response.status_code == 200, response.text
        body, header = response.content, response.headers.get(JSON_LENGTH)
        decoded = json.loads(body[: int(header)] if header else body)
        rest = body[int(header) :] if header else b""
        arrays = {}
        for output in decoded["outputs"]:
            kind = NUMPY_TYPES[output["datatype"]]
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                array = np.array(output["data"], kind)
            else:
                array, rest = np.frombuffer(rest[:size], kind), rest[size:]
            arrays[output["name"]] = array.reshape(output["shape"])
        assert rest == b""
        return arrays


@pytest.fixture(scope="module")
def client(server, metadata):
    return Client(server, metadata)


def assert_rejected(response, *statuses):
    """Check that a response has one of the statuses and the protocol's form of an error."""
    assert response.status_code in statuses, response.text
    assert isinstance(response.json()["error"], str)
    assert response.json()["error"]


# Health and metadata


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_server_is_live_and_ready(server, path):
    assert server.get(path).status_code == 200


def test_server_metadata_has_name_version_and_extensions(server):
    response = server.get("/v2").json()
    assert isinstance(response["name"], str)
    assert isinstance(response["version"], str)
    assert all(isinstance(extension, str) for extension in response["extensions"])


def test_model_metadata_is_the_same_for_every_version(server, metadata, name):
    assert metadata["name"] == name
    assert isinstance(metadata["platform"], str)
    assert metadata["versions"]
    for tensor in metadata["inputs"] + metadata["outputs"]:
        assert tensor["datatype"] in {*NUMPY_TYPES, "BYTES"}
        assert all(isinstance(size, int) and (size > 0 or size == -1) for size in tensor["shape"])
    for version in metadata["versions"]:
        response = server.get(f"/v2/models/{name}/versions/{version}").json()
        assert {key: response[key] for key in ("name", "inputs", "outputs")} == {
            key: metadata[key] for key in ("name", "inputs", "outputs")
        }


def test_model_is_ready(server, metadata, name):
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{metadata['versions'][-1]}"):
        assert server.get(f"{path}/ready").status_code == 200


@pytest.mark.parametrize("path", ["", "/ready", "/versions/999999", "/versions/999999/ready", "/versions/x"])
def test_unknown_model_or_version_is_rejected(server, name, path):
    model = name if "versions" in path else f"{name}-that-does-not-exist"
    assert_rejected(server.get(f"/v2/models/{model}{path}"), 400, 404)


def test_unknown_path_and_method_are_rejected(server):
    assert_rejected(server.get("/v2/nothing-here"), 404)
    response = server.delete("/v2/health/live")
    assert_rejected(response, 405)
    assert "GET" in response.headers["allow"]


# Inference


def test_response_has_the_declared_outputs(client, metadata, name):
    response = client.post(id="forty-two").json()
    assert response["model_name"] == name
    assert response["model_version"] in metadata["versions"]
    assert response["id"] == "forty-two"
    assert [output["name"] for output in response["outputs"]] == [output["name"] for output in metadata["outputs"]]
    for output, declared in zip(response["outputs"], metadata["outputs"], strict=True):
        assert output["datatype"] == declared["datatype"]
        assert len(output["shape"]) == len(declared["shape"])
        assert np.array(output["data"]).size == math.prod(output["shape"])


def test_request_without_id_gets_a_response_without_id(client):
    assert "id" not in client.post().json()


def test_version_in_the_path_is_the_version_that_infers(client, metadata, name):
    version = metadata["versions"][-1]
    response = client.post(path=f"/v2/models/{name}/versions/{version}/infer")
    assert response.json()["model_version"] == version


def test_nested_and_flat_data_give_the_same_outputs(client):
    flat, nested = client.outputs(client.post()), client.outputs(client.post(inputs=client.inputs(nested=True)))
    for output in flat:
        np.testing.assert_array_equal(flat[output], nested[output])


def test_large_nested_and_flat_data_give_the_same_outputs(client):
    # The service decodes lists of this size in pieces.
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8)
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8"}
    flat, nested = (
        client.outputs(client.post(inputs=[tensor | {"data": d.tolist()}])) for d in (images.ravel(), images)
    )
    for output in flat:
        assert len(flat[output]) == len(images)
        np.testing.assert_array_equal(flat[output], nested[output])


def test_outputs_come_in_the_order_of_the_request(client, metadata):
    names = [output["name"] for output in metadata["outputs"]][::-1]
    response = client.post(outputs=[{"name": output} for output in names]).json()
    assert [output["name"] for output in response["outputs"]] == names
    one = client.post(outputs=[{"name": names[0]}]).json()
    assert [output["name"] for output in one["outputs"]] == names[:1]


def test_unknown_members_are_ignored(client):
    assert client.post(model_name="x", parameters={"unheard_of": 1}).status_code == 200


def test_null_means_absent(client, metadata):
    expected = client.post().json()
    inputs = [tensor | {"parameters": None} for tensor in client.inputs()]
    assert client.post(inputs=inputs, id=None, parameters=None, outputs=None).json() == expected
    outputs = [{"name": output["name"], "parameters": None} for output in metadata["outputs"]]
    assert client.post(outputs=outputs).json() == expected
    unset = {"timeout": None, "binary_data_output": None, "unheard_of": None}
    inputs = [tensor | {"parameters": {"binary_data_size": None}} for tensor in client.inputs()]
    outputs = [output | {"parameters": {"classification": None, "binary_data": None}} for output in outputs]
    assert client.post(inputs=inputs, parameters=unset, outputs=outputs).json() == expected


@pytest.mark.parametrize("timeout", [False, True, [], -1])
def test_timeout_that_is_no_number_of_at_least_0_is_rejected(client, timeout):
    assert_rejected(client.post(parameters={"timeout": timeout}), 400)


@pytest.mark.parametrize("repeats", [2, 1400])
def test_output_that_is_named_twice_is_rejected(client, metadata, repeats):
    output = {"name": metadata["outputs"][0]["name"]}
    assert_rejected(client.post(outputs=[output] * repeats), 400)
    assert_rejected(client.post(outputs=[output, output | {"parameters": {"binary_data": True}}]), 400)


@pytest.mark.parametrize("value", ["false", "true", "", 0, 1, 0.0, [], {}], ids=repr)
def test_truth_value_must_be_true_or_false(client, metadata, extension, value):
    extension("binary_tensor_data")
    assert_rejected(client.post(parameters={"binary_data_output": value}), 400)
    output = metadata["outputs"][0]["name"]
    assert_rejected(client.post(outputs=[{"name": output, "parameters": {"binary_data": value}}]), 400)


def changed_inputs(client, **changes):
    """Return the inputs of a valid request, with other members in the first one."""
    inputs = client.inputs()
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
def test_wrong_input_is_rejected(client, change):
    assert_rejected(client.post(inputs=changed_inputs(client, **change)), 400, 413)


def test_numbers_out_of_range_are_rejected(client, metadata):
    kind = np.dtype(NUMPY_TYPES[metadata["inputs"][0]["datatype"]])
    if kind.kind not in "iu":
        pytest.skip("the model takes no integers")
    for wrong in (int(np.iinfo(kind).max) + 1, int(np.iinfo(kind).min) - 1, 0.5, 10**30, True):
        data = client.inputs()[0]["data"]
        data[0] = wrong
        assert_rejected(client.post(inputs=changed_inputs(client, data=data)), 400)


def test_missing_and_duplicate_inputs_are_rejected(client):
    assert_rejected(client.post(inputs=[]), 400)
    assert_rejected(client.post(inputs=client.inputs() * 2), 400)
    assert_rejected(client.post(body=b"{}"), 400)


def test_unknown_output_is_rejected(client):
    assert_rejected(client.post(outputs=[{"name": "no-such-output"}]), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"inputs": 1}'])
def test_malformed_json_is_rejected(client, body):
    assert_rejected(client.post(body=body), 400)


def test_inference_with_an_unknown_model_is_rejected(client, name):
    assert_rejected(client.post(path=f"/v2/models/{name}-x/infer"), 400, 404)
    assert_rejected(client.post(path=f"/v2/models/{name}/versions/999999/infer"), 400, 404)


def test_server_still_infers_after_a_rejected_request(client):
    client.post(body=b"{")
    assert client.post().status_code == 200


# Binary tensors


def test_binary_tensors_equal_json_tensors_bit_for_bit(client, extension):
    extension("binary_tensor_data")
    expected = client.outputs(client.post())
    body, headers = client.binary_body(parameters={"binary_data_output": True})
    response = client.post(body, headers)
    assert response.headers["content-type"] == "application/octet-stream"
    for actual in (client.outputs(response), client.outputs(client.post(*client.binary_body()))):
        for output in expected:
            np.testing.assert_array_equal(actual[output], expected[output])


def test_response_without_binary_outputs_is_plain_json(client, extension):
    extension("binary_tensor_data")
    response = client.post(*client.binary_body())
    assert JSON_LENGTH not in response.headers
    assert response.headers["content-type"].startswith("application/json")
    assert "binary_data_size" not in response.text


def test_parameter_of_an_output_overrides_the_parameter_of_the_request(client, metadata, extension):
    extension("binary_tensor_data")
    first, *others = (output["name"] for output in metadata["outputs"])
    outputs = [{"name": first, "parameters": {"binary_data": False}}, *({"name": other} for other in others)]
    response = client.post(parameters={"binary_data_output": True}, outputs=outputs)
    client.outputs(response)
    described = json.loads(response.content[: int(response.headers.get(JSON_LENGTH, len(response.content)))])["outputs"]
    assert "data" in described[0]
    assert all("binary_data_size" in output["parameters"] for output in described[1:])


@pytest.mark.parametrize("header", ["x", "-1", "1e3", "99999999", "1.0", "٣", "9" * 5000, "0" * 5000, "1_0", "0x10"])
def test_wrong_json_length_is_rejected(client, extension, header):
    extension("binary_tensor_data")
    body, _ = client.binary_body()
    assert_rejected(client.post(body, {JSON_LENGTH: header.encode()}), 400)


@pytest.mark.parametrize("change", [b"", b"more"])
def test_body_shorter_or_longer_than_its_tensors_is_rejected(client, extension, change):
    extension("binary_tensor_data")
    body, headers = client.binary_body()
    assert_rejected(client.post(body + change if change else body[:-1], headers), 400)


@pytest.mark.parametrize("size", [0, -1, 1, 2**40, "8", 1.5, None, True])
def test_wrong_binary_size_is_rejected(client, extension, size):
    extension("binary_tensor_data")
    tensor = client.inputs()[0]
    content = client.arrays[tensor["name"]].tobytes()
    del tensor["data"]
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}).encode()
    assert_rejected(client.post(head + content, {JSON_LENGTH: str(len(head))}), 400)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_request_gets_the_same_outputs(client, extension, encoding, pack):
    extension("binary_tensor_data")
    body, headers = client.binary_body(parameters={"binary_data_output": True})
    sent = {"content-encoding": encoding, "accept-encoding": encoding}
    outputs = client.outputs(client.post(pack(body), headers | sent))
    expected = client.outputs(client.post())
    for output in expected:
        np.testing.assert_array_equal(outputs[output], expected[output])


def test_unknown_encoding_and_damaged_compression_are_rejected(client):
    assert_rejected(client.post(b"x", {"content-encoding": "br"}), 400, 415)
    assert_rejected(client.post(b"x", {"content-encoding": "gzip"}), 400)
    packed = gzip.compress(json.dumps({"inputs": client.inputs()}).encode())
    assert_rejected(client.post(packed[:-10], {"content-encoding": "gzip"}), 400)


def test_decompression_bomb_is_rejected(client):
    assert_rejected(client.post(gzip.compress(bytes(200_000_000)), {"content-encoding": "gzip"}), 400, 413)


# Raw requests


def test_raw_request_is_one_image_without_json(client, extension, metadata):
    extension("raw_request")
    if len(client.arrays) != 1:
        pytest.skip("the model has several inputs")
    [array] = client.arrays.values()
    outputs = client.outputs(client.post(array[:1].tobytes(), {JSON_LENGTH: "0"}))
    expected = client.outputs(
        client.post(inputs=changed_inputs(client, shape=[1, *array.shape[1:]], data=array[:1].ravel().tolist()))
    )
    for output in expected:
        np.testing.assert_array_equal(outputs[output], expected[output])
    assert_rejected(client.post(array[:1].tobytes()[:-1], {JSON_LENGTH: "0"}), 400)
    assert_rejected(client.post(b"", {JSON_LENGTH: "0"}), 400)


# Classification


def by_class(metadata):
    """Return the name of an output that has a value for each class."""
    return [output["name"] for output in metadata["outputs"] if len(output["shape"]) == 2][-1]


def test_classification_gives_the_highest_values_with_their_classes(client, extension, metadata):
    extension("classification")
    output = by_class(metadata)
    values = client.outputs(client.post())[output]
    response = client.post(outputs=[{"name": output, "parameters": {"classification": 3}}]).json()["outputs"][0]
    assert response["datatype"] == "BYTES"
    assert response["shape"] == [len(values), 3]
    texts = [text.split(":") for text in response["data"]]
    for row, expected in zip(np.reshape([int(index) for _, index, *_ in texts], (-1, 3)), values, strict=True):
        assert row.tolist() == np.argsort(-expected, kind="stable")[:3].tolist()
    for value, index, *_ in texts:
        assert np.isclose(float(value), values[:, int(index)], rtol=1e-4).any()


def test_binary_classification_has_a_length_before_each_text(client, extension, metadata):
    extension("classification")
    output = by_class(metadata)
    plain = client.post(outputs=[{"name": output, "parameters": {"classification": 2}}]).json()["outputs"][0]["data"]
    binary = client.post(outputs=[{"name": output, "parameters": {"classification": 2, "binary_data": True}}])
    rest, texts = binary.content[int(binary.headers[JSON_LENGTH]) :], []
    while rest:
        size = int.from_bytes(rest[:4], "little")
        texts.append(rest[4 : 4 + size].decode())
        rest = rest[4 + size :]
    assert texts == plain


@pytest.mark.parametrize("top", [-1, "3", 1.5, True])
def test_wrong_classification_is_rejected(client, extension, metadata, top):
    extension("classification")
    outputs = [{"name": metadata["outputs"][0]["name"], "parameters": {"classification": top}}]
    assert_rejected(client.post(outputs=outputs), 400)


# Repository, configuration, statistics


def test_index_lists_the_model(server, name, extension):
    extension("model_repository")
    for body in (b"", b"{}", b'{"ready": true}'):
        entries = server.post("/v2/repository/index", content=body).json()
        assert name in [entry["name"] for entry in entries]
        assert all(entry["state"] in ("READY", "UNAVAILABLE", "LOADING", "UNLOADING") for entry in entries)
        assert all({"name", "version", "state", "reason"} <= entry.keys() for entry in entries)
    assert_rejected(server.post("/v2/repository/index", content=b"["), 400)


def test_unloaded_model_infers_again_after_it_is_loaded(server, name, client, extension):
    extension("model_repository")
    assert server.post(f"/v2/repository/models/{name}/unload").status_code == 200
    assert server.get(f"/v2/models/{name}/ready").status_code >= 400
    assert_rejected(client.post(), 400, 404, 503)
    assert server.post(f"/v2/repository/models/{name}/load", json={"parameters": {}}).status_code == 200
    assert server.get(f"/v2/models/{name}/ready").status_code == 200
    assert client.post().status_code == 200
    for action in ("load", "unload"):
        assert_rejected(server.post(f"/v2/repository/models/{name}-x/{action}"), 400, 404)


def test_configuration_has_the_tensors_of_the_metadata(server, name, metadata, extension):
    extension("model_configuration")
    response = server.get(f"/v2/models/{name}/config").json()
    assert response["name"] == name
    assert {tensor["name"] for tensor in response["input"]} == {tensor["name"] for tensor in metadata["inputs"]}
    assert all(tensor["data_type"].startswith("TYPE_") for tensor in response["input"] + response["output"])


def test_statistics_count_an_inference(server, name, client, extension):
    extension("statistics")

    version = client.metadata["versions"][-1]

    def read():
        [entry] = server.get(f"/v2/models/{name}/versions/{version}/stats").json()["model_stats"]
        return entry

    before = read()
    client.post()
    after = read()
    array = next(iter(client.arrays.values()))
    assert after["inference_count"] - before["inference_count"] == len(array)
    assert after["execution_count"] - before["execution_count"] == 1
    for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        assert {"count", "ns"} <= after["inference_stats"][part].keys()
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert name in [entry["name"] for entry in server.get("/v2/models/stats").json()["model_stats"]]
    assert_rejected(server.get(f"/v2/models/{name}-x/stats"), 400, 404)
