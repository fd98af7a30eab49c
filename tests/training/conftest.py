"""Fixtures of the tests of training runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from tests.training.support import FAST, first


@pytest.fixture(scope="session")
def small(mnist):
    """MNIST with 256 images to train on, 200 for validation, 300 for the test."""
    return replace(
        mnist,
        train=first(mnist.train, 256),
        validation=first(mnist.validation, 200),
        test=first(mnist.test, 300),
    )


class NoPlots(contextlib.nullcontext):
    """Takes the place of PlotProcess and draws nothing."""

    def __enter__(self):
        return self

    def draw(self, *_):
        pass

    def finish(self):
        pass


@pytest.fixture
def no_plots(monkeypatch):
    """Leave out the plots, which take longer than the runs of these tests."""
    monkeypatch.setattr("training.loop.train.PlotProcess", NoPlots)


@pytest.fixture(scope="session")
def teacher(small, tmp_path_factory):
    """The run folder of a teacher."""
    from training.config import TrainConfig
    from training.loop.train import train

    folder = tmp_path_factory.mktemp("teacher")
    train(TrainConfig(**FAST | {"epochs": 8}, seed=5), small, folder)
    return folder
