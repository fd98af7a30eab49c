"""Training from Python: settings and their errors, data from arrays, and the report on a data set."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import training
from tests.support import ROOT, picture
from tests.training.support import FAST, bar, equal, rows, timeless, weights
from training.config import ConfigError, TrainConfig
from training.data.errors import DataError
from training.data.load import Selection, load_data
from training.loop.errors import TrainingError
from training.loop.train import train as train_loop
from training.python.running import _settings

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def arrays():
    """Lines of three directions as arrays."""
    angles = {"|": 0, "/": -45, "-": 90}
    return {
        "images": np.stack([bar(angle, variant) for angle in angles.values() for variant in range(30)]),
        "labels": np.repeat(list(angles), 30),
    }


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    """The same as a folder."""
    folder = tmp_path_factory.mktemp("data") / "lines"
    for name, label in (("up", "|"), ("slash", "/"), ("level", "-")):
        (folder / name).mkdir(parents=True)
        for i in np.flatnonzero(arrays["labels"] == label):
            (folder / name / f"{i}.png").write_bytes(picture(arrays["images"][i]))
    return folder


def test_training_in_python_gives_the_weights_of_the_command(folder, tmp_path, capsys):
    run = training.train(FAST, folder, tmp_path / "python")
    config = TrainConfig.of(**FAST, dataset=str(folder))
    splits = load_data(config.dataset, Selection(config.prepare, validation=config.validation))
    train_loop(config, splits, tmp_path / "loop")
    assert equal(weights(tmp_path / "python"), weights(tmp_path / "loop"))
    assert run.settings == config.asdict()
    assert list(run.history) == rows(tmp_path / "python")
    assert "epoch 2/2" in capsys.readouterr().out


@pytest.mark.parametrize("settings", [{}, {"recipe": "small-data"}, {"model": "mlp"}])
def test_few_pictures_are_answered_with_the_recipe(folder, tmp_path, monkeypatch, capsys, settings):
    monkeypatch.setattr("training.loop.train.train", lambda *_, **__: None)
    with pytest.raises(TrainingError, match="holds no finished run"):
        training.train(settings, folder, tmp_path / "run")
    assert capsys.readouterr().err.count("small-data") == (not settings)


def test_folders_may_be_relative_as_in_the_command(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in ("lines", "./lines"):
        config, chosen = _settings({"dataset": name, "replay": name}, None)
        assert config.dataset == config.replay == chosen["replay"] == str(folder)
    assert _settings({"dataset": "lines", "replay": "mnist"}, None)[0].replay == "mnist"
    for given in ({}, {"dataset": ""}):
        with pytest.raises(ConfigError, match=r"^data : does not exist"):
            training.train(given, None if given else "")


def test_arrays_are_a_data_set_and_the_run_can_be_resumed(arrays, tmp_path, capsys):
    run = training.train(FAST, arrays, tmp_path / "run", progress=False)
    assert run.labels == ("-", "/", "|")
    assert run.record["dataset"]["name"] == "arrays"
    longer = training.train(FAST | {"epochs": 3}, arrays, tmp_path / "run", resume=True, progress=False)
    assert timeless(longer.history)[:1] == timeless(run.history)[:1]
    assert len(longer.history) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": None}, ConfigError, "data 'labels': must hold numbers or texts only"),
        ({"images": [np.zeros((2, 3)), np.zeros((4, 5))]}, ConfigError, "data 'images': is no array"),
        ({"labels": ["a", "b"]}, DataError, r"^data images: its labels have the shape \[2\]"),
        ({"labels": ["a"] * 90}, DataError, "has 1 class"),
        ({"images": np.full((90, 5, 5), -1)}, DataError, "pixels are from -1 to -1: must be in 0..255"),
        ({"pictures": np.zeros(3)}, DataError, "must have the arrays images and labels"),
    ],
)
def test_array_that_cannot_be_used_is_named(arrays, tmp_path, changes, error, message):
    data = changes if "pictures" in changes else arrays | changes
    with pytest.raises(error, match=message) as raised:
        training.train(FAST, data, tmp_path / "run", progress=False)
    assert "tmp" not in str(raised.value).replace(str(tmp_path), "")
    assert not (tmp_path / "run").exists()


def test_column_of_a_table_holds_labels(arrays, tmp_path):
    column = np.array(arrays["labels"].tolist(), dtype=object)
    run = training.train(
        FAST, {"images": arrays["images"] / 255, "labels": column}, tmp_path / "run", progress=False
    )  # fmt: skip
    assert run.labels == ("-", "/", "|")


def test_folder_of_another_run_is_kept(folder, tmp_path):
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match="already holds a run"):
        training.train(FAST, folder, tmp_path)


def test_config_and_settings_mean_the_same():
    config, chosen = _settings({"recipe": "speed", "epochs": np.int64(3), "learning_rate": 1}, "mnist")
    assert config == TrainConfig.of(recipe="speed", epochs=3, learning_rate=1.0, dataset="mnist")
    assert type(config.epochs) is int
    assert chosen == TrainConfig.chosen(recipe="speed", epochs=3, learning_rate=1.0, dataset="mnist")
    assert _settings(config, None)[0] == config
    assert _settings(config, "kmnist")[0].dataset == "kmnist"
    assert _settings(None, None)[0] == TrainConfig()
    assert _settings({}, "/a/folder")[0].balance == 0.5, "the default for your own data"


def test_start_of_another_model_brings_its_network():
    assert _settings({"start": "packaged"}, None)[0].model == "cnn"


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        ({"epoch": 3}, None, "config 'epoch': unknown setting; did you mean epochs"),
        ({"from": "packaged"}, None, "config 'from': unknown setting; did you mean start"),
        ({"batch-size": 8}, None, "config 'batch-size': unknown setting; did you mean batch_size"),
        ({"device": "cuda"}, None, "config 'device': is an argument and no setting; write training.train"),
        ({"resume": True}, None, "config 'resume': is an argument and no setting"),
        ({"lr": 0.1}, None, "config 'lr': unknown setting; did you mean learning_rate"),
        ({"epochs": 2.5}, None, "config epochs = 2.5: must be a whole number"),
        ({"epochs": True}, None, "config epochs = True: must be a whole number"),
        ({"learning_rate": "high"}, None, "config learning_rate = 'high': must be a number"),
        ({"model": None}, None, "config model = None: must be a text"),
        ({"epochs": 0}, None, "--epochs 0: must be at least 1"),
        ({"recipe": "sped"}, None, "--recipe sped: unknown name; did you mean speed"),
        ({}, "./nowhere", "data ./nowhere: does not exist; name a folder, or mnist"),
        ({"dataset": "minst"}, None, "data minst: does not exist"),
        ({"model": "cnm"}, "mnist", "--model cnm: unknown name; did you mean cnn"),
        ("mlp", "mnist", "config: got str: must be settings by name, such as "),
        ({}, (np.zeros(3), np.zeros(3)), "data: got tuple: must be a path, .* arrays by name, such as "),
    ],
)
def test_wrong_setting_is_named_before_anything_is_done(config, data, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        training.train(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folder_without_a_run_is_no_run(tmp_path):
    for content in ("", "{}", "[]", '{"config": {}}'):
        (tmp_path / "run.json").write_text(content)
        (tmp_path / "metrics.jsonl").write_text("")
        with pytest.raises(TrainingError, match="holds no finished run"):
            training.TrainingRun.read(tmp_path)


def test_report_says_what_is_in_a_folder(folder, tmp_path):
    report = training.check(folder)
    assert (report.name, report.labels) == ("lines", ("level", "slash", "up"))
    # Some lines look the same at 28x28, and are counted once.
    assert sum(sum(found.values()) for found in report.counts.values()) <= 90
    assert repr(report).startswith("class")
    assert "<td>slash</td>" in report._repr_html_()
    assert report.findings[-1] == repr(report).splitlines()[-1]
    assert report.findings[-1].endswith("Add --recipe small-data --from packaged for a better model.")
    with pytest.raises(DataError, match=r"^mnist: is a known data set and needs no check"):
        training.check("mnist")
    report.sheet.save(tmp_path / "sheet.png")
    with pytest.raises(ValueError, match=r"sheet.pdf: gets a PNG; name it .*sheet.png$"):
        report.sheet.save(tmp_path / "sheet.pdf")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_report_says_what_is_in_arrays(arrays):
    report = training.check(arrays)
    assert (report.name, report.labels) == ("arrays", ("-", "/", "|"))
    assert sum(sum(found.values()) for found in report.counts.values()) <= 90
    assert report.sheet.png.startswith(b"\x89PNG")
    with pytest.raises(DataError, match=r"^data: has 1 class"):
        training.check(arrays | {"labels": ["a"] * 90})
    with pytest.raises(ConfigError, match=r"^data: got ndarray: must be a path"):
        training.check(arrays["images"])


def test_report_escapes_the_names_of_classes(tmp_path):
    for name in ("<b>", "&"):
        (tmp_path / name).mkdir()
        for variant in range(3):
            (tmp_path / name / f"{variant}.png").write_bytes(picture(bar(0 if name == "&" else 60, variant)))
    shown = training.check(tmp_path)._repr_html_()
    assert "<td>&lt;b&gt;</td>" in shown
    assert "<b>" not in shown


def test_way_to_prepare_pictures_is_checked(folder):
    with pytest.raises(ConfigError, match="--prepare photo: unknown name"):
        training.check(folder, "photo")


@pytest.mark.parametrize("call", ["training.train({}, 'mnist')", "export.publish('runs/cnn', 'models')"])
def test_missing_package_is_named_with_the_way_out(call, tmp_path):
    program = f"import sys; sys.modules['torch'] = None; import export, training; {call}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # fmt: skip
    function = call.partition("(")[0]
    assert done.stderr.splitlines()[-1].startswith(
        f"ModuleNotFoundError: {function} needs torch, which is not installed"
    )
    assert list(tmp_path.iterdir()) == []
