"""The folder of a finished run: its files and run.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.conftest import NoPlots
from tests.training.support import FAST, first, rows
from training import checkpoint
from training.config import TrainConfig
from training.evaluate import evaluate
from training.loop.record import by_name
from training.loop.train import train
from training.networks import build


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """The folder of a finished run and the evaluation that train() returned."""
    folder = tmp_path_factory.mktemp("finished") / "made" / "by the run"
    return folder, train(TrainConfig(**FAST), small, folder)


def test_fonts_of_the_same_file_name_are_all_recorded():
    fonts = {Path("a/files/x.woff"): "1", Path("b/files/x.woff"): "2", Path("b/files/y.woff"): "3"}
    assert by_name(fonts) == {"x.woff": "1", "x.woff (2)": "2", "y.woff": "3"}


def test_run_folder_has_all_files(finished):
    folder, _ = finished
    files = {"last.pt", "model.pt", "metrics.jsonl", "curves.png", "confusion.png", "mistakes.png", "reliability.png"}
    files |= {"calibration.pt", "run.json"}
    assert {path.name for path in folder.iterdir()} == files
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, f"{path.name}: readable for all users"
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


def test_record_describes_the_run(finished, small):
    folder, test = finished
    record = json.loads((folder / "run.json").read_text())
    assert record["config"] == TrainConfig(**FAST).asdict()
    assert record["dataset"]["digests"] == small.digests
    assert record["dataset"]["labels"] == list("0123456789")
    assert (record["dataset"]["train_images"], record["dataset"]["validation_images"]) == (256, 200)
    assert record["parameters"] == 22_270
    assert record["model_sha256"] == hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    assert record["versions"].keys() == {"python", "torch", "torchvision", "numpy"}
    assert record["result"]["test"] == test.summary()
    assert record["result"]["test"]["images"] == 300
    assert record["result"]["validation"]["loss"] == rows(folder)[-1]["validation_loss"]


def test_metrics_have_one_line_per_epoch(finished):
    folder, _ = finished
    assert [row["epoch"] for row in rows(folder)] == [1, 2]
    for row in rows(folder):
        assert {"train_loss", "validation_loss", "validation_accuracy", "rate", "seconds"} <= row.keys()
    assert rows(folder)[1]["validation_loss"] < rows(folder)[0]["validation_loss"]


@pytest.mark.usefixtures("no_plots")
def test_training_loss_is_the_mean_over_the_images_of_an_epoch(small, tmp_path):
    """A tiny learning rate keeps the loss of the initial weights. The last batch is smaller than the others."""
    config = TrainConfig.of(**FAST | {"batch_size": 100}, optimizer="mini-batch", learning_rate=1e-12)
    test = train(config, replace(small, test=small.train), tmp_path)
    assert [row["train_loss"] for row in rows(tmp_path)] == pytest.approx([test.loss] * 2, rel=1e-5)


def test_saved_model_is_the_evaluated_one(finished, small):
    folder, test = finished
    saved = checkpoint.load(folder / "model.pt")
    network = build(saved["model"])
    network.load_state_dict(saved["weights"])
    assert torch.equal(evaluate(network, small.test).logits, test.logits)


def test_plots_need_no_validation_set_and_no_mistakes(small, tmp_path):
    one = first(small.train, 1)
    config = TrainConfig.of(**FAST | {"epochs": 20, "validation": 0}, optimizer="adam")
    test = train(config, replace(small, train=one, validation=first(one, 0), test=one), tmp_path)
    assert test.accuracy == 1
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.usefixtures("no_plots")
def test_run_is_finished_even_if_the_plots_cannot_be_drawn(small, tmp_path, monkeypatch, capsys):
    def fail(_):
        raise OSError("the plots could not be drawn: no font")

    monkeypatch.setattr(NoPlots, "finish", fail)
    train(TrainConfig(**FAST), small, tmp_path)
    assert (tmp_path / "run.json").exists()
    assert "WARNING: the plots could not be drawn: no font; the run is complete" in capsys.readouterr().err
