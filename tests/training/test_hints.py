"""What mnist-train says to somebody who uses it for the first time, and names the wrong thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.training.conftest import prepare
from tests.training.support import draw_bars
from training.cli import main
from training.config import flag
from training.data.own.load import load_own
from training.hints import FLAGS, SETTINGS
from training.loop.errors import TrainingError

QUICK = ["--model", "mlp", "--epochs", "1"]
# No file has a name of more than 255 bytes.
NO_FILE = "x" * 300


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with pictures of two classes in ``lines``."""
    home = tmp_path_factory.mktemp("home")
    draw_bars(home / "lines", {"up": 0, "level": 90})
    return home


@pytest.fixture
def command(home, monkeypatch):
    """A function that runs ``mnist-train`` in this process and in ``home``, and returns its outcome."""
    prepare(monkeypatch)
    monkeypatch.chdir(home)
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def refused(command):
    """A function that runs ``mnist-train``, which must fail, and returns its error of one line."""

    def refused(*arguments):
        done = command(*arguments)
        assert done.exit_code in (1, 2), done.output
        [*_, error] = done.output.splitlines()
        return error.removeprefix("Error: ")

    return refused


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lines", "did you mean --dataset ./lines?"),
        ("kmnist", "did you mean --dataset kmnist?"),
        ("cnn", "did you mean --model cnn?"),
        ("chekc", "choose from check, compare, review, or see mnist-train --help"),
        (NO_FILE, "choose from check, compare, review, or see mnist-train --help"),
    ],
)
def test_word_without_a_flag_is_answered_with_the_flag(refused, word, meant):
    assert refused(word) == f"there is no command '{word}'; {meant}"


@pytest.mark.parametrize("name", [*SETTINGS, *FLAGS])
def test_name_that_other_programs_use_is_answered_with_the_flag(refused, name):
    if name not in ("from", "data_folder"):  # Flags of these names exist.
        meant = FLAGS.get(name) or flag(SETTINGS[name])
        assert meant.split()[0] in [option for each in main.params for option in each.opts]
        assert refused(f"--{name.replace('_', '-')}", "1").endswith(f"Did you mean '{meant}'?")


def test_pictures_of_ones_own_are_no_source_of_mnist(refused, home):
    assert refused(*QUICK, "--data", "./lines") == (
        "--data lines: holds pictures of your own, not mnist; did you mean --dataset ./lines?"
    )


@pytest.mark.parametrize("output", ["lines", "lines/runs/new"])
def test_run_folder_lies_outside_of_the_data_set(refused, home, output):
    before = sorted(home.rglob("*"))
    for data in (["--dataset", "./lines"], ["--dataset", "./others", "--replay", "lines"]):
        assert refused(*QUICK, *data, "--output", output) == (
            f"--output {output}: lies in the data set {home / 'lines'}; name a folder outside of it"
        )
    assert sorted(home.rglob("*")) == before


def test_known_data_set_needs_no_check(refused):
    assert refused("check", "usps") == (
        "usps: is a known data set and needs no check; train with it: mnist-train --dataset usps"
    )


def test_check_prints_the_whole_next_command(command, home):
    done = command("check", "lines")
    flags = "--recipe small-data --from packaged --output runs/lines"
    assert done.stdout.endswith(f"Next           mnist-train --dataset ./lines {flags}\n"), done.output
    assert (home / "lines-classes.png").exists()
    flags = "--prepare as-is --recipe small-data --output runs/lines"
    assert f"--dataset ./lines {flags}\n" in command("check", "./lines", "--prepare", "as-is").stdout
    assert "--dataset ./lines --validation 0 --recipe" in command("check", "./lines", "--no-validation").stdout
    for name in ("lines", "lines-2"):
        (home / "runs" / name).mkdir(parents=True)
    assert command("check", "lines").stdout.endswith("--output runs/lines-3\n")


