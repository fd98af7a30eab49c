"""Several finished networks asked together."""

from __future__ import annotations

import hashlib

import pytest
import torch

from training import checkpoint
from training.checkpoint import CheckpointError
from training.distill.ensemble import Ensemble
from training.networks import build, normalize


@pytest.fixture
def inputs(mnist):
    return normalize(mnist.test.images[:50])


@pytest.fixture
def folders(tmp_path):
    """Two folders, each with the fresh weights of another network."""
    for name in ("mlp", "cnn-small"):
        (tmp_path / name).mkdir()
        checkpoint.save(tmp_path / name / "model.pt", {"model": name, "weights": build(name).state_dict()})
    return [tmp_path / "mlp", tmp_path / "cnn-small"]


def test_answer_is_the_mean_of_the_probabilities(folders, inputs):
    ensemble = Ensemble.load(folders)
    alone = [Ensemble.load([folder])(inputs).softmax(dim=1) for folder in folders]
    assert not torch.allclose(*alone)
    torch.testing.assert_close(ensemble(inputs).exp(), (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(ensemble(inputs).softmax(dim=1), (alone[0] + alone[1]) / 2)


def test_one_network_answers_as_itself(folders, inputs):
    saved = checkpoint.load(folders[1] / "model.pt")
    network = build(saved["model"]).eval()
    network.load_state_dict(saved["weights"])
    torch.testing.assert_close(Ensemble.load(folders[1:])(inputs), network(inputs).log_softmax(dim=1))


def test_is_for_evaluation_only(folders):
    ensemble = Ensemble.load(folders)
    assert not any(module.training for module in ensemble.modules())
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())


def test_says_which_weights_it_has(folders):
    digests = {str(folder): hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest() for folder in folders}
    assert Ensemble.load(folders).digests == digests


def test_damaged_weights_are_refused(folders):
    (folders[0] / "model.pt").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="mlp"):
        Ensemble.load(folders)
