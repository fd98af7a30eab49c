"""Models change while the service runs."""

from __future__ import annotations

import shutil
import threading
import time

import httpx
import numpy as np
import pytest

from serving.errors import BundleError, ModelNotFoundError, ModelUnavailableError
from serving.models import bundle
from serving.models.model import Model
from serving.models.repository import Change, Repository
from tests.serving.models.bundles import PACKAGED, change_manifest, publish
from tests.serving.server.clients import constant_load, served_versions
from tests.support import PIXELS, application, service, until

# Seconds. The service shares few cores with other tests, so httpx's own 5 seconds can be too short.
TIMEOUT = 60

# A repository without HTTP.


@pytest.fixture
def repository(models):
    """A repository that keeps two versions. A test scans it explicitly."""
    repository = Repository(models, 2)
    assert repository.scan() == [Change("loaded", "mnist", "1")]
    return repository


def test_only_the_newest_versions_are_loaded(models, repository):
    for number in (2, 3, 10):
        publish(models, number)
    assert repository.scan() == [
        Change("loaded", "mnist", "10"),
        Change("loaded", "mnist", "3"),
        Change("dropped", "mnist", "1"),
    ]
    assert repository.versions("mnist") == ["3", "10"]
    assert repository.get("mnist").version == "10"
    assert repository.get("mnist", "3").version == "3"
    with pytest.raises(ModelUnavailableError, match="newest 2 only"):
        repository.get("mnist", "1")
    with pytest.raises(ModelNotFoundError, match=r"^model 'mnist' has no version '4'; choose one of 10, 3$"):
        repository.get("mnist", "4")


def test_error_for_an_unknown_model_names_those_that_exist_but_not_hundreds(models, repository):
    for version in (None, "1"):
        with pytest.raises(ModelNotFoundError, match=r"^there is no model 'letters'; choose one of mnist$"):
            repository.get("letters", version)
    for number in range(12):
        (models / f"damaged-{number:02}" / "1").mkdir(parents=True)
    repository.scan()
    first = ", ".join(f"damaged-{number:02}" for number in range(10))
    for ask in (repository.get, repository.unload):
        with pytest.raises(ModelNotFoundError) as found:
            ask("letters")
        assert str(found.value) == f"there is no model 'letters'; choose one of {first} and 3 more"


def test_error_for_an_unknown_model_is_short_and_names_nothing_in_an_empty_repository(tmp_path):
    repository = Repository(tmp_path, 1)
    repository.scan()
    with pytest.raises(ModelNotFoundError, match=r"^there is no model 'letters'$"):
        repository.get("letters")
    with pytest.raises(ModelNotFoundError) as found:
        repository.get("x" * 10_000)
    assert len(str(found.value)) < 300


def test_scan_of_an_unchanged_folder_changes_nothing(repository):
    before = repository.get("mnist")
    assert repository.scan() == []
    assert repository.get("mnist") is before


def test_rejected_version_is_tried_again_when_its_files_change(models, repository):
    folder = publish(models, 2)
    intact = (folder / bundle.ONNX).read_bytes()
    (folder / bundle.ONNX).write_bytes(intact[:-1])
    assert repository.scan() == [Change("rejected", "mnist", "2")]
    assert repository.scan() == []
    assert repository.get("mnist").version == "1"
    (folder / bundle.ONNX).write_bytes(intact)
    assert repository.scan() == [Change("loaded", "mnist", "2")]
    assert repository.get("mnist").version == "2"


@pytest.mark.parametrize(
    ("cause", "is_tried"),
    [(MemoryError(), True), (RuntimeError("std::bad_alloc"), True), (ValueError(), False)],
    ids=lambda value: repr(value),
)
def test_version_that_lacked_memory_is_tried_again_after_a_minute(models, repository, monkeypatch, cause, is_tried):
    def fail(*_):
        raise BundleError(f"cannot be loaded: {cause}") from cause

    publish(models, 2)
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr("serving.models.repository.load", fail)
        assert repository.scan() == [Change("rejected", "mnist", "2")]
    assert repository.scan() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert repository.scan() == ([Change("loaded", "mnist", "2")] if is_tried else [])


def test_model_without_a_usable_version_names_the_newest_one(tmp_path):
    for version in (1, 2, 10):
        folder = tmp_path / "mnist" / str(version)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    repository = Repository(tmp_path, keep=3)
    repository.scan()
    with pytest.raises(ModelUnavailableError, match="model 'mnist' version 10 is unavailable"):
        repository.get("mnist")
    with pytest.raises(ModelUnavailableError, match="model 'mnist' version 1 is unavailable"):
        repository.get("mnist", "1")


def test_loaded_version_stays_when_its_files_are_damaged(models, repository):
    before = repository.get("mnist")
    (models / "mnist" / "1" / bundle.ONNX).write_bytes(b"rubbish")
    assert repository.scan() == [Change("rejected", "mnist", "1")]
    assert repository.get("mnist") is before
    [entry] = repository.index()
    assert entry.state == "READY"
    assert "7 bytes" in entry.reason


def test_half_copied_folder_is_rejected_until_it_is_complete(models, repository):
    (models / "mnist" / "2").mkdir()
    repository.scan()
    assert repository.get("mnist").version == "1"
    shutil.copytree(PACKAGED, models / "mnist" / "2", dirs_exist_ok=True)
    change_manifest(models / "mnist" / "2", version=2)
    repository.scan()
    assert repository.get("mnist").version == "2"


