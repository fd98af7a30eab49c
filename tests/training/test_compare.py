"""mnist-train compare: runs side by side, from their folders alone."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from training.cli import main


def a_run(folder, accuracies, finished=True, **config):
    folder.mkdir(parents=True)
    rows = [
        {"epoch": i + 1, "train_loss": 1 / (i + 1), "validation_accuracy": accuracy, "seconds": 2.0}
        for i, accuracy in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        test = {"accuracy": 0.97, "errors": 300, "loss": 0.1, "calibration_error": 0.01}
        record = {"config": config, "parameters": 61946, "device": "cpu", "calibration": {"result": {"test": test}}}
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def compare(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [
        a_run(tmp_path / "runs" / "cnn", [0.9, 0.99], model="cnn", seed=0, epochs=2),
        a_run(tmp_path / "runs" / "mlp", [0.8, 0.95], model="mlp", seed=0, epochs=2),
    ]


def test_runs_stand_side_by_side_with_the_settings_that_differ(runs):
    done = compare(*runs)
    assert done.exit_code == 0, done.output
    table = done.output.split("\n\n")[0].splitlines()
    rows = {line[:26].strip(): line[26:].split() for line in table}
    assert rows[""] == ["cnn", "mlp"]
    assert rows["validation accuracy"] == ["99.00%", "*", "95.00%"]
    assert rows["test errors"] == ["300", "300"]
    assert rows["model"] == ["cnn", "mlp"]
    assert rows["epochs trained"] == ["2", "2"]
    assert rows["seconds of training"] == ["4.0", "4.0"]
    assert "seed" not in rows
    assert (runs[0].parent.parent / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_run_that_is_not_finished_is_compared_by_its_epochs(runs, tmp_path):
    done = compare(runs[0], a_run(tmp_path / "begun", [0.5, 1.0], finished=False), "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0, done.output
    assert "2 (not finished)" in done.output
    assert (tmp_path / "plot.png").exists()


def test_run_that_goes_on_after_its_results_is_told(runs, tmp_path):
    """Its record is that of the last time it was finished, and its epochs are those of now."""
    done = compare(runs[0], a_run(tmp_path / "longer", [0.5, 0.6, 0.7], epochs=2), "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0, done.output
    assert "3 (results after 2)" in done.output
    assert done.output.count("results after") == 1


def test_runs_of_the_same_name_have_their_whole_path(runs, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "others" / "cnn")
    assert str(other) in compare(runs[0], other).output


def test_name_in_letters_that_the_plot_lacks_gets_no_warning(runs, tmp_path):
    done = compare(runs[0].rename(tmp_path / "\u65e5\u672c"))
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "option"), [("compare", "--plot"), ("check", "--sheet"), ("review", "--sheet")])
def test_png_is_written_to_no_file_of_another_kind(runs, tmp_path, name, option):
    done = CliRunner().invoke(main, [name, str(runs[0]), option, "a.pdf"])
    assert done.exit_code == 2
    assert done.stderr.endswith(f"'{option}': 'a.pdf': gets a PNG; name it 'a.png'\n")
    assert not done.stdout
    assert not (tmp_path / "a.pdf").exists()


def test_plot_may_be_written_to_a_device(runs):
    assert compare(*runs, "--plot", "/dev/null").exit_code == 0


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "3", '{"loss": 1}', "[" * 100_000])
def test_folder_without_a_run_is_named(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    done = compare(tmp_path)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {tmp_path}: ")
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize("content", ["3", '{"config": 3}'])
def test_record_of_something_else_is_named(runs, content):
    (runs[1] / "run.json").write_text(content)
    done = compare(*runs)
    assert done.exit_code == 1
    assert done.output == f"Error: {runs[1]}: its files cannot be read: run.json is not the record of a run\n"
