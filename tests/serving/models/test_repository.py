"""Models that change while the service answers."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from serving.models import bundle, repository
from serving.models.bundle import RELEASE
from tests.support import PIXELS, application, service, until


@pytest.fixture
def models(tmp_path):
    return shutil.copytree(RELEASE, tmp_path / "models")


def publish(models, version, name="mnist", **members):
    """The packaged bundle as another version, put in place by a rename as mnist-export does."""
    staging = shutil.copytree(RELEASE / "mnist" / "1", models / f".export-{version}")
    change(staging, name=name, version=version, **members)
    (models / name).mkdir(exist_ok=True)
    staging.rename(models / name / str(version))
    return models / name / str(version)


def change(folder, **members):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest | members))


@contextmanager
def constant_load(url, digits):
    """Four clients asking without pause; what they got."""
    stop, answers = threading.Event(), []

    def ask():
        with httpx.Client(base_url=url) as client:
            while not stop.is_set():
                answer = client.post("/predict", content=digits[:2].tobytes(), headers=PIXELS)
                answers.append((answer.status_code, answer.json()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def version(client):
    return client.post("/predict", content=bytes(784), headers=PIXELS).json()["model"]["version"]


def versions(url):
    """What new connections, which come to this worker or that, are answered by."""
    seen = set()
    for _ in range(8):
        with httpx.Client(base_url=url) as client:
            seen.add(version(client))
    return seen


@pytest.mark.parametrize("workers", [1, 2])
def test_new_version_is_picked_up_under_load_and_a_bad_one_is_not(models, digits, truth, workers):
    labels = {"1": list("0123456789"), "2": list("abcdefghij"), "4": list("klmnopqrst")}
    with (
        service("--repository", models, "--poll", "0.05", "--workers", workers) as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        with constant_load(url, digits) as answers:
            until(lambda: len(answers) > 50)
            publish(models, 2, labels=labels["2"])
            until(lambda: versions(url) == {"2"})
            bad = shutil.copytree(RELEASE / "mnist" / "1", models / ".export-3")
            change(bad, version=3)
            (bad / bundle.ONNX).write_bytes(b"rubbish")
            bad.rename(models / "mnist" / "3")
            until(lambda: any(entry["version"] == "3" for entry in client.post("/v2/repository/index").json()))
            refused = f'mnist_model_refused_total{{model="mnist",version="3"}} {workers}.0'
            until(lambda: refused in client.get("/metrics").text)
            assert versions(url) == {"2"}
            publish(models, 4, labels=labels["4"])
            until(lambda: versions(url) == {"4"})
        assert {status for status, _ in answers} == {200}
        assert {answer["model"]["version"] for _, answer in answers} == {"1", "2", "4"}
        for _, answer in answers:
            # Of one version from end to end, in its name and in its labels.
            expected = [labels[answer["model"]["version"]][digit] for digit in truth[:2]]
            assert [prediction["label"] for prediction in answer["predictions"]] == expected
        entries = {entry["version"]: entry for entry in client.post("/v2/repository/index").json()}
        assert entries["3"]["state"] == "UNAVAILABLE"
        assert "model.onnx has 7 bytes" in entries["3"]["reason"]
        assert entries["4"]["state"] == "READY"
        loaded = f'mnist_model_loaded{{model="mnist",version="4"}} {workers}.0'
        until(lambda: loaded in client.get("/metrics").text)


@pytest.fixture
def followed(models, tmp_path):
    """A repository that is scanned when the test says so."""
    (tmp_path / "unloaded").mkdir()
    followed = repository.Repository(models, 2, tmp_path / "unloaded")
    followed.scan()
    return followed


def test_only_the_newest_versions_are_kept(models, followed):
    for number in (2, 3, 10):
        publish(models, number)
    followed.scan()
    assert followed.versions("mnist") == ["3", "10"]
    assert followed.get("mnist").version == "10"
    assert followed.get("mnist", "3").version == "3"
    with pytest.raises(repository.ModelUnavailableError, match="2 newest"):
        followed.get("mnist", "1")
    with pytest.raises(repository.ModelNotFoundError):
        followed.get("mnist", "4")


def test_refused_version_is_tried_again_when_it_changes(models, followed):
    folder = publish(models, 2)
    good = (folder / bundle.ONNX).read_bytes()
    (folder / bundle.ONNX).write_bytes(good[:-1])
    followed.scan()
    assert followed.get("mnist").version == "1"
    (folder / bundle.ONNX).write_bytes(good)
    followed.scan()
    assert followed.get("mnist").version == "2"


def test_loaded_version_survives_damage_on_disk(models, followed):
    before = followed.get("mnist")
    (models / "mnist" / "1" / bundle.ONNX).write_bytes(b"rubbish")
    followed.scan()
    assert followed.get("mnist") is before
    [entry] = followed.index()
    assert entry.state == "READY"
    assert "7 bytes" in entry.reason


def test_half_copied_folder_does_no_harm(models, followed):
    (models / "mnist" / "2").mkdir()
    followed.scan()
    assert followed.get("mnist").version == "1"
    shutil.copytree(RELEASE / "mnist" / "1", models / "mnist" / "2", dirs_exist_ok=True)
    change(models / "mnist" / "2", version=2)
    followed.scan()
    assert followed.get("mnist").version == "2"


def test_removed_version_is_dropped_and_a_lost_share_is_not(models, followed):
    publish(models, 2)
    followed.scan()
    shutil.rmtree(models / "mnist" / "2")
    followed.scan()
    assert followed.versions("mnist") == ["1"]
    models.rename(models.parent / "away")
    followed.scan()
    assert followed.get("mnist").version == "1"


def test_unloading_drains_first(followed):
    model = followed.get("mnist")
    done = threading.Event()

    def unload():
        followed.unload("mnist", 30)
        done.set()

    with model:
        thread = threading.Thread(target=unload)
        thread.start()
        until(lambda: not followed.versions("mnist"))
        assert not done.is_set()
        assert len(model.classifier.classify(np.zeros((1, 28, 28), np.uint8))[0]) == 1
    thread.join(30)
    assert done.is_set()
    with pytest.raises(repository.ModelUnavailableError, match="unloaded"):
        followed.get("mnist")
    followed.load("mnist")
    assert followed.get("mnist").version == "1"


def test_names_cannot_leave_the_repository(followed):
    for name in ("..", "../models", "a/b", "", "."):
        with pytest.raises(repository.ModelNotFoundError):
            followed.load(name)
        with pytest.raises(repository.ModelNotFoundError):
            followed.unload(name, 1)


CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def test_models_stand_side_by_side_with_their_own_labels(models, digits, truth):
    publish(models, 1, name="fashion-mnist", labels=CLOTHES)
    with application(repository=models) as client:
        for name, labels in (("mnist", "0123456789"), ("fashion-mnist", CLOTHES)):
            answer = client.post(f"/predict?model={name}", content=digits[0].tobytes(), headers=PIXELS).json()
            assert answer["model"]["name"] == name
            assert answer["predictions"][0]["label"] == labels[truth[0]]
        assert client.post("/predict?model=letters", content=digits[0].tobytes(), headers=PIXELS).status_code == 404
        assert client.post("/predict?version=9", content=digits[0].tobytes(), headers=PIXELS).status_code == 404
