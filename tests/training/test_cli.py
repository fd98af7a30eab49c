"""mnist-train: its output, and how it handles mistakes, Ctrl-C and a full disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
from click.testing import Result

from tests.support import BIN, font_file
from tests.training.conftest import invoke, prepare
from training import checkpoint
from training.config import TrainConfig, flag

COMMAND = BIN / "mnist-train"
QUICK = ["--model", "mlp", "--epochs", "2", "--subset", "256", "--validation", "64"]

# A value for every setting. Each value differs from the default, except for dataset and schedule.
SETTINGS = {
    "model": "mlp",
    "dataset": "mnist",
    "prepare": "as-is",
    "start": "",  # The fixture ``finished`` makes it.
    "replay": "",  # It needs pictures of your own.
    "epochs": 2,
    "optimizer": "momentum",
    "batch_size": 32,
    "learning_rate": 0.02,
    "schedule": "one-cycle",
    "weight_decay": 0.125,
    "label_smoothing": 0.25,
    "augment": 0.75,
    "rotate": 5.0,
    "mirror": "vertical",
    "elastic": 0.5,
    "contrast": 1.25,
    "style": 0.25,
    "teacher": "",  # The fixture ``finished`` makes it.
    "teacher_weight": 0.5,
    "distillation_temperature": 3.0,
    "teacher_cache": 1,
    "fonts": "",  # The fixture ``finished`` makes it.
    "scripts": 0.25,
    "outliers": 0.25,
    "keep": 0.5,
    "ema": 0.5,
    "precision": "bfloat16",
    "validation": 300,
    "balance": 0.25,
    "subset": 256,
    "seed": 3,
}


def flags(settings):
    """Yield the settings as arguments of the command."""
    for name, value in settings.items():
        yield from [flag(name), str(value)]


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The folder of a finished run, and its process. Every flag was used, and warnings were errors."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        assert invoke(*QUICK, "--output", folder / "teacher").exit_code == 0
    SETTINGS["start"] = str(folder / "teacher")
    SETTINGS["teacher"], SETTINGS["fonts"] = str(folder / "teacher"), str(folder / "fonts")
    (folder / "fonts").mkdir()
    shutil.copy(font_file("DejaVuSans"), folder / "fonts")
    environment = os.environ | {"PYTHONWARNINGS": "error", "MNIST_DATA": str(folder / "empty")}
    done = run("mnist-train", *flags(SETTINGS), "--deterministic", "--output", folder / "my run", env=environment)
    assert done.returncode == 0, done.stderr
    return folder / "my run", done


def test_result_is_printed_as_in_the_tutorial(finished):
    folder, done = finished
    result = json.loads((folder / "run.json").read_text())["result"]["test"]
    [line] = re.findall(r"^Test set: Avg\. loss: \d\.\d{4}, Accuracy: \d+/10000 \(\d+\.\d\d%\)$", done.stdout, re.M)
    assert f"loss: {result['loss']:.4f}, Accuracy: {result['correct']}/10000 ({result['accuracy']:.2%})" in line


def test_losses_are_explained_below_the_result(finished):
    """The export shows another loss, and the training loss is often higher than the validation loss."""
    folder, done = finished
    calibration = json.loads((folder / "run.json").read_text())["calibration"]
    below = done.stdout.split("Test set:")[1]
    assert f"The loss is then {calibration['result']['test']['loss']:.4f}." in below
    assert f"divides the logits by {calibration['temperature']:.3f}" in below
    assert "The training loss is a mean over the epoch" in below


def test_run_folder_and_next_command_are_printed(finished):
    folder, done = finished
    assert f"Run folder  {folder}\n" in done.stdout
    command = done.stdout.rsplit("Next", 1)[1]
    assert shlex.split(command) == ["mnist-export", str(folder), "--repository", "models"]


def test_lines_are_plain_without_a_terminal(finished):
    _, done = finished
    for text in (done.stdout, done.stderr):
        assert "\r" not in text
        assert "\x1b" not in text
    header, first, second, *_ = done.stdout.splitlines()
    assert re.match(r"mlp: 22,270 parameters, 256 training images, 300 for validation, cpu with 1 thread$", header)
    for epoch, line in ((1, first), (2, second)):
        assert re.match(rf"epoch {epoch}/2  training loss \S+  validation loss \S+ accuracy \S+%  \S+ s$", line)


def test_every_flag_reaches_the_run(finished):
    folder, _ = finished
    assert SETTINGS.keys() == {field.name for field in fields(TrainConfig)}
    assert json.loads((folder / "run.json").read_text())["config"] == SETTINGS


def test_record_says_where_the_run_was_trained_and_whether_it_can_be_repeated(finished):
    folder, _ = finished
    record = json.loads((folder / "run.json").read_text())
    assert (record["device"], record["deterministic"]) == ("cpu", True)


def test_recipe_sets_the_settings_that_are_not_given(command, tmp_path):
    more = ["--epochs", "2", "--subset", "256", "--recipe", "speed"]
    done = command(*more, "--output", tmp_path)
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert config.pop("precision") in ("float32", "bfloat16")
    assert config.items() <= TrainConfig.of(recipe="speed", epochs=2, subset=256).asdict().items()
    assert re.match(r"precision: \w+, because a step takes \d+ ms in \w+ and \d+ ms in \w+ on this CPU\n", done.stdout)
    assert (config["model"], config["augment"], config["epochs"]) == ("cnn-fast", 0, 2)


def test_missing_teacher_is_an_error(command, tmp_path):
    error = error_of(command(*QUICK, "--teacher", tmp_path / "nobody", "--output", tmp_path / "run"))
    assert f"--teacher {tmp_path / 'nobody'}: has no model.pt" in error
    assert not (tmp_path / "run").exists()


def test_source_of_the_data_is_printed(finished):
    folder, done = finished
    assert f"mnist: cannot load from the folder {folder.parent / 'empty'}: has no train-images" in done.stderr
    assert re.search("mnist: loaded from .*, digests verified", done.stderr)


def test_live_line_is_drawn_on_a_terminal(tmp_path):
    controller, terminal = pty.openpty()
    with subprocess.Popen([COMMAND, *QUICK, "--output", tmp_path / "run"], stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        # On Linux, reading from a terminal whose other side is closed is an error.
        with contextlib.suppress(OSError):
            while part := os.read(controller, 4096):
                shown += part
    os.close(controller)
    assert process.returncode == 0, shown
    text = shown.decode()
    assert re.search(r"\r\x1b\[2Kepoch 1/2  [━─]{24} .*%  loss \S+  rate \S+", text)
    assert re.search(r"\r\x1b\[2Kepoch 2/2  training loss", text)
    assert "Test set: Avg. loss:" in text


def test_help_names_every_setting_and_ends_with_an_example(run):
    done = run("mnist-train", "--help")
    assert done.returncode == 0
    words = done.stdout.split()
    for field in fields(TrainConfig):
        assert any(word.startswith(flag(field.name)) for word in words), field.name
        if field.default != "":
            assert f"[default: {field.default}]" in " ".join(words)
    assert "MNIST_DATA" in done.stdout
    assert done.stdout.split("Examples:")[1].splitlines()[-1].strip().startswith("mnist-train ")


def test_missing_torch_is_an_error_of_one_line(tmp_path):
    program = "import sys; sys.modules['torch'] = None; from training.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: mnist-train needs torch, which is not installed; run `make setup`")
    assert "pip" not in line, "the name of this project on the public index may belong to a stranger"


@pytest.mark.parametrize(
    ("command", "arguments", "error"),
    [
        ("training.cli", ["--dataset", "./nothing"], "nothing: does not exist; a data set is a folder"),
        ("training.cli", ["--dataset", "./loop"], "loop: cannot be read: Too many levels of symbolic links"),
        ("training.cli", ["--dataset", "./" + "x" * 300], "xxx: does not exist; a data set is a folder"),
        ("training.cli", ["--output", "run"], "--output run: already holds a run; add --resume"),
        ("training.cli", ["check", "nothing"], "nothing: does not exist; a data set is a folder"),
        ("training.cli", ["review", "nothing"], "nothing: there is no such folder; name the folder of mnist-serve"),
        ("export.cli", ["nothing"], "nothing: there is no such folder; name the run folder"),
        ("export.cli", ["run"], "run: not a finished run, run.json is missing; finish it with"),
        ("export.cli", ["finished", "--first", "run"], "run: not a finished run, run.json is missing; finish it with"),
        ("export.cli", ["finished", "--sign", "key"], "--sign key: "),
        ("export.cli", ["finished", "--track", "mlflow"], "finished: MLflow has no run of it; train it with --track"),
        ("export.cli", ["--verify", "nothing"], "--verify nothing: there is no such folder; name a published version"),
        ("training.cli", ["review", "x" * 300], "xxx: cannot be read: File name too long"),
        ("export.cli", ["--verify", "x" * 300], "xxx: File name too long"),
    ],
)
def test_mistake_in_the_places_is_told_before_torch_is_loaded(tmp_path, command, arguments, error):
    for file in ("run/last.pt", "finished/run.json"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    (tmp_path / "loop").symlink_to("loop")
    program = f"import sys; sys.modules['torch'] = None\nfrom {command} import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert error in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["training.cli", "export.cli"])
def test_slow_loading_of_torch_is_told_without_a_terminal(tmp_path, command):
    program = "import sys, training.loop.progress as progress; progress.SECONDS_BEFORE_LATE_LINE = 0.01\n"
    program += f"from {command} import main; main()"
    arguments = ["--model", "unknown"] if command == "training.cli" else ["--verify", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.stderr.startswith("loading torch\n")
    assert (done.stdout, done.stderr.count("Error: ")) == ("", 1)


MISTAKES = {
    "model": (["--model", "cnnn"], "--model cnnn: unknown name; did you mean cnn? choose from cnn, cnn-small,"),
    "model in capitals": (["--model", "MLP"], "did you mean mlp?"),
    "optimizer": (["--optimizer", "adamm"], "--optimizer adamm: unknown name; did you mean adam? choose from"),
    "data set": (["--dataset", "fashion"], "did you mean fashion-mnist?"),
    "name like no other": (["--optimizer", "xyz"], "--optimizer xyz: unknown name; choose from adamw, gd"),
    "schedule": (["--schedule", "onecycle"], "did you mean one-cycle?"),
    "learning rate 0": (["--learning-rate", "0"], "--learning-rate 0.0: must be greater than 0 and finite"),
    "negative learning rate": (["--learning-rate", "-1"], "--learning-rate -1.0: must be greater than 0 and finite"),
    "learning rate nan": (["--learning-rate", "nan"], "--learning-rate nan: must be greater than 0 and finite"),
    "word for a number": (["--epochs", "many"], "'many' is not a valid integer"),
    "no epoch": (["--epochs", "0"], "--epochs 0: must be at least 1"),
    "recipe": (["--recipe", "bets"], "--recipe bets: unknown name; did you mean best? choose from plain, speed"),
    "precision": (["--precision", "float16"], "--precision float16: unknown name; did you mean"),
    "share above 1": (["--style", "1.5"], "--style 1.5: must be from 0 to 1"),
    "fonts for clothes": (["--dataset", "fashion-mnist", "--fonts", "x"], "--fonts x: needs --dataset mnist"),
    "distillation temperature 0": (
        ["--distillation-temperature", "0"],
        "--distillation-temperature 0.0: must be greater than 0 and finite",
    ),
    "device": (["--device", "toaster"], "--device toaster: no device has this name; choose cpu, cuda,"),
    "device that gives no numbers back": (["--device", "meta"], "choose cpu, cuda, cuda:1 or mps"),
    "flag of other programs": (["--lr", "3"], "Did you mean '--learning-rate'?"),
    "flag": (["--labelsmoothing", "3"], "Did you mean '--label-smoothing'?"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_an_error_of_one_line(command, tmp_path, case):
    arguments, expected = MISTAKES[case]
    rejected = command(*QUICK, "--output", tmp_path / "run", *arguments)
    assert rejected.exit_code == 2
    usage, hint, _, *error = rejected.stderr.splitlines()
    assert usage.startswith("Usage: ")
    assert hint.startswith("Try ")
    assert len(error) == 1
    assert error[0].startswith("Error: ")
    assert expected in error[0]
    assert rejected.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        *(["compare"], ["compare", ".", "--plot"], ["check"], ["check", ".", "--sheet"], ["review"]),
        *(["--output"], ["--data"], ["--dataset"], ["--from"], ["--teacher"], ["--dataset", "x/", "--replay"]),
    ],
)
def test_home_folder_of_nobody_and_a_variable_that_is_not_set_are_errors(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments, "~nobody-here/x")
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    if arguments[-1] in ("compare", "check", "review", "--plot", "--sheet"):
        empty = command(*arguments, "")
        assert (empty.exit_code, "must not be empty" in empty.stderr) == (2, True)


def test_only_the_first_of_several_processes_starts_one_that_draws(command, tmp_path, monkeypatch):
    monkeypatch.setattr("training.plot_process.PlotProcess", pytest.fail)
    # As torchrun tells it to its second process.
    for name in ("RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    assert command("--device", "toaster", "--output", tmp_path / "run").exit_code == 2


def error_of(done):
    """Return the last line of a run, here or as a process, that ended with an error and without a traceback."""
    assert (done.exit_code if isinstance(done, Result) else done.returncode) == 1, done.stderr
    assert "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    return error


@pytest.mark.parametrize(
    ("name", "problem"), [(".", "has no font with Latin letters and digits"), ("nowhere", "is no folder")]
)
def test_folder_without_fonts_is_an_error(name, problem, command, tmp_path):
    folder = tmp_path / name
    error = error_of(command(*QUICK, "--fonts", folder, "--output", tmp_path / "run"))
    assert f"--fonts {folder}: {problem}; name a folder with .ttf, .otf, .woff" in error
    assert not (tmp_path / "run").exists()


def test_fonts_are_in_the_record(finished):
    folder, _ = finished
    digest = hashlib.sha256(font_file("DejaVuSans").read_bytes()).hexdigest()
    assert json.loads((folder / "run.json").read_text())["fonts"] == {"DejaVuSans.ttf": digest}


def test_divergence_is_an_error(command, tmp_path):
    error = error_of(command(*QUICK, "--optimizer", "gd", "--learning-rate", "1e30", "--output", tmp_path / "run"))
    assert "the loss is not a number at step 2" in error
    assert "use a lower learning rate and another --output" in error


def test_output_cannot_be_a_file_or_lie_below_one(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    rejected = command(*QUICK, "--output", tmp_path / "file")
    assert rejected.exit_code == 2
    assert f"'{tmp_path / 'file'}' is a file" in rejected.stderr
    rejected = command(*QUICK, "--output", tmp_path / "file" / "run")
    assert f"--output {tmp_path / 'file' / 'run'}: cannot be written: Not a directory" in error_of(rejected)
    assert "loaded from" not in rejected.stderr, "it is told before the data is read"
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], "already holds a run; add --resume"),
        (["--resume", "--seed", "4"], "belongs to another run, which has --seed 3, not 4"),
    ],
)
def test_output_of_another_run_is_left_as_it_is(finished, command, more, expected):
    folder, _ = finished
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert expected in error_of(command(*flags(SETTINGS), "--output", folder, *more))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["cut short", "flipped"])
def test_damaged_checkpoint_is_an_error(finished, command, tmp_path, damage):
    last = shutil.copytree(finished[0], tmp_path / "run") / "last.pt"
    content = bytearray(last.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        del content[-1000:]
    last.write_bytes(content)
    error = error_of(command(*flags(SETTINGS), "--output", last.parent, "--resume"))
    assert f"{last}: damaged" in error
    assert last.read_bytes() == content


def after(statement, *command):
    """Return a command that first runs a Python statement in its own process."""
    program = f"import os, resource, signal, sys; {statement}; os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program, *map(str, command)]


ENDLESS = ["--model", "mlp", "--epochs", "100000", "--subset", "512", "--validation", "64", "--checkpoint-every", "3"]


def stopped(*arguments):
    """Run until the first epoch is printed, send Ctrl-C, and return exit status, stdout and stderr."""
    # The children of a background job ignore Ctrl-C unless it is turned on again.
    command = after("signal.signal(signal.SIGINT, signal.SIG_DFL)", COMMAND, *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    return process.returncode, printed + rest, errors


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that Ctrl-C stopped, its exit status, stdout and stderr."""
    folder = tmp_path_factory.mktemp("interrupted") / "my run"
    return folder, *stopped(*ENDLESS, "--output", folder)


