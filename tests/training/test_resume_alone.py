"""``mnist-train --output X --resume`` and nothing else, for every kind of run, and from any folder."""

from __future__ import annotations

import json

import pytest

from tests.support import font_file
from tests.training.conftest import invoke, prepare
from tests.training.support import draw_bars, rows
from training.config import TrainConfig
from training.origin import with_absolute_places

QUICK = ["--model", "mlp", "--epochs", "1", "--dataset", "lines"]
# What each kind of run adds. All places are relative to the folder in which the run begins.
KINDS = {
    "recipe": ["--recipe", "small-data"],
    "start": ["--from", "runs/first"],
    "teachers": ["--teacher", "runs/first,./runs/first", "--teacher-cache", "1"],
    "replay": ["--from", "runs/first", "--replay", "lines"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with pictures in ``lines``, and a finished run in ``runs/first``."""
    home = tmp_path_factory.mktemp("home")
    draw_bars(home / "lines", {"up": 0, "level": 90})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        prepare(patch)
        done = invoke(*QUICK, "--output", "runs/first")
        assert done.exit_code == 0, done.output
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_run_goes_on_with_its_own_settings_from_any_folder(home, tmp_path, monkeypatch, command, kind):
    monkeypatch.chdir(home)
    begun = command(*QUICK, *KINDS[kind], "--output", tmp_path / "run")
    assert begun.exit_code == 0, begun.output
    before = json.loads((tmp_path / "run" / "run.json").read_text())["config"]

    monkeypatch.chdir(tmp_path)
    for more in (["--epochs", "2"], ["--epochs", "3"], []):
        done = command("--output", "run", "--resume", *more)
        assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"] == before | {"epochs": 3}
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [1, 2, 3]
    assert [each["epochs"] for each in record["extended"]] == [1, 2]

    for flags, found in ((["--seed", "4"], "--seed 0, not 4"), (["--epochs", "2"], "--epochs 3, not 2")):
        refused = command("--output", "run", "--resume", *flags)
        assert refused.exit_code == 1
        assert found in refused.output


def test_run_on_few_images_chooses_its_epochs_and_keeps_them(home, tmp_path, monkeypatch, command):
    monkeypatch.setattr("training.loop.replay.LEAST_REPLAYED", 30)
    monkeypatch.chdir(home)
    flags = ["--dataset", "lines", "--from", "runs/first", "--replay", "lines", "--output", tmp_path / "run"]
    for more in ([], ["--resume"]):
        done = command(*flags, *more)
        assert done.exit_code == 0, done.output
        config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
        assert config["epochs"] == len(rows(tmp_path / "run")) > 1
    assert "new pictures: " in done.output


def test_teacher_and_start_may_have_moved(home, tmp_path, monkeypatch, command):
    monkeypatch.chdir(home)
    for kind, flag in (("teacher", "--teacher"), ("start", "--from")):
        begun = command(*QUICK, flag, "runs/first/", "--output", tmp_path / kind)
        assert begun.exit_code == 0, begun.output
    (home / "runs").rename(home / "moved")
    try:
        lost = command("--output", tmp_path / "teacher", "--resume")
        assert f"--teacher {home / 'runs' / 'first'}: has no model.pt" in lost.output
        found = command("--output", tmp_path / "teacher", "--resume", "--teacher", "moved/first")
        assert found.exit_code == 0, found.output
        # The weights that a run began with are needed at its beginning only.
        assert command("--output", tmp_path / "start", "--resume").exit_code == 0
    finally:
        (home / "moved").rename(home / "runs")


def test_places_of_settings_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    settings = {"teacher": "a/,~/b,packaged,/c", "fonts": "~/fonts", "start": "runs/x", "seed": 4}
    assert with_absolute_places(settings) == {
        "teacher": f"{tmp_path}/a,/home/me/b,packaged,/c",
        "fonts": "/home/me/fonts",
        "start": f"{tmp_path}/runs/x",
        "seed": 4,
    }
    assert with_absolute_places({"start": "packaged"}) == {"start": "packaged"}
    nothing = TrainConfig().asdict()
    assert with_absolute_places(nothing) == nothing


def test_fonts_are_found_from_any_folder(tmp_path, monkeypatch, command):
    monkeypatch.setattr("training.loop.extras.FONT_DIGITS", 64)
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "hand.ttf").write_bytes(font_file("DejaVuSans").read_bytes())
    monkeypatch.chdir(tmp_path)
    quick = ["--model", "mlp", "--epochs", "1", "--subset", "128", "--validation", "64"]
    begun = command(*quick, "--fonts", "fonts", "--output", "run")
    assert begun.exit_code == 0, begun.output
    monkeypatch.chdir(tmp_path / "run")
    done = command("--output", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.output