def test_removed_version_is_dropped_but_an_unreachable_folder_changes_nothing(models, repository):
    publish(models, 2)
    repository.scan()
    shutil.rmtree(models / "mnist" / "2")
    assert repository.scan() == [Change("dropped", "mnist", "2")]
    assert repository.versions("mnist") == ["1"]
    models.rename(models.parent / "away")
    assert repository.scan() == []
    assert repository.get("mnist").version == "1"


def test_unloaded_model_serves_the_requests_that_use_it(repository):
    model = repository.get("mnist")
    with model:
        assert repository.unload("mnist") == [Change("dropped", "mnist", "1")]
        assert repository.versions("mnist") == []
        assert len(model.classifier.classify(np.zeros((1, 28, 28), np.uint8)).logits) == 1
    with pytest.raises(ModelUnavailableError, match="unloaded"):
        repository.get("mnist")
    assert repository.load("mnist") == [Change("loaded", "mnist", "1")]
    assert repository.get("mnist").version == "1"


def test_names_cannot_lead_out_of_the_repository(repository):
    for name in ("..", "../models", "../models/mnist", "a/b", "", "."):
        with pytest.raises(ModelNotFoundError):
            repository.load(name)
        with pytest.raises(ModelNotFoundError):
            repository.unload(name)


# The service.


def test_unloading_waits_for_the_requests_that_use_the_model():
    with application(admin_keys="key") as client:
        service = client.app.state.service
        model = service.repository.get("mnist")
        unloaded = threading.Event()

        def unload():
            client.post("/v2/repository/models/mnist/unload", headers={"x-api-key": "key"}).raise_for_status()
            unloaded.set()

        with model:
            thread = threading.Thread(target=unload)
            thread.start()
            until(lambda: not service.repository.versions("mnist"))
            assert not unloaded.wait(0.05)
        thread.join(30)
        assert unloaded.is_set()


def test_unloading_waits_for_all_versions_together_as_long_as_for_one(models, monkeypatch):
    publish(models, 2)
    with application(repository=models, poll=0.0, grace=20) as client:
        waits = []
        monkeypatch.setattr(Model, "drain", lambda model, seconds: waits.append(seconds))
        client.app.state.service.apply("unload", "mnist")
    first, second = waits
    assert 20 >= first > second > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_new_version_is_served_under_load_and_a_rejected_one_is_not(models, digits, truth, workers):
    labels = {"1": list("0123456789"), "2": list("abcdefghij"), "4": list("klmnopqrst")}
    with (
        service("--repository", models, "--poll", "0.05", "--workers", workers) as (url, _),
        httpx.Client(base_url=url, timeout=TIMEOUT) as client,
    ):
        with constant_load(url, digits[:2].tobytes()) as responses:
            until(lambda: len(responses) > 50)
            publish(models, 2, labels=labels["2"])
            until(lambda: served_versions(url) == {"2"})
            damaged = shutil.copytree(PACKAGED, models / ".export-3")
            change_manifest(damaged, version=3)
            (damaged / bundle.ONNX).write_bytes(b"rubbish")
            damaged.rename(models / "mnist" / "3")
            until(lambda: any(entry["version"] == "3" for entry in client.post("/v2/repository/index").json()))
            rejected = f'mnist_model_rejected_total{{model="mnist",version="3"}} {workers}.0'
            until(lambda: rejected in client.get("/metrics").text)
            assert served_versions(url) == {"2"}
            publish(models, 4, labels=labels["4"])
            until(lambda: served_versions(url) == {"4"})
            # All clients of the load may be connected to one worker, and the last ones only to the other.
            until(lambda: responses[-1][1]["model"]["version"] == "4")
        assert {status for status, _ in responses} == {200}
        assert {response["model"]["version"] for _, response in responses} == {"1", "2", "4"}
        for _, response in responses:
            # The version and the labels in a response belong to the same model.
            expected = [labels[response["model"]["version"]][digit] for digit in truth[:2]]
            assert [prediction["label"] for prediction in response["predictions"]] == expected
        entries = {entry["version"]: entry for entry in client.post("/v2/repository/index").json()}
        assert entries["3"]["state"] == "UNAVAILABLE"
        assert "model.onnx has 7 bytes" in entries["3"]["reason"]
        assert entries["4"]["state"] == "READY"
        loaded = f'mnist_model_loaded{{model="mnist",version="4"}} {workers}.0'
        until(lambda: loaded in client.get("/metrics").text)


CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def test_several_models_are_served_with_their_own_labels(models, digits, truth):
    publish(models, 1, name="fashion-mnist", labels=CLOTHES)
    with application(repository=models) as client:
        for name, labels in (("mnist", "0123456789"), ("fashion-mnist", CLOTHES)):
            response = client.post(f"/predict?model={name}", content=digits[0].tobytes(), headers=PIXELS).json()
            assert response["model"]["name"] == name
            assert response["predictions"][0]["label"] == labels[truth[0]]
        for query, error in (
            ("model=letters", "there is no model 'letters'; choose one of fashion-mnist, mnist"),
            ("version=9", "model 'mnist' has no version '9'; choose one of 1"),
        ):
            response = client.post(f"/predict?{query}", content=digits[0].tobytes(), headers=PIXELS)
            assert (response.status_code, response.json()["detail"]) == (404, error)
        response = client.get("/v2/models/letters")
        assert response.json() == {"error": "there is no model 'letters'; choose one of fashion-mnist, mnist"}
