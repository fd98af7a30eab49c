"""train() and evaluate(): what a run leaves, what its switches do, and what it survives."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import font_file
from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import ConfigError, TrainConfig
from training.data.digits import Digits
from training.distill import cache as lessons
from training.distill.ensemble import Ensemble
from training.evaluate import Evaluation, evaluate
from training.loop import train as training
from training.loop.train import TrainingError, train
from training.networks import build, normalize

FAST = {"model": "mlp", "epochs": 2, "batch_size": 64}


def first(digits, count):
    return digits.take(torch.arange(count))


@pytest.fixture(scope="module")
def small(mnist):
    """256 images to train on, 200 to validate, 300 to test."""
    return replace(
        mnist,
        train=first(mnist.train, 256),
        validation=first(mnist.validation, 200),
        test=first(mnist.test, 300),
    )


@pytest.fixture
def no_plots(monkeypatch):
    """Pictures take longer than these runs."""
    for name in ("plot_curves", "plot_confusion", "plot_mistakes", "plot_reliability"):
        monkeypatch.setattr(training, name, lambda *_: None)


def weights(folder):
    return checkpoint.load(folder / "model.pt")["weights"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class Stop:
    """Stands in for Progress; Ctrl-C comes after the step that is named."""

    def __init__(self, step):
        self.at = step

    def begin(self, total_steps, done_steps):
        pass

    def step(self, epoch, step, loss, rate):
        if step == self.at:
            raise KeyboardInterrupt

    def line(self, text):
        pass


# Learning


@pytest.mark.parametrize(("model", "epochs"), [("mlp", 60), ("cnn", 25)])
@pytest.mark.usefixtures("no_plots")
def test_memorises_a_batch(small, tmp_path, model, epochs):
    """A network, a loss and an optimizer that are wired up rightly can learn 64 images by heart."""
    batch = first(small.train, 64)
    config = TrainConfig.of(model=model, optimizer="adam", learning_rate=0.01, epochs=epochs)
    test = train(config, replace(small, train=batch, test=batch), tmp_path)
    assert test.correct == 64
    assert test.loss < 0.01


@pytest.mark.usefixtures("no_plots")
def test_equal_configs_give_equal_weights_and_another_seed_others(small, tmp_path):
    torch.manual_seed(1)
    train(TrainConfig(**FAST), small, tmp_path / "a")
    torch.manual_seed(2)
    train(TrainConfig(**FAST), small, tmp_path / "b")
    train(TrainConfig(**FAST, seed=1), small, tmp_path / "c")
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))
    assert timeless(rows(tmp_path / "a")) == timeless(rows(tmp_path / "b"))


@pytest.mark.parametrize(
    "switch",
    [
        {"augment": 0.0},
        {"augment": 0.5},
        {"elastic": 1.0},
        {"contrast": 1.0},
        {"erase": 0.5},
        {"clean_epochs": 1},
        {"label_smoothing": 0.1},
        {"ema": 0.0},
        {"weight_decay": 0.5},
        {"schedule": "constant"},
        {"learning_rate": 0.001},
        {"precision": "bfloat16"},
    ],
)
@pytest.mark.usefixtures("no_plots")
def test_every_switch_has_an_effect(small, tmp_path, switch):
    train(TrainConfig(**FAST), small, tmp_path / "a")
    train(TrainConfig(**FAST, **switch), small, tmp_path / "b")
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.usefixtures("no_plots")
def test_augmentation_sees_each_image_anew(small, tmp_path, monkeypatch):
    seen = []
    real = lessons.augment

    def augment(images, generator, **strengths):
        seen.append(real(images, generator, **strengths))
        return seen[-1]

    monkeypatch.setattr(lessons, "augment", augment)
    one = replace(small, train=first(small.train, 1))
    train(TrainConfig(**FAST), one, tmp_path / "a")
    assert len(seen) == 2
    assert not torch.equal(*seen)
    train(TrainConfig(**FAST, augment=0), one, tmp_path / "b")
    assert len(seen) == 2, "nothing is asked for"
    train(TrainConfig(**FAST, clean_epochs=1), one, tmp_path / "c")
    assert len(seen) == 3, "the last epoch sees images as they are"


@pytest.mark.usefixtures("no_plots")
def test_averaged_weights_are_the_ones_to_use(small, tmp_path):
    train(TrainConfig(**FAST), small, tmp_path)
    saved = checkpoint.load(tmp_path / "last.pt")
    averaged = {name: saved["averaged"][f"module.{name}"] for name in saved["network"]}
    assert equal(weights(tmp_path), averaged)
    assert not equal(weights(tmp_path), saved["network"])


@pytest.mark.usefixtures("no_plots")
def test_weights_without_averaging_are_the_last_ones(small, tmp_path):
    train(TrainConfig(**FAST, ema=0.0), small, tmp_path)
    saved = checkpoint.load(tmp_path / "last.pt")
    assert saved["averaged"] is None
    assert equal(weights(tmp_path), saved["network"])


def test_average_forgets_its_first_steps_fast():
    """Decay min(d, (1 + n) / (10 + n)), written out."""
    average = training._ema(0.5)
    mean, expected = [torch.zeros(1)], 0.0
    for n, value in enumerate([1.0, 5.0, -3.0] * 5, start=1):
        average(mean, [torch.tensor([value])], torch.tensor(n))
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert mean[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("no_plots")
def test_the_test_set_chooses_nothing(small, tmp_path):
    """Other test images, same run; and without validation images nothing is chosen at all."""
    other = replace(small, test=Digits(255 - small.test.images, small.test.labels))
    train(TrainConfig(**FAST), small, tmp_path / "a")
    train(TrainConfig(**FAST), other, tmp_path / "b")
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert timeless(rows(tmp_path / "a")) == timeless(rows(tmp_path / "b"))

    train(TrainConfig(**FAST, validation=0), replace(small, validation=first(small.train, 0)), tmp_path / "c")
    assert "validation_loss" not in rows(tmp_path / "c")[0]


# Learning from a teacher


@pytest.fixture(scope="module")
def teacher(small, tmp_path_factory):
    """The folder of a run that others learn from."""
    folder = tmp_path_factory.mktemp("teacher")
    train(TrainConfig(**FAST | {"epochs": 8}, seed=5), small, folder)
    return folder


@pytest.mark.usefixtures("no_plots")
def test_learns_what_the_teacher_says_not_the_label(small, tmp_path, teacher):
    """Labels that say nothing: all that is learnt comes from the teacher."""
    mute = replace(small, train=Digits(small.train.images, torch.zeros_like(small.train.labels)))
    settings = FAST | {"epochs": 40, "augment": 0.0, "learning_rate": 0.005, "teacher": str(teacher)}
    pupil = train(TrainConfig(**settings, teacher_weight=1.0), mute, tmp_path / "pupil")
    theirs = evaluate(Ensemble.load([teacher]), small.test)
    assert (pupil.predictions == theirs.predictions).float().mean() > 0.8
    alone = train(TrainConfig(**settings, teacher_weight=0.0), mute, tmp_path / "alone")
    assert (alone.predictions == 0).all()


@pytest.mark.usefixtures("no_plots")
def test_temperature_has_an_effect(small, tmp_path, teacher):
    for temperature in (1.0, 8.0):
        config = TrainConfig(**FAST, teacher=str(teacher), temperature=temperature)
        train(config, small, tmp_path / str(temperature))
    assert not equal(weights(tmp_path / "1.0"), weights(tmp_path / "8.0"))


@pytest.mark.usefixtures("no_plots")
def test_several_teachers_are_recorded_and_must_stay_the_same(small, tmp_path, teacher):
    other = tmp_path / "other"
    train(TrainConfig(**FAST), small, other)
    config = TrainConfig(**FAST, teacher=f"{teacher},{other}")
    train(config, small, tmp_path / "whole")
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["teachers"] == {
        str(folder): hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest() for folder in (teacher, other)
    }
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", checkpoint_every=1, progress=Stop(3))
    (other / "model.pt").write_bytes((teacher / "model.pt").read_bytes())
    with pytest.raises(TrainingError, match=r"--teacher .*: not the networks that .*run learnt from"):
        train(config, small, tmp_path / "run", resume=True)


@pytest.mark.usefixtures("no_plots")
def test_fonts_must_stay_the_same(small, tmp_path):
    fonts = tmp_path / "fonts"
    fonts.mkdir()
    shutil.copy(font_file("DejaVuSans"), fonts)
    config = TrainConfig(**FAST, fonts=str(fonts))
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", checkpoint_every=1, progress=Stop(3))
    (fonts / "DejaVuSans.ttf").unlink()
    shutil.copy(font_file("cmr10"), fonts)
    with pytest.raises(TrainingError, match=r"--fonts .*: not the fonts that .*run learnt from"):
        train(config, small, tmp_path / "run", resume=True)


def test_teacher_that_is_no_finished_run(small, tmp_path):
    config = TrainConfig(**FAST, teacher=str(tmp_path / "nobody"))
    with pytest.raises(TrainingError, match=r"--teacher .*nobody holds no model\.pt: name the run folders"):
        train(config, small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_plots")
def test_pupils_share_lessons(small, tmp_path, teacher, monkeypatch):
    """Two lessons for three epochs; the second pupil has another seed and asks nobody."""
    folder = tmp_path / "teacher"
    shutil.copytree(teacher, folder)
    settings = FAST | {"epochs": 3, "teacher": str(folder), "teacher_weight": 1.0, "lessons": 2}
    first_pupil = train(TrainConfig(**settings), small, tmp_path / "first")
    files = sorted((folder / "lessons").glob("*/*"))
    assert [file.name for file in files] == ["0.pt", "1.pt"]
    lesson, other = (checkpoint.load(file) for file in files)
    assert not torch.equal(lesson["images"], other["images"])
    assert torch.equal(lesson["answers"], Ensemble.load([folder])(normalize(lesson["images"])))

    with monkeypatch.context() as patch:
        for module in (training, lessons):
            patch.setattr(module, "ask", None)
        second_pupil = train(TrainConfig(**settings, seed=1), small, tmp_path / "second")
    assert not torch.equal(first_pupil.logits, second_pupil.logits)
    # Other augmentation is another course of lessons.
    train(TrainConfig(**settings | {"augment": 0.5, "epochs": 1}), small, tmp_path / "third")
    assert len(list((folder / "lessons").iterdir())) == 2


@pytest.mark.usefixtures("no_plots")
def test_lessons_without_augmentation_are_the_images(small, tmp_path, teacher):
    folder = tmp_path / "teacher"
    shutil.copytree(teacher, folder)
    train(TrainConfig(**FAST, augment=0, teacher=str(folder), lessons=1), small, tmp_path / "run")
    (lesson,) = (folder / "lessons").glob("*/*")
    assert torch.equal(checkpoint.load(lesson)["images"], small.train.images)


def test_lessons_need_a_teacher():
    with pytest.raises(ConfigError, match="--lessons 2: needs the --teacher who gives them"):
        TrainConfig(lessons=2)


# The run folder


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A run, and what train() returned."""
    folder = tmp_path_factory.mktemp("finished") / "made" / "on the way"
    return folder, train(TrainConfig(**FAST), small, folder)


