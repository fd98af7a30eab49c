"""Resume: an interrupted run that is resumed ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.support import BIN, font_file
from tests.training.support import FAST, Stop, equal, rows, timeless, weights
from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import TrainConfig
from training.data.errors import DataError
from training.data.own import saved
from training.data.own.files import DATA_FILE, REPLAY_FILE, SHEET
from training.evaluate import evaluate
from training.loop.errors import TrainingError
from training.loop.folder import (
    BUNDLE_FILES,
    OWN_FILES,
    RUN_FILES,
    check_apart,
    check_free,
    check_writable,
)
from training.loop.optimizers import rate_at
from training.loop.resume import begin_or_resume, resumed_config
from training.loop.train import train
from training.reports import no_stage

# Eight steps per epoch.
FLAGS = ["--model", "cnn", "--epochs", "3", "--subset", "1024", "--validation", "256", "--checkpoint-every", "3"]


def saved_steps(path, process):
    """Yield the step of each checkpoint that a process saves, until the process ends."""
    saved = None
    while process.poll() is None:
        # To load a checkpoint takes as long as some steps of the run, so only new ones are loaded.
        if path.exists() and (now := path.stat().st_mtime_ns) != saved:
            saved = now
            yield checkpoint.load(path)["step"]
        time.sleep(0.005)


def test_killed_and_resumed_run_ends_with_the_same_weights(tmp_path, command):
    uninterrupted, output = tmp_path / "uninterrupted", tmp_path / "run"
    whole = command(*FLAGS, "--output", uninterrupted)
    assert whole.exit_code == 0, whole.output
    line = [BIN / "mnist-train", *FLAGS, "--output", output, "--resume"]
    # Steps 3 and 21 are within an epoch, step 8 between two.
    for step in (3, 8, 21):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        assert any(saved >= step for saved in saved_steps(output / "last.pt", process))
        # The kill comes at a random moment after the step: during a step, during a save, or at the very end.
        time.sleep(random.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)

    assert equal(weights(uninterrupted), weights(output))
    results = [json.loads((folder / "run.json").read_text())["result"] for folder in (uninterrupted, output)]
    assert results[0] == results[1]
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 3


def test_resume_without_a_checkpoint_starts_a_run_and_of_a_finished_run_evaluates_it(tmp_path, command):
    flags = ["--model", "mlp", "--epochs", "1", "--subset", "256", "--output", tmp_path / "run", "--resume"]
    assert command(*flags).exit_code == 0
    again = command("--output", tmp_path / "run", "--resume")
    assert again.exit_code == 0, again.output
    assert "Test set: Avg. loss:" in again.stdout


@pytest.mark.parametrize(
    ("every", "stop", "saved", "cached_epochs"),
    [
        (0, 3, None, 0),
        (0, 6, 4, 1),
        (3, 3, None, 1),
        (3, 5, 4, 0),
        (3, 5, 4, 1),
        (3, 7, 6, 0),
        (1, 4, 3, 0),
        (1, 8, 7, 1),
    ],
)
@pytest.mark.usefixtures("no_plots")
def test_resumed_run_ends_with_the_same_weights(small, tmp_path, teacher, every, stop, saved, cached_epochs):
    """There are four steps per epoch. The interruption comes after a step and before it is saved."""
    settings = {"elastic": 0.5, "precision": "bfloat16", "style": 0.25}
    config = TrainConfig(**FAST | settings, teacher=str(teacher), teacher_cache=cached_epochs)
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
def test_run_interrupted_between_the_last_step_of_an_epoch_and_its_row_resumes(
    small, tmp_path, monkeypatch, evaluations
):
    config = TrainConfig(**FAST)
    train(config, small, tmp_path / "whole")
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == evaluations:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("training.loop.train.evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, small, tmp_path / "run", checkpoint_every=1)
    train(config, small, tmp_path / "run", resume=True, checkpoint_every=1)
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert timeless(rows(tmp_path / "run")) == timeless(rows(tmp_path / "whole"))


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    train(TrainConfig(**FAST), small, folder)
    return folder


def test_folder_of_another_run_is_rejected_and_left_as_it_is(finished, small):
    before = {path: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(TrainingError, match="already holds a run; add --resume"):
        train(TrainConfig(**FAST), small, finished)
    with pytest.raises(
        TrainingError, match=r"another run, which has --learning-rate 0\.01, not 0\.02, --seed 0, not 7"
    ):
        train(TrainConfig(**FAST, seed=7, learning_rate=0.02), small, finished, resume=True)
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("output", ["models/mnist", "models/mnist/2", "models/mnist/10"])
def test_folder_of_a_model_in_a_repository_is_not_free(tmp_path, output):
    """A run there would stand between the versions, or take the number of the next one."""
    (tmp_path / "models" / "mnist" / "1").mkdir(parents=True)
    (tmp_path / "models" / "mnist" / "1" / "manifest.json").touch()
    with pytest.raises(TrainingError, match=r"holds published versions \(1\); name another --output"):
        check_free(tmp_path / output, resume=True)
    check_free(tmp_path / "models" / "mnist" / "try", resume=True)
    check_free(tmp_path / "runs" / "2", resume=True)


def test_model_repository_is_no_run_folder(tmp_path):
    (tmp_path / "models" / "mnist" / "1").mkdir(parents=True)
    (tmp_path / "models" / "mnist" / "1" / "manifest.json").touch()
    with pytest.raises(TrainingError, match="models: is a model repository, with mnist/1; name another --output"):
        check_free(tmp_path / "models", resume=False)
    check_free(tmp_path, resume=False)


@pytest.mark.parametrize("name", [*RUN_FILES, *BUNDLE_FILES])
@pytest.mark.parametrize("resume", [False, True])
def test_any_file_of_a_run_or_of_a_published_model_protects_its_folder(tmp_path, name, resume):
    (tmp_path / name).write_text("precious")
    if resume and name == "last.pt":
        return
    with pytest.raises(TrainingError, match=r"already holds a run|holds a published model"):
        check_free(tmp_path, resume=resume)


def test_files_of_a_run_are_those_that_protect_its_folder(finished):
    assert {path.name for path in finished.iterdir()} == set(RUN_FILES)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", OWN_FILES)
def test_file_of_the_user_that_a_run_would_replace_protects_its_folder(small, tmp_path, name, resume):
    if name.endswith(".npz"):
        np.savez(tmp_path / name, images=np.zeros((2, 8, 8), np.uint8), labels=np.array(["a", "b"]))
    else:
        (tmp_path / name).write_text("precious")
    before = (tmp_path / name).read_bytes()
    with pytest.raises(TrainingError, match=f"would replace {name}, which no run has written; name another --output"):
        train(TrainConfig(**FAST), replace(small, files={name: b"images"}), tmp_path, resume=resume)
    assert (tmp_path / name).read_bytes() == before


def test_run_that_was_killed_before_its_first_checkpoint_begins_again(small, tmp_path):
    content = saved.to_bytes(small)
    for name, written in ((DATA_FILE, content), (SHEET, b"png"), (REPLAY_FILE, content)):
        (tmp_path / name).write_bytes(written)
        check_free(tmp_path, resume=False)


def test_run_never_goes_on_with_the_pictures_of_a_killed_one(small, tmp_path, no_plots, monkeypatch):
    """The folder has pictures of an earlier run, which was killed before its first checkpoint."""
    for name in (DATA_FILE, REPLAY_FILE, SHEET):
        (tmp_path / name).write_bytes(saved.to_bytes(small))
    train(TrainConfig(**FAST), small, tmp_path)
    assert not any((tmp_path / name).exists() for name in OWN_FILES)
    (tmp_path / DATA_FILE).write_bytes(saved.to_bytes(small))
    monkeypatch.setattr("training.loop.resume.load_data", lambda *_, **__: small)
    assert begun_again(tmp_path) is small


def begun_again(output):
    _, splits = begin_or_resume(TrainConfig(), {}, output, None, only_folder=False, stage=no_stage, tell=lambda _: None)
    return splits


def test_resumed_run_needs_its_pictures(small, tmp_path, no_plots):
    """The folder that they came from may have changed: then the run would test with what it has learnt."""
    train(TrainConfig(**FAST | {"dataset": str(tmp_path / "letters")}), small, tmp_path / "run")
    with pytest.raises(DataError, match=r"data\.npz: is missing; put it back, or train again with another --output"):
        begun_again(tmp_path / "run")


def test_output_may_not_hold_the_file_of_the_data_set(tmp_path):
    (tmp_path / "letters.npz").touch()
    with pytest.raises(TrainingError, match=r"holds the data set .*letters\.npz; name another --output"):
        check_apart(tmp_path, "mnist", str(tmp_path / "letters.npz"))
    check_apart(tmp_path / "run", str(tmp_path / "letters.npz"))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("x" * 256, "File name too long"),
        ("/".join(["x" * 200] * 21), "File name too long"),
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("a\0b", "null byte"),
    ],
)
def test_folder_that_cannot_be_written_is_found_at_once(tmp_path, output, reason):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=f"(?s)--output .*: cannot be written: .*{reason}"):
        check_writable(tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_link_that_leads_nowhere_is_no_folder_for_a_run(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="cannot be written: No such file"):
        check_writable(tmp_path / "link")


def test_folder_that_can_be_written_is_left_as_it_is(tmp_path):
    check_writable(tmp_path / "new" / "run")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_plots")
def test_half_written_files_of_a_killed_run_are_removed(finished, small, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    half = (".last.pt.0123abcd", ".run.json.89efcdab", ".data.npz.0123abcd", ".replay.npz.89efcdab")
    foreign = (".last.pt.backup", ".notes.0123abcd", "my.last.pt")
    for name in (*half, *foreign):
        (copy / name).write_text("half")
    train(TrainConfig(**FAST), small, copy, resume=True)
    assert {path.name for path in copy.iterdir()} == {*RUN_FILES, *foreign}


def test_resume_takes_the_settings_of_the_run(finished):
    last = finished / "last.pt"
    assert resumed_config(last, {}) == TrainConfig(**FAST)
    assert resumed_config(last, FAST) == TrainConfig(**FAST)
    assert resumed_config(last, {"epochs": 9}) == TrainConfig(**FAST | {"epochs": 9})
    with pytest.raises(TrainingError, match=r"which has --seed 0, not 4; leave these flags out to resume it"):
        resumed_config(last, {"seed": 4, "model": "mlp"})
    with pytest.raises(TrainingError, match=r"which has --epochs 2, not 1; --epochs can only grow"):
        resumed_config(last, {"epochs": 1})
    with pytest.raises(TrainingError, match=r"--model mlp, not cnn-fast"):
        resumed_config(last, TrainConfig.chosen(recipe="speed"))


@pytest.mark.usefixtures("no_plots")
def test_run_that_gets_more_epochs_goes_on_with_the_schedule_of_the_longer_run(finished, small, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    config = resumed_config(copy / "last.pt", {"epochs": 4})
    with pytest.raises(KeyboardInterrupt):
        train(config, small, copy, resume=True, checkpoint_every=1, progress=Stop(11))
    train(resumed_config(copy / "last.pt", {}), small, copy, resume=True)
    record = json.loads((copy / "run.json").read_text())
    assert record["config"]["epochs"] == 4
    assert record["extended"] == [{"epochs": 2, "step": 8}]
    assert [row["rate"] for row in rows(copy)[2:]] == [rate_at(config, step / 16) for step in (11, 15)]
    assert rows(copy)[:2] == rows(finished)
    assert checkpoint.load(copy / "last.pt")["step"] == 16


def test_weights_alone_cannot_be_resumed(finished, small, tmp_path):
    (tmp_path / "last.pt").write_bytes((finished / "model.pt").read_bytes())
    with pytest.raises(CheckpointError, match="holds weights only"):
        train(TrainConfig(**FAST), small, tmp_path, resume=True)


@pytest.mark.usefixtures("no_plots")
def test_resume_with_other_fonts_is_rejected(small, tmp_path, monkeypatch):
    monkeypatch.setattr("training.loop.extras.FONT_DIGITS", 64)
    fonts = tmp_path / "fonts"
    fonts.mkdir()
    shutil.copy(font_file("DejaVuSans"), fonts)
    config = TrainConfig(**FAST, fonts=str(fonts))
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", checkpoint_every=1, progress=Stop(3))
    (fonts / "DejaVuSans.ttf").unlink()
    shutil.copy(font_file("cmr10"), fonts)
    with pytest.raises(TrainingError, match=r"--fonts .*: the run in .*run had other fonts"):
        train(config, small, tmp_path / "run", resume=True)
