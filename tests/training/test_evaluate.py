"""Evaluation: its figures against formulas written out in numpy, and evaluate() itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.support import equal
from training.evaluate import Evaluation, evaluate
from training.networks import build, normalize


@pytest.fixture(scope="module")
def made_up():
    """Made-up logits with confidences over the whole range, the labels, and the evaluation of both."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3000, 10)).astype(np.float32) * generator.uniform(0, 4, (3000, 1))
    labels = np.where(generator.random(3000) < 0.6, logits.argmax(axis=1), generator.integers(0, 10, 3000))
    return logits, labels, Evaluation(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels))


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_loss_and_accuracy_are_means_over_the_images(made_up):
    logits, labels, evaluation = made_up
    assert evaluation.loss == pytest.approx(-np.log(softmax(logits)[np.arange(3000), labels]).mean(), rel=1e-5)
    assert evaluation.correct == (logits.argmax(axis=1) == labels).sum()
    assert evaluation.accuracy == evaluation.correct / 3000


def test_confusion_counts_true_and_predicted_classes(made_up):
    logits, labels, evaluation = made_up
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (labels, logits.argmax(axis=1)), 1)
    assert evaluation.confusion.tolist() == expected.tolist()
    assert evaluation.confusion.trace() == evaluation.correct


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_the_mean_gap_of_the_bins(made_up, bins):
    logits, labels, evaluation = made_up
    confidence, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    expected = 0.0
    for i in range(bins):
        inside = (confidence >= i / bins) & (confidence < (i + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected > 0.01
    assert evaluation.calibration_error(bins) == pytest.approx(expected, abs=1e-4)


def test_calibration_error_is_0_if_sure_and_right_and_1_if_sure_and_wrong():
    labels = torch.arange(10)
    assert Evaluation(torch.eye(10) * 1000, labels).calibration_error() == 0
    assert Evaluation(torch.eye(10) * 1000, labels.roll(1)).calibration_error() == 1


def test_evaluate_uses_evaluation_mode_and_restores_the_mode(small):
    for training_mode in (True, False):
        network = nn.Sequential(build("cnn"), nn.Dropout(0.5)).train(training_mode)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        once, twice = evaluate(network, small.test), evaluate(network, small.test)
        assert torch.equal(once.logits, twice.logits)
        assert network.training is training_mode
        assert equal(network.state_dict(), before)


def test_evaluate_in_batches_gives_the_logits_of_one_batch(small, monkeypatch):
    network = build("mlp")
    with torch.no_grad():
        expected = network(normalize(small.test.images))
    monkeypatch.setattr("training.evaluate.BATCH", 77)
    torch.testing.assert_close(evaluate(network, small.test).logits, expected)
