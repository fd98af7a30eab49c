"""The OpenAPI document says what each route takes and responds, and what browsers and caches get."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from serving.api.predict import PICTURE_TYPES, Predictions
from serving.api.problems import HEADERS
from tests.support import picture

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def operations(client):
    paths = client.get("/schema").json()["paths"]
    return [(path, operation) for path, methods in paths.items() for operation in methods.values()]


def test_every_error_has_the_form_that_the_service_sends(operations):
    for path, operation in operations:
        responses = operation["responses"]
        assert {"421", "500"} <= responses.keys(), path
        for status, response in responses.items():
            if status >= "400":
                kind = "application/json" if path.startswith("/v2") else "application/problem+json"
                form = "ProtocolError" if path.startswith("/v2") else "Problem"
                assert list(response["content"]) == [kind], (path, status)
                assert response["content"][kind]["schema"] == {"$ref": f"#/components/schemas/{form}"}


def test_errors_name_the_headers_that_the_service_sends(operations):
    """A client that was made from the document sees Retry-After only if the document has it."""
    found = set()
    for _, operation in operations:
        for status, response in operation["responses"].items():
            headers = response.get("headers", {})
            assert {*headers} == {*HEADERS.get(int(status), {})}
            assert all(header["description"] and header["schema"] for header in headers.values())
            found |= {(status, name) for name in headers}
    assert found == {("401", "WWW-Authenticate"), ("429", "Retry-After"), ("503", "Retry-After")}


def test_every_success_says_what_it_means(operations):
    for path, operation in operations:
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                assert response["description"] not in ("", "Request fulfilled, document follows"), path


def test_fields_of_a_prediction_are_described(client):
    forms = client.get("/schema").json()["components"]["schemas"]
    for name in ("Prediction", "NumberPrediction", "NumberLine", "NumberDigit", "Separator"):
        fields = forms[name]["properties"]
        plain = {"digit", "digits", "lines"} if name != "Prediction" else set()
        assert [field for field in fields if "description" not in fields[field]] == sorted(plain & fields.keys()), name
    assert "unsure: the confidence is below" in forms["Prediction"]["properties"]["reason"]["description"]


def test_every_process_has_the_same_order(client):
    """Sets, from which Litestar takes both, have another order in each process."""
    paths = client.get("/schema").json()["paths"]
    order = list(paths)
    assert [path for path in order if path.endswith("/stats")] == [
        "/v2/models/stats",
        "/v2/models/{name}/stats",
        "/v2/models/{name}/versions/{version}/stats",
    ]
    of_versions = [path for path in order if "{version}" in path]
    assert len(of_versions) == 5
    for path in of_versions:
        assert order[order.index(path) - 1] == path.replace("/versions/{version}", "")
        for operation in paths[path].values():
            assert [each["name"] for each in operation["parameters"] if each["in"] == "path"] == ["name", "version"]


def test_names_of_operations_are_unique_words(operations):
    """Programs that generate clients make the names of functions of them."""
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.isalpha()] == []


def test_box_has_four_numbers(client):
    forms = client.get("/schema").json()["components"]["schemas"]
    for name in ("NumberLine", "NumberDigit", "Separator"):
        box = forms[name]["properties"]["box"]
        assert (len(box["prefixItems"]), box["minItems"], box["maxItems"]) == (4, 4, 4)


def test_image_has_28_rows_of_28_pixels(client):
    """Every list of pixels has its bounds, in a request and in a response."""
    document = client.get("/schema").json()
    forms, body = document["components"]["schemas"], document["paths"]["/predict"]["post"]["requestBody"]["content"]
    shown = [forms[name]["properties"]["image"]["oneOf"][0] for name in ("Prediction", "NumberDigit")]
    for image in (*shown, body["application/json"]["schema"]["properties"]["images"]["items"]):
        row = image["items"]
        assert [(each["minItems"], each["maxItems"]) for each in (image, row)] == [(28, 28)] * 2
        assert row["items"] == {"type": "integer", "minimum": 0, "maximum": 255}


def test_names_of_forms_are_plain(client):
    """Two forms of one name would get the names of their modules in front of it."""
    names = client.get("/schema").json()["components"]["schemas"]
    assert [name for name in names if "_" in name] == []


def test_routes_that_respond_with_401_name_how_to_send_a_key(client, operations):
    schemes = client.get("/schema").json()["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["apiKey"]["name"]) == ("bearer", "X-API-Key")
    for path, operation in operations:
        assert ("security" in operation) == ("401" in operation["responses"]), path


def test_only_administration_always_needs_a_key(operations):
    needed = {operation["operationId"] for _, operation in operations if {} not in operation.get("security", [{}])}
    assert needed == {"feedback", "shadow", "promote", "drop", "canary", "loadModel", "unloadModel"}


def test_every_picture_type_of_the_document_is_read(client, operations):
    [operation] = [operation for path, operation in operations if path == "/predict"]
    content = operation["requestBody"]["content"]
    assert {*PICTURE_TYPES} <= content.keys()
    [example] = content["application/json"]["example"]["images"]
    image = np.kron(255 - np.array(example, np.uint8), np.ones((4, 4), np.uint8))
    for kind in PICTURE_TYPES:
        format = "PPM" if "portable" in kind else kind.partition("/")[2].upper()
        response = client.post("/predict", content=picture(image, format), headers={"content-type": kind})
        assert response.json()["predictions"][0]["digit"] == 1, kind


def test_examples_of_bodies_get_predictions(client, operations):
    examples = [
        (path, operation["requestBody"]["content"]["application/json"]["example"])
        for path, operation in operations
        if path in ("/predict", "/v2/models/{name}/infer")
        if "requestBody" in operation
    ]
    assert len(examples) == 2
    for path, example in examples:
        assert client.post(path.replace("{name}", "mnist"), json=example).status_code == 200


def test_example_of_a_response_has_every_field_of_its_form(operations):
    [operation] = [operation for path, operation in operations if path == "/predict"]
    [example] = operation["responses"]["200"]["content"]["application/json"]["examples"].values()
    msgspec.convert(example["value"], Predictions)  # Otherwise a client that was made from the document fails.
    assert [prediction["reason"] for prediction in example["value"]["predictions"]] == [None]


@pytest.mark.parametrize("path", ["/nowhere", "/a/b/c", "/docs/x", "/<script>", "/models/%20"])
def test_browser_gets_a_page_where_there_is_nothing(client, path):
    response = client.get(path, headers=BROWSER)
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "<script" not in response.text
    assert f'href="{"../" * (path.count("/") - 1) or "./"}docs"' in response.text
    assert client.get(path).headers["content-type"] == "application/problem+json"


def test_protocol_keeps_its_own_errors_for_a_browser(client):
    assert "error" in client.get("/v2/nowhere", headers=BROWSER).json()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *(("/certificate", "private, no-cache"), ("/models/mnist/card", "private, no-cache")),
        *(("/metrics", "no-store"), ("/", "no-cache"), ("/docs", "no-cache")),
    ],
)
def test_caches_are_told_what_they_may_keep(client, path, expected):
    assert client.get(path).headers["cache-control"] == expected
