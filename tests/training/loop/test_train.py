"""train(): it learns, its settings have an effect, and divergence and a full disk lose nothing."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.training.support import FAST, Stop, equal, first, rows, timeless, weights
from training import checkpoint
from training.config import TrainConfig
from training.data.digits import Digits
from training.loop import step
from training.loop.averaging import Average
from training.loop.errors import DivergedError
from training.loop.train import train

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize(("model", "epochs"), [("mlp", 60), ("cnn", 25)])
def test_network_can_memorize_64_images(small, tmp_path, model, epochs):
    """This shows that network, loss and optimizer work together."""
    batch = first(small.train, 64)
    config = TrainConfig.of(model=model, optimizer="adam", learning_rate=0.01, epochs=epochs)
    test = train(config, replace(small, train=batch, test=batch), tmp_path)
    assert test.correct == 64
    assert test.loss < 0.1


def test_equal_configs_give_equal_weights_and_another_seed_gives_others(small, tmp_path):
    torch.manual_seed(1)
    train(TrainConfig(**FAST), small, tmp_path / "a")
    torch.manual_seed(2)
    train(TrainConfig(**FAST), small, tmp_path / "b")
    train(TrainConfig(**FAST, seed=1), small, tmp_path / "c")
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))
    assert timeless(rows(tmp_path / "a")) == timeless(rows(tmp_path / "b"))


@pytest.mark.parametrize(
    "setting",
    [
        {"augment": 0.0},
        {"augment": 0.5},
        {"elastic": 1.0},
        {"contrast": 1.0},
        {"style": 0.5},
        {"label_smoothing": 0.1},
        {"ema": 0.0},
        {"weight_decay": 0.5},
        {"schedule": "constant"},
        {"learning_rate": 0.001},
        {"precision": "bfloat16"},
    ],
)
def test_every_setting_has_an_effect(small, tmp_path, setting):
    train(TrainConfig(**FAST), small, tmp_path / "a")
    train(TrainConfig(**FAST, **setting), small, tmp_path / "b")
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_each_epoch_augments_an_image_in_another_way(small, tmp_path, monkeypatch):
    seen = []
    normalize = step.normalize

    def kept(images):
        seen.append(images)
        return normalize(images)

    monkeypatch.setattr(step, "normalize", kept)
    one = replace(small, train=first(small.train, 1))
    train(TrainConfig(**FAST), one, tmp_path / "a")
    assert len(seen) == 2
    assert not torch.equal(*seen)
    seen.clear()
    train(TrainConfig(**FAST, augment=0), one, tmp_path / "b")
    assert all(torch.equal(images, one.train.images.float()) for images in seen), "0 leaves the images as they are"


def test_result_is_the_averaged_weights(small, tmp_path):
    train(TrainConfig(**FAST), small, tmp_path)
    saved = checkpoint.load(tmp_path / "last.pt")
    averaged = {name: saved["averaged"][f"module.{name}"] for name in saved["network"]}
    assert equal(weights(tmp_path), averaged)
    assert not equal(weights(tmp_path), saved["network"])


def test_result_without_averaging_is_the_last_weights(small, tmp_path):
    train(TrainConfig(**FAST, ema=0.0), small, tmp_path)
    saved = checkpoint.load(tmp_path / "last.pt")
    assert saved["averaged"] is None
    assert equal(weights(tmp_path), saved["network"])


def test_average_forgets_its_first_steps_quickly():
    """The decay is min(d, (1 + n) / (10 + n)), written out here."""
    network = torch.nn.Linear(1, 1, bias=False)
    numbers, tensors = Average(network, 0.5), Average(network, 0.5)
    tensors._decay = torch.zeros(())  # as on a GPU
    expected = 0.0
    for n, value in enumerate([7.0, 1.0, 5.0, -3.0] * 5):
        torch.nn.init.constant_(network.weight, value)
        decay = min(0.5, (1 + n) / (10 + n)) if n else 0
        expected = decay * expected + (1 - decay) * value
        for average in (numbers, tensors):
            average.set_decay(n)
            average.update()
            assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert numbers.n_averaged == 20


def test_test_set_does_not_influence_the_run(small, tmp_path):
    other = replace(small, test=Digits(255 - small.test.images, small.test.labels))
    train(TrainConfig(**FAST), small, tmp_path / "a")
    train(TrainConfig(**FAST), other, tmp_path / "b")
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert timeless(rows(tmp_path / "a")) == timeless(rows(tmp_path / "b"))


def test_run_without_a_validation_set_has_no_validation_loss(small, tmp_path):
    train(TrainConfig(**FAST, validation=0), replace(small, validation=first(small.train, 0)), tmp_path)
    assert "validation_loss" not in rows(tmp_path)[0]


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(small, tmp_path):
    """The first step makes the weights huge. The loss of the second step is then not finite."""
    config = TrainConfig.of(**FAST, optimizer="mini-batch", learning_rate=1e30)
    said = r"--learning-rate 1e\+30: the loss is not a number at step 2; use a lower learning rate"
    with pytest.raises(DivergedError, match=said):
        train(config, small, tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []

    with pytest.raises(DivergedError, match=r"at step 2; .*last\.pt holds the last good state"):
        train(config, small, tmp_path / "b", checkpoint_every=1)
    saved = checkpoint.load(tmp_path / "b" / "last.pt")
    assert saved["step"] == 1
    assert all(value.isfinite().all() for value in saved["network"].values())


@pytest.mark.parametrize("rate", [1e30, 1e38, 3e38])
@pytest.mark.parametrize("validation", [0, 200])
def test_divergence_in_the_very_last_step_is_found(small, tmp_path, rate, validation):
    config = TrainConfig.of(model="mlp", epochs=1, optimizer="gd", learning_rate=rate)
    with pytest.raises(DivergedError, match="not a number at step 2"):
        train(config, replace(small, validation=first(small.validation, validation)), tmp_path)
    assert not (tmp_path / "model.pt").exists()
    assert not (tmp_path / "run.json").exists()
    assert not validation or list(tmp_path.iterdir()) == [], "with a validation set it is found before the save"


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_full_disk_keeps_the_previous_checkpoint(small, tmp_path, monkeypatch, call):
    """The checkpoint of the second epoch cannot be written. The checkpoint of the first epoch stays."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def full(handle, _):
        os.write(handle, b"a beginning")
        try:
            yield SimpleNamespace(write=fail)
        finally:
            os.close(handle)

    class FullAfterAnEpoch(Stop):
        def line(self, text):
            if not text.startswith("epoch"):
                return
            patch.setattr(
                *{
                    "write": (checkpoint.os, "fdopen", full),
                    "fsync": (checkpoint.os, "fsync", fail),
                    "replace": (checkpoint.Path, "replace", fail),
                }[call]
            )

    config = TrainConfig(**FAST)
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"No space left on device: '.*last\.pt'"):
        train(config, small, tmp_path, progress=FullAfterAnEpoch(None))
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "metrics.jsonl"}, "no half-written file stays"
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4
    assert len(rows(tmp_path)) == 1
