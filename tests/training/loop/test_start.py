"""--from: the weights of a run or of a published version, and the classes that keep theirs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

import training
from tests.training.support import FAST, Stop, equal, first, weights
from training import checkpoint
from training.config import ConfigError, TrainConfig
from training.evaluate import evaluate
from training.loop.errors import TrainingError
from training.loop.start import forgotten, start_from
from training.loop.train import train
from training.networks import build, normalize
from training.origin import config_of, model_of, origin
from training.trained import read

PACKAGED = origin("packaged")


def test_published_weights_give_the_certified_network(mnist):
    """The network is the certified one in evaluation, and in training it starts from the same accuracy."""
    start = read(str(PACKAGED))
    assert (start.model, start.labels) == ("cnn", tuple("0123456789"))
    test = first(mnist.test, 1000)
    assert evaluate(start.network, test).correct >= 995
    with torch.no_grad():
        predictions = start.network.train()(normalize(test.images)).argmax(dim=1)
    assert (predictions == test.labels).float().mean() > 0.98


def test_class_of_the_same_name_keeps_its_weights():
    network, labels = build("cnn", 3), ("7", "A", "1")
    before = network.head.weight.detach().clone()
    digests = start_from(TrainConfig(start="packaged"), network, labels)
    old = read("packaged").network.head.weight
    assert torch.equal(network.head.weight[0], old[7])
    assert torch.equal(network.head.weight[2], old[1])
    assert torch.equal(network.head.weight[1], before[1])
    assert list(digests) == ["packaged"]


@pytest.mark.parametrize(
    ("labels", "settings", "line"),
    [
        ("0123456789a", {}, ""),
        ("ab", {}, ""),
        ("012345678a", {}, "forgets 1 class of packaged: 9; --replay with its pictures keeps them"),
        ("01", {}, "forgets 8 classes of packaged: 2, 3, 4, 5, 6 and 3 more; --replay with its pictures keeps them"),
        ("01", {"dataset": "./new", "replay": "mnist"}, ""),
    ],
)
def test_forgotten_classes_are_told(labels, settings, line):
    assert forgotten(TrainConfig(start="packaged", **settings), labels) == line


def run_of(folder, prepare):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"config": {"model": "mlp"}, "dataset": {"prepare": prepare}}))
    return str(folder)


def test_own_pictures_are_prepared_as_for_the_model_of_the_start(tmp_path):
    """Otherwise a model of photos would get pictures of symbols, and the service would follow the newest version."""
    start = run_of(tmp_path / "photos", "as-is")

    def prepare(**given):
        return config_of({"start": start, **given})[0].prepare

    own = {"dataset": "./new"}
    assert prepare(**own) == prepare(**own, replay="./old") == prepare(**own, replay="./old", model="cnn") == "as-is"
    # Without --replay it is another model.
    assert prepare(**own, prepare="symbol") == prepare(dataset="mnist") == "symbol"
    for settings in ({"prepare": "symbol", "replay": "./old"}, {"replay": "mnist"}):
        with pytest.raises(ConfigError, match=r"^--prepare symbol: .* --from .*photos, which is as-is; give --prepare"):
            prepare(**own, **settings)
    with pytest.raises(ConfigError, match=r"^--prepare symbol: "):
        training.train(TrainConfig(**own, start=start, replay="./old"))
    with pytest.raises(ConfigError, match="there is no trained model"):
        prepare(**own, start=str(tmp_path), model="cnn")


def test_run_starts_from_the_weights_of_a_run(small, teacher, tmp_path, no_plots):
    config = TrainConfig(**FAST | {"epochs": 1, "learning_rate": 1e-9}, start=str(teacher))
    test = train(config, small, tmp_path)
    assert test.accuracy > 0.5  # One epoch from random weights, with this learning rate, would give about 0.1.
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["start"] == {str(teacher): json.loads((teacher / "run.json").read_text())["model_sha256"]}


def test_wrong_start_is_one_line(teacher, tmp_path):
    assert (model_of("packaged"), model_of(str(teacher))) == ("cnn", "mlp")
    with pytest.raises(ConfigError, match=r"^--from \S+: there is no trained model; (choose from|name a finished)"):
        model_of(str(tmp_path))
    with pytest.raises(TrainingError, match=r"^--from \S+: .*; name a finished run folder"):
        start_from(TrainConfig(start=str(tmp_path)), build("cnn"), "01")
    with pytest.raises(TrainingError, match="is a mlp, not a cnn"):
        start_from(TrainConfig(start=str(teacher)), build("cnn"), tuple("0123456789"))


def test_kept_share_is_in_the_result(small, teacher, tmp_path, no_plots):
    config = TrainConfig(**FAST | {"epochs": 1}, start=str(teacher), keep=0.75)
    train(config, small, tmp_path)
    state = checkpoint.load(tmp_path / "last.pt")
    first_weights = read(str(teacher)).network.state_dict()
    for name, value in read(str(tmp_path)).network.state_dict().items():
        last = state["averaged"][f"module.{name}"] if state["averaged"] else state["network"][name]
        assert torch.allclose(value, 0.75 * first_weights[name] + 0.25 * last, atol=1e-6)
        assert not torch.equal(value, last)


def test_resumed_run_keeps_the_same_share(small, teacher, tmp_path, no_plots):
    config = TrainConfig(**FAST, start=str(teacher), keep=0.5)
    train(config, small, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "stopped", progress=Stop(6))
    train(config, small, tmp_path / "stopped", resume=True)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_resumed_run_has_the_start_that_it_began_with(small, teacher, tmp_path, no_plots):
    """The weights come from the checkpoint, so another start would be ignored, and the record would name it."""
    config = TrainConfig(**FAST | {"epochs": 1}, start=str(teacher))
    train(config, small, tmp_path / "run")
    moved = shutil.copytree(teacher, tmp_path / "moved")
    train(replace(config, start=str(moved)), small, tmp_path / "run", resume=True)
    for start in (str(tmp_path / "run"), ""):
        with pytest.raises(TrainingError, match=rf"^--from {start}: the run in .* began with other weights; leave"):
            train(replace(config, start=start), small, tmp_path / "run", resume=True)


def test_nothing_can_be_kept_without_a_start():
    with pytest.raises(ConfigError, match=r"^--keep 0\.5: needs --from"):
        TrainConfig(keep=0.5)
    with pytest.raises(ConfigError, match=r"^--keep 1\.0: must be from 0 to below 1"):
        TrainConfig(keep=1.0, start="packaged")
