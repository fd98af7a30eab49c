"""Replay: new pictures are learnt beside the replay data set."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from export.gate import Gate, GateError
from export.publishing import publish
from export.run import Run
from export.verify import verify_bundle
from serving.models import bundle
from serving.settings import RELEASE
from tests.support import picture
from tests.training.support import FAST, Stop, equal, weights
from training.config import ConfigError, TrainConfig
from training.data import load as loading
from training.data.digits import Digits, Replay, Splits
from training.data.errors import DataError
from training.data.load import Selection, load_data, load_saved
from training.data.own.replay import with_replay
from training.loop import inputs
from training.loop.replay import Widened, new_images, replay_lines, with_enough_epochs
from training.loop.train import train
from training.networks import build


@pytest.fixture
def small_mnist(small, monkeypatch):
    """Known data sets are a small part of MNIST."""
    monkeypatch.setattr(loading.digits, "load", lambda *arguments, **options: small)
    return small


def crosses(folder, label, count=8):
    """Pictures of crosses, in the folder of a class."""
    (folder / label).mkdir(parents=True)
    for number in range(count):
        image = np.zeros((40, 40), np.uint8)
        image[10:30, 18 + number % 3 : 22] = image[18 : 22 + number // 3, 10 : 25 + ord(label) % 9] = 255 - number
        (folder / label / f"{number}.png").write_bytes(picture(image))
    return folder


def loaded(folder, **options):
    return load_data(str(folder), Selection(validation=200), "mnist", **options)


def test_corrections_keep_the_classes_and_the_name(small_mnist, tmp_path):
    splits = loaded(crosses(tmp_path / "feedback", "7"))
    assert (splits.name, splits.labels) == ("mnist", tuple("0123456789"))
    new = splits.replay.added
    assert (len(splits.train), splits.train_images) == (256, 256 + len(new))
    assert set(new.labels.tolist()) == {7}
    assert len(splits.test) + len(splits.validation) + len(new) == 300 + 200 + 8
    assert torch.equal(splits.test.images[:300], small_mnist.test.images)
    assert splits.digests.keys() == {*small_mnist.digests, "pictures"}


def test_new_classes_come_after_the_known_ones(small_mnist, tmp_path):
    crosses(tmp_path / "mine", "+")
    splits = loaded(crosses(tmp_path / "mine", "0"))
    assert (splits.name, splits.labels) == ("mine", (*"0123456789", "+"))
    assert set(splits.replay.added.labels.tolist()) == {0, 10}


def images(*values):
    return torch.tensor(values, dtype=torch.uint8)[:, None, None].expand(-1, 28, 28).contiguous()


def parts(labels, **named):
    """A data set of grey images. Each part has pairs of a grey value and a label."""
    pairs = {"train": [], "validation": [], "test": [], **named}
    made = {
        part: Digits(
            images(*(grey for grey, _ in each)), torch.tensor([labels.index(label) for _, label in each]).long()
        )
        for part, each in pairs.items()
    }
    return Splits("signs", tuple(labels), {}, **made, is_own=True)


def pairs(digits, labels):
    return [(int(image[0, 0]), labels[label]) for image, label in zip(digits.images, digits.labels, strict=True)]


def test_same_picture_is_in_one_part_and_has_one_class():
    """The hash of its file decides the part of a picture, so a copy in another file may be in another part."""
    old = parts("ab", train=[(1, "a"), (2, "a"), (3, "b"), (4, "b")], validation=[(5, "a")], test=[(6, "b")])
    new = parts(
        "bc", train=[(1, "c"), (3, "b"), (5, "b"), (6, "b"), (7, "c")], validation=[(4, "b"), (8, "b")], test=[(2, "c")]
    )
    splits = with_replay(new, old)
    assert splits.labels == tuple("abc")
    assert pairs(splits.train, "abc") == [(3, "b"), (4, "b")]
    assert pairs(splits.replay.added, "abc") == [(1, "c"), (3, "b"), (7, "c")]
    assert pairs(splits.validation, "abc") == [(5, "a"), (8, "b")]
    # Its class is corrected, so it is no longer learnt.
    assert pairs(splits.test, "abc") == [(6, "b"), (2, "c")]
    assert splits.replay.left_out == (
        "left out 2 of 5 new training pictures: signs has them in its validation or test set",
        "left out 1 of 3 new pictures for validation and test: signs has them in its training set",
        "left out 2 of 4 training images of signs: as new pictures, they have another class",
    )
    assert with_replay(parts("b", train=[(9, "b")]), old).replay.left_out == ()
    for added, what in (([(6, "b")], ""), ([(6, "c"), (9, "b")], " in c"), ([(n, "c") for n in (1, 2, 3, 4)], "")):
        with pytest.raises(DataError, match=f"^signs: no picture is left to learn from{what}, because signs has"):
            with_replay(parts("bc" if what else added[0][1], train=added), old)


@pytest.mark.usefixtures("no_plots")
def test_run_says_what_is_left_out(tmp_path):
    old = parts("ab", train=[(1, "a"), (2, "b")] * 20, test=[(6, "b")])
    splits = with_replay(parts("b", train=[(6, "b"), (7, "b")]), old)
    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig(**FAST | {"batch_size": 20}), splits, tmp_path, progress=Told(1))
    assert Told.lines[0].startswith("left out 1 of 2 new training pictures: ")


class Told(Stop):
    """Stops, and keeps the lines of the run."""

    lines: ClassVar = []

    def line(self, text):
        self.lines.append(text)


def test_new_images_fit_into_an_epoch():
    def share(count, train_images):
        added = Digits(torch.zeros(count, 28, 28, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
        return new_images(Replay("mnist", (), 0, 0, added, False), train_images)[1]

    assert share(10, 10_000) == 1 / 16
    assert share(2000, 1000) == 2


@pytest.mark.parametrize(
    ("mean", "counts"), [(0.5, [0, 1] * 8), (1 / 16, [0] * 15 + [1]), (0.6, [1] * 16), (8, [8] * 16)]
)
def test_small_batches_are_shown_new_images_too(mean, counts):
    """Of a batch of 8 images, 1/16 is half an image: it was rounded to none in every step."""
    assert [inputs.drawn_count(mean, step) for step in range(16)] == counts
    state = SimpleNamespace(
        labels=("a",),
        config=TrainConfig(),
        drawn=[(Digits(images(*range(8)), torch.zeros(8, dtype=torch.int64)), mean)],
    )
    generator = torch.Generator().manual_seed(0)
    drawn = [inputs._drawn_images(state, step, 1, generator, torch.device("cpu")) for step in range(16)]
    assert [len(each) if each else 0 for each in drawn] == counts


def test_widened_network_never_chooses_a_class_that_it_does_not_know():
    network = build("mlp", 2).eval()
    wide = Widened(network, ("b", "a"), ("a", "x", "b"))
    images = torch.randn(5, 1, 28, 28)
    torch.testing.assert_close(wide(images)[:, [2, 0]], network(images))
    assert (wide(images)[:, 1] == -20).all()


def test_folder_of_the_flag_is_the_only_source_of_a_resumed_run_too(tmp_path, monkeypatch):
    monkeypatch.setattr("training.data.own.saved.load", lambda _: SimpleNamespace(prepare="symbol"))
    with pytest.raises(DataError, match=f"^--data {tmp_path}: has no train-images"):
        load_saved(tmp_path, Selection(folder=tmp_path, only_folder=True), "mnist")


@pytest.mark.usefixtures("no_plots")
def test_run_is_resumed_exported_and_verified(small_mnist, teacher, tmp_path):
    """An interrupted run ends with the same weights, and its own pictures come from the run folder."""
    folder = crosses(tmp_path / "feedback", "7")
    settings = FAST | {"dataset": str(folder), "replay": "mnist", "start": str(teacher), "validation": 200}
    config = TrainConfig.of(**settings, teacher_weight=1.0)
    splits = loaded(folder)
    whole = train(config, splits, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, splits, tmp_path / "run", progress=Stop(5), checkpoint_every=1)
    for path in (folder / "7").iterdir():
        path.unlink()
    train(config, load_saved(tmp_path / "run", Selection(validation=200), "mnist"), tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))

    record = json.loads((tmp_path / "run" / "run.json").read_text())
    replay = record["dataset"]["replay"]
    right = int((whole.predictions[:300] == whole.labels[:300]).sum())
    assert (replay["name"], replay["images"], replay["errors"]) == ("mnist", 300, 300 - right)
    assert replay["errors_before"] > 0
    assert record["teachers"] == record["start"]
    new = replay["new"]
    assert new["images"] + new["held_out"] == 8
    assert new["images"] == len(splits.replay.added)
    of_test = int((whole.predictions[300:] == 7).sum())
    assert of_test <= new["held_out_correct"] <= of_test + len(splits.validation) - 200

    bundle = publish(Run.read(tmp_path / "run"), tmp_path / "models", gate=Gate(margin=1))
    assert bundle.manifest.name == "mnist"
    assert bundle.manifest.training["config"]["dataset"] == bundle.manifest.training["config"]["replay"] == "mnist"
    assert bundle.manifest.training["dataset"]["replay"] == replay
    assert verify_bundle(bundle.folder, tmp_path / "run").manifest == bundle.manifest


@pytest.mark.usefixtures("no_plots")
def test_start_model_teaches_its_own_classes_while_new_ones_are_learnt(small_mnist, teacher, tmp_path):
    folder = crosses(tmp_path / "mine", "+", 20)
    settings = FAST | {"epochs": 8, "learning_rate": 0.01, "start": str(teacher)}
    config = TrainConfig.of(**settings, dataset=str(folder), replay="mnist")
    test = train(config, loaded(folder), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["dataset"]["labels"] == [*"0123456789", "+"]
    assert record["teachers"].keys() == {str(teacher)}
    assert record["dataset"]["replay"]["errors"] < record["dataset"]["replay"]["errors_before"] + 30
    new = test.predictions[300:]
    assert len(new)
    assert (new == 10).all()


@pytest.mark.usefixtures("no_plots")
def test_own_data_set_can_be_replayed(tmp_path):
    old = tmp_path / "signs"
    crosses(old, "+", 20)
    crosses(old, "x", 21)
    for number, path in enumerate(sorted((old / "x").iterdir())):
        path.write_bytes(picture(np.tri(40, 40, -number, dtype=np.uint8) * 255))
    new = crosses(tmp_path / "feedback", "x", 9)
    splits = load_data(str(new), Selection(validation=1), str(old))
    assert splits.name == "signs"
    config = TrainConfig.of(**FAST, dataset=str(new), replay=str(old))
    train(config, splits, tmp_path / "run")
    again = load_saved(tmp_path / "run", Selection(validation=1), "signs")
    assert again.digests == splits.digests
    assert torch.equal(again.replay.added.images, splits.replay.added.images)
    assert Run.read(tmp_path / "run").splits(None).digests == splits.digests
    (tmp_path / "run" / "replay.npz").unlink()
    with pytest.raises(DataError, match=r"replay\.npz: is missing; put it back, or train again with another --output"):
        Run.read(tmp_path / "run").splits(None)


def test_settings_that_do_not_fit_are_rejected(small_mnist, tmp_path):
    with pytest.raises(ConfigError, match="--replay mnist: needs --dataset with the path of your own pictures"):
        TrainConfig.of(replay="mnist")
    with pytest.raises(ConfigError, match="--replay mnits: unknown name; did you mean mnist"):
        TrainConfig.of(dataset="./a", replay="mnits")
    with pytest.raises(DataError, match="holds no pictures in folders"):
        loaded(tmp_path)
    assert TrainConfig.of(dataset="./a", replay="fashion-mnist").prepare == "as-is"


def test_fine_tuning_has_small_steps_by_default():
    settings = {"dataset": "./a", "replay": "mnist"}
    tuned = TrainConfig.of(**settings, start="packaged", batch_size=64)
    assert (tuned.epochs, tuned.batch_size, tuned.learning_rate, tuned.balance) == (1, 64, 0.0002, 0)
    assert TrainConfig.of(**settings).learning_rate == TrainConfig.learning_rate


@pytest.mark.parametrize(
    ("images", "given", "epochs"),
    [(12_800, {}, 1), (12_799, {}, 2), (60_000, {}, 1), (62, {}, 207), (62, {"epochs": 3}, 3), (62, {"start": ""}, 8)],
)
def test_run_on_few_images_has_enough_epochs(images, given, epochs):
    old = Digits(torch.zeros(images, 1), torch.zeros(images, dtype=torch.int64))
    splits = SimpleNamespace(train=old, replay=object())
    settings = {"dataset": "./a", "replay": "./b", "start": "packaged", **given}
    config = with_enough_epochs(TrainConfig.of(**settings), settings, splits)
    assert config.epochs == epochs
    assert with_enough_epochs(config, settings, SimpleNamespace(train=old, replay=None)) == config


def test_run_says_what_it_has_learnt():
    new = {"images": 10, "correct": 8, "held_out": 4, "held_out_correct": 1}
    record = {"name": "mnist", "errors": 3, "errors_before": 5, "images": 10_000, "new": new}
    lines = [
        "mnist: 3 errors of 10,000 test images, 5 before",
        "new pictures: 8 of 10 learnt; of the 4 for validation and test, 1 right",
    ]
    assert replay_lines(record, 6) == lines
    new |= {"correct": 7, "held_out": 0}
    assert replay_lines(record | {"errors": 1, "errors_before": None}, 6) == [
        "mnist: 1 error of 10,000 test images",
        "new pictures: 7 of 10 learnt",
        "Many new pictures are not learnt. Give more --epochs than 6, or look for wrong labels: mnist-train review",
    ]


# The gate.


def finished(folder, errors, before=31, images=10_000, name="mnist"):
    replay = {"name": name, "own": False, "images": images, "errors": errors, "errors_before": before}
    test = {"images": images + 2, "correct": images - errors}
    record = {"dataset": {"name": "mnist", "replay": replay}, "calibration": {"result": {"test": test}}}
    return Run(folder, record, build("mlp"), None)


def test_run_that_forgot_too_much_is_not_published(tmp_path):
    Gate().check(finished(tmp_path, 36), tmp_path, "mnist")
    with pytest.raises(
        GateError, match=r"37 errors on the 10000 test images of mnist, and the model that it started from"
    ):
        Gate().check(finished(tmp_path, 37), tmp_path, "mnist")
    with pytest.raises(GateError, match=r"has 1 error on the 24 test images"):
        Gate().check(finished(tmp_path, 1, before=0, images=24), tmp_path, "mnist")
    Gate(margin=0.001).check(finished(tmp_path, 41), tmp_path, "mnist")
    Gate(margin=1).check(finished(tmp_path, 9999), tmp_path, "mnist")
    Gate().check(finished(tmp_path, 9999, before=None), tmp_path, "mnist")


def test_small_losses_of_many_runs_do_not_add_up(tmp_path):
    """The packaged model is a published version, and the run started from a worse one."""
    errors = bundle.read(shutil.copytree(RELEASE / "mnist", tmp_path / "mnist") / "1").manifest.result["test"]["errors"]
    many, before = errors + 8, errors + 4
    with pytest.raises(GateError, match=f"version 1 of mnist has {errors}: the run must have at most {errors + 5}"):
        Gate().check(finished(tmp_path, many, before=before), tmp_path, "mnist")
    Gate().check(finished(tmp_path, many, before=before, name="qmnist"), tmp_path, "mnist")
    Gate().check(finished(tmp_path, many, before=before), tmp_path, "other")


@pytest.mark.parametrize(("labels", "expected"), [(("a", "b", "c"), {-1}), (("7", "1", "4"), {7, 1, 4, -1})])
def test_style_augmentation_knows_the_digit_of_a_drawn_image(monkeypatch, labels, expected):
    """Only a 1 gets an upstroke, and not class 1 of other symbols. Outliers have no class."""
    given = []
    monkeypatch.setattr(inputs, "restyle", lambda images, digits, *_: given.append(digits) or images)
    classes = torch.arange(64) % 4 - 1
    drawn = Digits(torch.zeros(64, 28, 28, dtype=torch.uint8), classes)
    state = SimpleNamespace(labels=labels, config=TrainConfig(style=0.5), drawn=[(drawn, 1.0)])
    found = inputs._drawn_images(state, 0, 64, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert set(given[0].tolist()) == expected
    assert set(found.labels.tolist()) == {-1, 0, 1, 2}
