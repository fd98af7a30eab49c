"""Responses of POST /predict."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.api import card, feedback, rollout
from serving.api import predict as route
from tests.support import PIXELS, picture


def predict(client, images):
    return client.post("/predict", content=images.tobytes(), headers=PIXELS)


def predictions_of(response):
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def test_members_of_a_prediction_agree(client, digits):
    response = predict(client, digits[:2])
    assert response.json()["model"] == {"name": "mnist", "version": "1"}
    for prediction in predictions_of(response):
        assert prediction["confidence"] == max(prediction["probabilities"])
        assert prediction["probabilities"].index(prediction["confidence"]) == prediction["digit"]
        assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert prediction["label"] == str(prediction["digit"])


@pytest.mark.parametrize("count", [1, 16, 17, 64, 65, 1024])
def test_batches_of_any_size_are_recognised(client, digits, truth, count):
    found = [prediction["digit"] for prediction in predictions_of(predict(client, digits[:count]))]
    assert np.mean(np.array(found) == truth[:count]) > 0.98


def test_digit_is_accepted(client, digits):
    [prediction] = predictions_of(predict(client, digits[:1]))
    assert (prediction["accepted"], prediction["reason"]) == (True, None)


def bodies_of_every_kind(images):
    """Return the arguments of requests with the same two images, and of one with a large picture of the first."""
    large = 255 - np.kron(images[0], np.ones((8, 8), np.uint8))
    files = [("files", (f"{i}.png", picture(image), "image/png")) for i, image in enumerate(images)]
    return [
        {"content": images.tobytes(), "headers": PIXELS},
        {"content": json.dumps({"images": images.tolist()}), "headers": {"content-type": "application/json"}},
        {"files": files},
        {"content": picture(large), "headers": {"content-type": "image/png"}},
    ]


def test_include_image_adds_the_input_of_the_model(client, digits):
    for body in bodies_of_every_kind(digits[:2]):
        plain = client.post("/predict", **body).json()
        with_images = client.post("/predict?include=image", **body).json()
        images = np.array([prediction.pop("image") for prediction in with_images["predictions"]])
        assert with_images == plain
        assert images.shape == (len(plain["predictions"]), 28, 28)
        if len(images) == 2:
            np.testing.assert_array_equal(images, digits[:2])
        # The same pixels sent as pixels get the same prediction.
        again = predictions_of(predict(client, images.astype(np.uint8)))
        for one, other in zip(plain["predictions"], again, strict=True):
            np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)


@pytest.mark.parametrize("timeout", ["", "0", "0.0", "00", "0e9"])
def test_timeout_of_zero_is_none(client, digits, timeout):
    response = client.post(f"/predict?timeout={timeout}", content=digits[:1].tobytes(), headers=PIXELS)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("timeout", ["-1", "x", "1_000", "\u0661\u0662", "nan", "1e999"])
def test_timeout_is_a_number_in_ascii(client, digits, timeout):
    response = client.post("/predict", params={"timeout": timeout}, content=digits[:1].tobytes(), headers=PIXELS)
    assert response.status_code == 400
    assert response.json()["detail"].endswith("must be a number of at least 0")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "mod=number",
            "parameter 'mod': unknown; did you mean mode? choose from model, version, include,",
        ),
        (
            "mode=digit&utm_source",
            "parameter 'utm_source': unknown; choose from model, version, include,",
        ),
    ],
)
def test_unknown_parameter_is_rejected(client, digits, query, reason):
    response = client.post(f"/predict?{query}", content=digits[0].tobytes(), headers=PIXELS)
    assert (response.status_code, response.json()["detail"]) == (400, f"{reason} mode, timeout")


def test_parameters_are_those_of_the_document(client):
    paths = client.get("/schema").json()["paths"]
    for method, path, names in (
        ("post", "/predict", route.PARAMETERS),
        ("post", "/feedback", feedback.PARAMETERS),
        ("post", "/models/{name}/promote", rollout.PARAMETERS),
        ("post", "/models/{name}/drop", rollout.PARAMETERS),
        ("get", "/certificate", route.MODEL_PARAMETERS),
        ("get", "/models/{name}/card", card.PARAMETERS),
    ):
        described = [each["name"] for each in paths[path][method]["parameters"] if each["in"] == "query"]
        assert sorted(described) == sorted(names)


def test_unknown_include_is_rejected(client, digits):
    response = client.post("/predict?include=logits", content=digits[0].tobytes(), headers=PIXELS)
    assert response.status_code == 400
    assert response.json()["detail"] == "include 'logits': must be image"


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [("GET", "/nowhere", 404, None), ("GET", "/predict", 405, "POST"), ("DELETE", "/predict", 405, "POST")],
)
def test_wrong_path_or_method_gets_a_problem_document(client, method, path, status, allow):
    response = client.request(method, path)
    assert response.status_code == response.json()["status"] == status
    assert path in response.json()["detail"]
    assert allow is None or allow in response.headers["allow"]


def test_concurrent_requests_get_their_own_predictions(client, digits):
    batches = [digits[i : i + size] for i, size in zip(range(0, 400, 10), [1, 3, 20, 70] * 10, strict=True)]
    alone = [predict(client, batch).json() for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: predict(client, batch).json(), batches))
    assert together == alone