def test_run_folder_is_whole(finished):
    folder, _ = finished
    files = {"last.pt", "model.pt", "metrics.jsonl", "curves.png", "confusion.png", "mistakes.png", "reliability.png"}
    files |= {"calibration.pt", "run.json"}
    assert {path.name for path in folder.iterdir()} == files
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, f"{path.name}: others may read it"
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


def test_record(finished, small):
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


def test_metrics_have_a_line_an_epoch(finished):
    folder, _ = finished
    assert [row["epoch"] for row in rows(folder)] == [1, 2]
    for row in rows(folder):
        assert {"train_loss", "validation_loss", "validation_accuracy", "rate", "seconds"} <= row.keys()
    assert rows(folder)[1]["validation_loss"] < rows(folder)[0]["validation_loss"]


@pytest.mark.usefixtures("no_plots")
def test_training_loss_is_the_mean_over_each_epochs_images(small, tmp_path):
    """At a rate too small to move anything, it is the loss of the first weights; the last batch is smaller."""
    config = TrainConfig.of(**FAST | {"batch_size": 100}, optimizer="mini-batch", learning_rate=1e-12)
    test = train(config, replace(small, test=small.train), tmp_path)
    assert [row["train_loss"] for row in rows(tmp_path)] == pytest.approx([test.loss] * 2, rel=1e-5)


