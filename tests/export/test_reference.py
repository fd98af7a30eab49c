"""The reference histograms of a bundle, and the drift that the service finds with them."""

from __future__ import annotations

import re
import shutil

import msgspec
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.corruptions import corrupt
from export.reference import _edges, reference_of
from serving.models import bundle, repository
from serving.settings import RELEASE
from tests.support import PIXELS, ROOT, application


@pytest.fixture(scope="module")
def reference(mnist):
    """The reference of the packaged model, computed here."""
    model = repository.load(RELEASE, "mnist")
    return reference_of(model.bundle.manifest, model.classifier, mnist.validation.images.numpy())


@pytest.fixture
def models(reference, tmp_path):
    """A repository with the packaged model and its reference."""
    models = shutil.copytree(RELEASE, tmp_path / "models")
    path = models / "mnist" / "1" / bundle.MANIFEST
    manifest = msgspec.structs.replace(bundle.decode(path.read_bytes()), reference=reference)
    path.write_bytes(msgspec.json.encode(manifest))
    return models


def test_reference_divides_the_validation_set_into_bins(reference, mnist):
    validation = mnist.validation
    reference.check(10)
    assert sum(reference.labels) == len(validation)
    # Labels of a good model are nearly always the true ones.
    assert np.abs(np.bincount(validation.labels.numpy()) - reference.labels).max() < 10
    for histogram in (reference.novelty, reference.ink):
        assert len(histogram.images) == 10
        assert min(histogram.images) > 490
    assert reference.confidence.edges[-1] == 0.9999
    assert reference.reasons["accepted"] > 0.98 * len(validation)


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        pytest.param(np.arange(1001) / 1000, tuple(i / 10 for i in range(1, 10)), id="deciles"),
        pytest.param(np.ones(1000), (0.9999,), id="all-certain"),
        pytest.param(np.nextafter(np.ones(1000, np.float32), np.float32(0)), (0.9999,), id="nearly-certain"),
        pytest.param(np.zeros(1000), (-0.0001,), id="all-zero"),
        pytest.param(np.arange(90) / 90, (0.4944,), id="few-images"),
        pytest.param(np.array([0.5]), (), id="one-image"),
    ],
)
def test_edges_divide_images_into_parts_that_are_large_enough(values, edges):
    assert _edges(values) == pytest.approx(edges, abs=2e-4)
    assert (np.diff(_edges(values)) > 0).all()


def test_without_a_validation_set_there_is_no_reference():
    model = repository.load(RELEASE, "mnist")
    assert reference_of(model.bundle.manifest, model.classifier, np.zeros((0, 28, 28), np.uint8)) is None


# The alert.


def threshold():
    """The index above which the alert fires."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    [expression] = [rule["expr"] for rule in rules if rule["alert"] == "MnistDrift"]
    return float(re.search(r"mnist_drift_psi\) > ([\d.]+)", expression)[1])


def drift(client):
    """The index of the last hour, by what is compared."""
    return {
        sample.labels["of"]: sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "mnist_drift_psi" and sample.labels["window"] == "1h"
    }


def test_fog_fires_the_alert_within_500_requests(models, digits):
    with application(repository=models) as client:
        for images in np.array_split(corrupt("fog", digits[:500], 0), 25):
            client.post("/predict", content=images.tobytes(), headers=PIXELS)
        found = drift(client)
    assert found.keys() == {"labels", "confidence", "novelty", "ink", "reasons"}
    assert min(found.values()) > threshold()


def test_clean_test_set_does_not_fire_the_alert(models, digits):
    with application(repository=models) as client:
        for images in np.array_split(digits, 20):
            client.post("/predict", content=images.tobytes(), headers=PIXELS)
            assert max(drift(client).values(), default=0) < threshold()
        assert len(drift(client)) == 5


def test_bundle_without_a_reference_is_served_and_has_no_drift(models, digits):
    path = models / "mnist" / "1" / bundle.MANIFEST
    manifest = msgspec.structs.replace(bundle.decode(path.read_bytes()), reference=None)
    path.write_bytes(msgspec.json.encode(manifest))
    with application(repository=models) as client:
        assert client.post("/predict", content=digits[:500].tobytes(), headers=PIXELS).status_code == 200
        assert drift(client) == {}
        assert client.get("/certificate").json()["reference"] is None
