"""An ensemble of finished networks."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from tests.training.support import first
from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import TrainConfig
from training.data.digits import Digits
from training.distill.cache import TeacherCache
from training.distill.ensemble import Ensemble
from training.evaluate import evaluate
from training.networks import build, normalize


@pytest.fixture
def images(mnist):
    return mnist.test.images[:50]


@pytest.fixture
def inputs(images):
    return normalize(images)


@pytest.fixture
def folders(tmp_path):
    """Two folders, each with the fresh weights of another network."""
    folders = [tmp_path / "mlp", tmp_path / "cnn-small"]
    for folder in folders:
        folder.mkdir()
        checkpoint.save(folder / "model.pt", {"model": folder.name, "weights": build(folder.name).state_dict()})
        write_record(folder, "0123456789")
    return folders


def write_record(folder, labels):
    digest = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps({"dataset": {"labels": list(labels)}, "model_sha256": digest}))


def test_output_is_the_mean_of_the_probabilities(folders, inputs):
    ensemble = Ensemble.load(folders)
    alone = [Ensemble.load([folder])(inputs).softmax(dim=1) for folder in folders]
    assert not torch.allclose(*alone)
    torch.testing.assert_close(ensemble(inputs).exp(), (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(ensemble(inputs).softmax(dim=1), (alone[0] + alone[1]) / 2)


def test_ensemble_of_one_network_gives_its_probabilities(folders, inputs):
    saved = checkpoint.load(folders[1] / "model.pt")
    network = build(saved["model"]).eval()
    network.load_state_dict(saved["weights"])
    torch.testing.assert_close(Ensemble.load(folders[1:])(inputs), network(inputs).log_softmax(dim=1))


def test_soft_labels_are_log_probabilities_of_images(folders, images, inputs):
    ensemble = Ensemble.load(folders)
    assert torch.equal(ensemble.soft_labels(TrainConfig(), images), ensemble(inputs))
    rough = ensemble.soft_labels(TrainConfig(precision="bfloat16"), images)
    assert rough.dtype == torch.float32
    assert 0 < (rough - ensemble(inputs)).abs().max() < 0.2


def test_networks_are_in_evaluation_mode_without_gradients(folders):
    ensemble = Ensemble.load(folders)
    assert not any(module.training for module in ensemble.modules())
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())


def test_digests_are_those_of_the_weight_files(folders):
    digests = {str(folder): hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest() for folder in folders}
    assert Ensemble.load(folders).digests == digests


def test_published_version_teaches_as_it_was_certified(mnist):
    teacher = Ensemble.load(["packaged"])
    test = first(mnist.test, 1000)
    assert evaluate(teacher, test).correct >= 995
    assert teacher.digests.keys() == {"packaged"}
    assert teacher.networks[0].head.out_features == 10


def test_outputs_have_the_order_of_the_classes_that_is_asked_for(folders, inputs):
    write_record(folders[1], "9876543210")
    first, second = (Ensemble.load([folder])(inputs).exp() for folder in folders)
    teacher = Ensemble.load(folders, "0123456789")
    torch.testing.assert_close(teacher(inputs).exp(), (first + second.flip(1)) / 2)
    assert teacher.order == tuple("0123456789")
    assert Ensemble.load(folders[:1], "0123456789").order == ()
    # The same images in the cache would have other soft labels.
    digits = Digits(torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    caches = {TeacherCache(TrainConfig(), each, digits).folder for each in (teacher, Ensemble.load(folders))}
    assert len(caches) == 2


def test_damaged_file_of_the_cache_is_made_again(folders, images):
    digits = Digits(images, torch.zeros(len(images), dtype=torch.int64))
    cache = TeacherCache(TrainConfig(teacher="t", teacher_cache=1), Ensemble.load(folders), digits)
    made = cache[0]
    (cache.folder / "0.pt").write_bytes(b"rubbish")
    again, stored = cache[0], cache[0]
    for found in (again, stored):
        assert torch.equal(found.images, made.images)
        assert torch.equal(found.soft_labels, made.soft_labels)


def test_damaged_weights_are_rejected(folders):
    (folders[0] / "model.pt").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="mlp"):
        Ensemble.load(folders)