def test_model_is_what_was_evaluated(finished, small):
    folder, test = finished
    saved = checkpoint.load(folder / "model.pt")
    network = build(saved["model"])
    network.load_state_dict(saved["weights"])
    assert torch.equal(evaluate(network, small.test).logits, test.logits)


def test_pictures_without_validation_and_without_mistakes(small, tmp_path):
    one = first(small.train, 1)
    config = TrainConfig.of(**FAST | {"epochs": 20, "validation": 0}, optimizer="adam")
    test = train(config, replace(small, train=one, validation=first(one, 0), test=one), tmp_path)
    assert test.accuracy == 1
    assert len(list(tmp_path.glob("*.png"))) == 4


# Stopping, and going on


@pytest.mark.parametrize(
    ("every", "stop", "saved"), [(0, 3, None), (0, 6, 4), (3, 3, None), (3, 5, 4), (3, 7, 6), (1, 4, 3), (1, 8, 7)]
)
@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.usefixtures("no_plots")
def test_interrupted_run_goes_on_where_it_was_saved(small, tmp_path, teacher, every, stop, saved, kept):
    """Four steps an epoch. Progress hears of a step before it is saved."""
    settings = {"elastic": 0.5, "erase": 0.3, "clean_epochs": 1, "precision": "bfloat16", "foreign": 0.25}
    config = TrainConfig(**FAST | settings, teacher=str(teacher), lessons=kept)
    train(config, small, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", checkpoint_every=every, progress=Stop(stop))
    last = tmp_path / "run" / "last.pt"
    assert (checkpoint.load(last)["step"] if last.exists() else None) == saved
    train(config, small, tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert timeless(rows(tmp_path / "run")) == timeless(rows(tmp_path / "whole"))


@pytest.mark.parametrize("evaluations", [1, 2])
@pytest.mark.usefixtures("no_plots")
def test_stopped_between_an_epochs_last_step_and_its_row(small, tmp_path, monkeypatch, evaluations):
    config = TrainConfig(**FAST)
    train(config, small, tmp_path / "whole")
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == evaluations:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, small, tmp_path / "run", checkpoint_every=1)
    train(config, small, tmp_path / "run", resume=True, checkpoint_every=1)
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert timeless(rows(tmp_path / "run")) == timeless(rows(tmp_path / "whole"))


def test_folder_of_another_run_is_refused(finished, small):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TrainingError, match="already holds a run: add --resume"):
        train(TrainConfig(**FAST), small, folder)
    with pytest.raises(TrainingError, match=r"another run: it has --learning-rate 0\.01, not 0\.02, --seed 0, not 7"):
        train(TrainConfig(**FAST, seed=7, learning_rate=0.02), small, folder, resume=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_are_no_run_to_go_on_with(finished, small, tmp_path):
    (tmp_path / "last.pt").write_bytes((finished[0] / "model.pt").read_bytes())
    with pytest.raises(CheckpointError, match="holds weights alone"):
        train(TrainConfig(**FAST), small, tmp_path, resume=True)


@pytest.mark.usefixtures("no_plots")
def test_divergence_stops_and_keeps_the_last_good_checkpoint(small, tmp_path):
    """The second step's loss is that of the weights which the first has ruined."""
    config = TrainConfig.of(**FAST, optimizer="mini-batch", learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"not a number at step 2\. Try a lower --learning-rate than 1e\+30"):
        train(config, small, tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []

    with pytest.raises(TrainingError, match=r"at step 2\. .*last\.pt holds the last good state"):
        train(config, small, tmp_path / "b", checkpoint_every=1)
    saved = checkpoint.load(tmp_path / "b" / "last.pt")
    assert saved["step"] == 1
    assert all(value.isfinite().all() for value in saved["network"].values())


@pytest.mark.parametrize("rate", [1e30, 1e38, 3e38])
@pytest.mark.parametrize("validation", [0, 200])
@pytest.mark.usefixtures("no_plots")
def test_divergence_in_the_very_last_step_is_seen(small, tmp_path, rate, validation):
    config = TrainConfig.of(model="mlp", epochs=1, optimizer="gd", learning_rate=rate)
    with pytest.raises(TrainingError, match="not a number at step 2"):
        train(config, replace(small, validation=first(small.validation, validation)), tmp_path)
    assert not (tmp_path / "model.pt").exists()
    assert not (tmp_path / "run.json").exists()
    assert not validation or list(tmp_path.iterdir()) == [], "with validation images it is seen before it is saved"


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_full_disk_keeps_the_previous_checkpoint(small, tmp_path, monkeypatch, call):
    """The first epoch's checkpoint is kept when the second's cannot be written."""

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
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "metrics.jsonl"}, "nothing half-written stays"
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4
    assert len(rows(tmp_path)) == 1


# Checkpoints


def test_checkpoint_holds_what_was_saved(tmp_path):
    state = {"tensor": torch.randn(3), "words": ["a", None, 1.5], "nested": {"b": (1, 2)}}
    checkpoint.save(tmp_path / "c.pt", state)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert torch.equal(loaded.pop("tensor"), state.pop("tensor"))
    assert loaded == state | {"format": checkpoint.FORMAT}
    plain = torch.load(tmp_path / "c.pt", weights_only=True)
    assert plain["words"] == state["words"], "torch reads it too"


def test_no_damage_goes_unseen(tmp_path):
    """Every bit flipped, every length cut: nothing loads, and nothing but CheckpointError comes out."""
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"weights": torch.arange(6.0), "step": 1})
    whole = path.read_bytes()
    cuts = [whole[:length] for length in range(0, len(whole), 5)]
    flips = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for damaged in (*cuts, *flips, whole + b"x", b"rubbish"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"c\.pt is damaged or not a checkpoint"):
            checkpoint.load(path)


