"""GET /certificate."""

from __future__ import annotations

import msgspec
import pytest

from serving.models import bundle
from serving.settings import RELEASE
from tests.support import application


@pytest.mark.parametrize("query", ["", "?model=mnist", "?version=1"])
def test_certificate_is_the_manifest_of_the_model(client, query):
    response = client.get(f"/certificate{query}")
    assert response.headers["content-type"] == "application/json"
    manifest = bundle.read(RELEASE / "mnist" / "1").manifest
    assert msgspec.json.decode(response.content, type=bundle.Manifest) == manifest


@pytest.mark.parametrize("query", ["?model=none", "?version=9"])
def test_unknown_model_has_no_certificate(client, query):
    assert client.get(f"/certificate{query}").status_code == 404


def test_misspelt_version_is_rejected(client):
    response = client.get("/certificate?verison=1")
    assert response.status_code == 400
    assert "parameter 'verison': unknown; did you mean version?" in response.json()["detail"]


def test_certificate_needs_a_key_if_predictions_need_one():
    with application(predict_keys="key") as client:
        assert client.get("/certificate").status_code == 401
        assert client.get("/certificate", headers={"x-api-key": "key"}).status_code == 200
