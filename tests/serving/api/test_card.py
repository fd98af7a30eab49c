"""GET /models/{name}/card."""

from __future__ import annotations

import html.parser
import shutil

import pytest

from serving.models import bundle, card
from serving.settings import RELEASE
from tests.serving.models.bundles import publish
from tests.support import application


class Elements(html.parser.HTMLParser):
    """The names of the elements and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.names, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("query", ["", "?version=1"])
def test_card_is_a_page_made_from_the_manifest(client, query):
    response = client.get(f"/models/mnist/card{query}")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "style-src 'self'" in response.headers["content-security-policy"]
    manifest = bundle.read(RELEASE / "mnist" / "1").manifest
    assert f"{manifest.result['test']['accuracy']:.2%}" in response.text
    assert manifest.files["model.onnx"].sha256 in response.text
    assert client.get(f"/models/mnist/card{query}").text == response.text


def test_manifest_links_the_card(client):
    link = client.get("/certificate").links["describedby"]["url"]
    assert client.get(link).text.startswith("<!doctype html>")


@pytest.mark.parametrize("path", ["/models/none/card", "/models/mnist/card?version=9"])
def test_unknown_model_has_no_card(client, path):
    assert client.get(path).status_code == 404


def test_misspelt_version_is_rejected(client):
    response = client.get("/models/mnist/card?verison=1")
    assert response.status_code == 400
    assert "parameter 'verison': unknown; did you mean version?" in response.json()["detail"]


def test_card_needs_a_key_if_predictions_need_one():
    with application(predict_keys="key") as client:
        assert client.get("/models/mnist/card").status_code == 401
        assert client.get("/models/mnist/card", headers={"x-api-key": "key"}).status_code == 200


def test_card_shows_what_a_manifest_says_and_runs_nothing_of_it(tmp_path):
    models = shutil.copytree(RELEASE, tmp_path / "models")
    evil = "<script>alert(1)</script>|\n# x"
    labels = [evil, *"123456789"]
    training = {"config": {"model": evil, "teacher": evil}, "dataset": {"name": evil, "digests": 3, "own": True}}
    publish(models, 2, labels=labels, training=training, provenance={"fonts": 1, "training": [], "export": evil})
    with application(repository=models) as client:
        page = Elements(client.get("/models/mnist/card").text)
    assert "script" not in page.names
    assert "<script>alert(1)</script>|" in page.text
    markdown = card.to_readme(bundle.read(models / "mnist" / "2").manifest)
    assert r"\<script\>alert(1)\</script\>\|" in markdown
    assert "\n# x" not in markdown