def test_checkpoint_of_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    checkpoint.save(tmp_path / "c.pt", {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        checkpoint.load(tmp_path / "c.pt")


# Evaluation


@pytest.fixture(scope="module")
def answers():
    """Made-up answers, some of them wrong, with confidences over the whole range."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3000, 10)).astype(np.float32) * generator.uniform(0, 4, (3000, 1))
    labels = np.where(generator.random(3000) < 0.6, logits.argmax(axis=1), generator.integers(0, 10, 3000))
    return logits, labels, Evaluation(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels))


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_loss_and_accuracy(answers):
    logits, labels, evaluation = answers
    assert evaluation.loss == pytest.approx(-np.log(softmax(logits)[np.arange(3000), labels]).mean(), rel=1e-5)
    assert evaluation.correct == (logits.argmax(axis=1) == labels).sum()
    assert evaluation.accuracy == evaluation.correct / 3000


def test_confusion(answers):
    logits, labels, evaluation = answers
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (labels, logits.argmax(axis=1)), 1)
    assert evaluation.confusion.tolist() == expected.tolist()
    assert evaluation.confusion.trace() == evaluation.correct


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error(answers, bins):
    logits, labels, evaluation = answers
    confidence, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    expected = 0.0
    for i in range(bins):
        inside = (confidence >= i / bins) & (confidence < (i + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected > 0.01
    assert evaluation.calibration_error(bins) == pytest.approx(expected, abs=1e-4)


def test_sure_and_right_is_perfectly_calibrated():
    labels = torch.arange(10)
    assert Evaluation(torch.eye(10) * 1000, labels).calibration_error() == 0
    assert Evaluation(torch.eye(10) * 1000, labels.roll(1)).calibration_error() == 1


def test_evaluate_asks_in_evaluation_mode_and_leaves_the_mode(small):
    for training_mode in (True, False):
        network = nn.Sequential(build("cnn"), nn.Dropout(0.5)).train(training_mode)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        once, twice = evaluate(network, small.test), evaluate(network, small.test)
        assert torch.equal(once.logits, twice.logits)
        assert network.training is training_mode
        assert equal(network.state_dict(), before)


def test_evaluate_in_batches_is_evaluate_at_once(small, monkeypatch):
    network = build("mlp")
    with torch.no_grad():
        expected = network(normalize(small.test.images))
    monkeypatch.setattr("training.evaluate.BATCH", 77)
    torch.testing.assert_close(evaluate(network, small.test).logits, expected)


# The config


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": math.inf},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"ema": 1.0},
        {"ema": -0.1},
        {"validation": -1},
        {"validation": 30_001},
        {"subset": -1},
        {"seed": -1},
        {"schedule": "cosine"},
        {"dataset": "letters"},
        {"optimizer": "lion"},
    ],
)
def test_bounds(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} '?{value}'?"):
        TrainConfig(**wrong)