def test_ctrl_c_is_a_clean_stop(interrupted):
    folder, status, _, errors = interrupted
    assert status == 130
    assert "Traceback" not in errors
    assert f"Stopped. The last checkpoint is in {folder}." in errors
    assert list(folder.glob(".*")) == [], "no half-written file stays"
    assert checkpoint.load(folder / "last.pt")["step"] >= 4


def test_printed_command_resumes_the_run(interrupted, tmp_path):
    folder, _, _, errors = interrupted
    command = shlex.split(errors.split("Continue with: ")[1])
    assert command == ["mnist-train", *ENDLESS, "--output", str(folder), "--resume"]

    copy = shutil.copytree(folder, tmp_path / "run")
    step = checkpoint.load(copy / "last.pt")["step"]
    status, out, errors = stopped(*ENDLESS, "--output", copy, "--resume")
    assert status == 130
    assert f"\nresuming after step {step} of 400000\nepoch {step // 4 + 1}/100000 " in out
    assert errors.split("Continue with: ")[1].count("--resume") == 1
    assert checkpoint.load(copy / "last.pt")["step"] > step


def test_full_disk_keeps_the_last_checkpoint(interrupted, tmp_path):
    """A limit on the size of files acts like a full disk: a write fails half-way."""
    last = shutil.copytree(interrupted[0], tmp_path / "run") / "last.pt"
    before = last.read_bytes()
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)"
    command = after(limit, COMMAND, *ENDLESS, "--output", last.parent, "--resume")
    error = error_of(subprocess.run(command, capture_output=True, text=True, timeout=120))
    assert f"File too large: '{last}'. The files in the run folder are complete." in error
    assert f"continue with: mnist-train {' '.join(ENDLESS)} --output {last.parent} --resume" in error
    assert last.read_bytes() == before
    assert list(last.parent.glob(".*")) == []