@pytest.mark.parametrize(
    ("flags", "is_told"),
    [([], True), (["--model", "mlp"], False), (["--replay", "usps"], False), (["--recipe", "small-data"], False)],
)
def test_few_pictures_are_answered_with_the_recipe(command, monkeypatch, flags, is_told):
    def stop(*_, **__):
        raise TrainingError("stopped")

    monkeypatch.setattr("training.actions.train", stop)
    monkeypatch.setattr("training.data.load.load_from_torchvision", lambda *_, **__: load_own(Path("lines"), "symbol"))
    done = command("--dataset", "./lines", *flags, "--output", "few")
    assert done.stderr.splitlines()[-1] == "Error: stopped"
    assert ("training pictures. Add --recipe small-data --from packaged for a better model." in done.stderr) == is_told
    # Who has chosen how to train gets no such advice, and others get it once.
    assert done.stderr.count("--recipe small-data") == is_told


def test_missing_start_model_names_those_that_exist(refused, tmp_path):
    for version in ("letters/1", "letters/2", "marks/1"):
        (tmp_path / "models" / version).mkdir(parents=True)
        (tmp_path / "models" / version / "manifest.json").touch()
    for place, near in (("mnist/1", "letters/1 letters/2 marks/1"), ("letters", "letters/1 letters/2")):
        paths = ", ".join(str(tmp_path / "models" / each) for each in near.split())
        error = refused("--dataset", "./lines", "--from", tmp_path / "models" / place)
        assert error.endswith(f"{place}: there is no trained model; choose from {paths}, packaged")
    assert "there is no trained model; name a finished run folder" in refused("--from", tmp_path / "a/b/c")
    assert "there is no trained model; did you mean packaged? " in refused("--from", "packged")


@pytest.mark.parametrize(
    ("flags", "way_out"),
    [
        (["--from", NO_FILE], "there is no trained model; name a finished run folder"),
        (["--teacher", NO_FILE], "has no model.pt; name a finished run folder"),
        (["--dataset", NO_FILE], "unknown name; choose from"),
        (["--dataset", f"./{NO_FILE}", "--output", "."], "does not exist; a data set is a folder"),
        (["--dataset", "./lines", "--replay", NO_FILE], "unknown name; choose from"),
    ],
)
def test_name_that_no_file_can_have_is_answered_as_any_other(refused, flags, way_out):
    """The system does not even say that there is no such file, as in a folder that the user may not look into."""
    assert way_out in refused(*flags)


def test_run_that_forgets_classes_says_so(command, home, tmp_path):
    assert command(*QUICK, "--dataset", "./lines", "--output", "old").exit_code == 0
    shutil.copytree(home / "lines" / "up", tmp_path / "up")
    shutil.copytree(home / "lines" / "level", tmp_path / "flat")
    done = command("--epochs", "1", "--dataset", tmp_path, "--from", "old", "--output", "new")
    assert done.exit_code == 0, done.output
    assert f"forgets 1 class of {home / 'old'}: level; --replay with its pictures keeps them\n" in done.stdout


def test_resume_without_a_run_says_that_a_new_one_begins(command):
    arguments = *QUICK, "--dataset", "./lines", "--output", "begun", "--resume"
    says = "begun: holds no run to resume; starting a new one\n"
    for is_new in (True, False):
        done = command(*arguments)
        assert done.exit_code == 0, done.output
        assert (says in done.stderr) == is_new


@pytest.mark.parametrize("data", ["./runs/first", "runs/first/data.npz"])
def test_run_folder_is_no_data_set(refused, home, data):
    (home / "runs" / "first").mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "data.npz"):
        (home / "runs" / "first" / name).touch()
    for arguments in ((*QUICK, "--output", "another", "--dataset", data), ("check", data)):
        error = refused(*arguments)
        assert "is no data set but belongs to a run; name the folder of the pictures, or continue the run with" in error
        assert error.endswith("runs/first --resume")
