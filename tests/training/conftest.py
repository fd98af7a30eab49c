"""Fixtures of the tests of training runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from click.testing import CliRunner

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


def prepare(patch):
    """Leave out the plots, and what ``mnist-train`` changes in its process for good."""
    # A module that is imported while a name is replaced would keep the replacement for the tests of other files.
    import training.actions  # noqa: F401

    patch.setattr("training.plot_process.PlotProcess", NoPlots)
    patch.setattr("training.no_compiler.leave_out_compiler", lambda: None)
    patch.setattr("training.cli.keep_freed_memory", lambda: None)
    patch.setattr("training.cli.sleep_while_waiting", lambda: None)


def invoke(*arguments):
    """Run ``mnist-train`` in this process, which has imported torch already, and return its outcome."""
    from training.cli import main

    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def command(monkeypatch):
    """A function that runs ``mnist-train`` in this process, and returns its outcome."""
    prepare(monkeypatch)
    return invoke


@contextlib.contextmanager
def few_steps():
    """Fit novelty scores in 20 steps. A fit of 1000 steps takes ten times as long as all the rest of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trust.novelty.STEPS", 20)
        yield


@pytest.fixture(scope="module", autouse=True)
def quick_calibration():
    """Fit no good novelty scores in this process. The tests in trust/, and the runs of commands, fit good ones."""
    with few_steps():
        yield


@pytest.fixture(scope="session")
def teacher(small, tmp_path_factory):
    """The run folder of a teacher."""
    from training.config import TrainConfig
    from training.loop.train import train

    folder = tmp_path_factory.mktemp("teacher")
    with few_steps():
        train(TrainConfig(**FAST | {"epochs": 8}, seed=5), small, folder)
    return folder
