"""What may be published, and how a version is taken back."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.actions import print_published
from export.earlier import compared
from export.folder import ExportError
from export.gate import AlreadyPublishedError, Gate, GateError, check_classes, check_new
from export.history import newest, next_version, retire
from export.publishing import publish
from export.run import Run
from serving.errors import BundleError
from serving.models import bundle
from serving.models.repository import Repository, versions
from serving.settings import RELEASE
from tests.support import PIXELS, application
from training.networks import build
from training.trust.calibrate import Calibration
from training.trust.novelty import Novelty

MANIFEST = bundle.read(RELEASE / "mnist" / "1").manifest


@pytest.fixture
def models(tmp_path):
    """Three versions of the packaged model."""
    return repository_with(tmp_path / "models", 1, 2, 3)


def repository_with(models, *numbers):
    for number in numbers:
        folder = shutil.copytree(RELEASE / "mnist" / "1", models / "mnist" / str(number))
        manifest = json.loads((folder / bundle.MANIFEST).read_text()) | {"version": number}
        (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    return models


def run_with(correct, **record):
    """A run with this number of correct test images."""
    result = {"test": {"images": 10_000, "correct": correct, "accuracy": correct / 10_000}}
    values = {
        "dataset": {"name": "mnist"},
        "calibration": {"result": result},
        "model_sha256": "0" * 64,
        "versions": {},
        **record,
    }
    network = build("mlp")
    return Run("runs/new", values, network, Calibration(1.0, Novelty(network.head.in_features + 10), 0.0))  # type: ignore[arg-type]


HOLD = "import sys; from pathlib import Path; from training.loop.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_folder_without_a_finished_run_says_what_to_do(tmp_path):
    def error(folder):
        with pytest.raises(ExportError) as raised:
            Run.read(folder)
        return str(raised.value).removeprefix(f"{folder}: ")

    assert error(tmp_path) == "holds no run; name the run folder that mnist-train wrote"
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    assert error(tmp_path / "runs") == f"holds no run; name one of {tmp_path / 'runs' / 'a'}, {tmp_path / 'runs' / 'b'}"
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "last.pt").touch()
    assert error(begun).startswith("not a finished run, run.json is missing; finish it with mnist-train --output")
    with subprocess.Popen([sys.executable, "-c", HOLD, begun], stdin=-1, stdout=-1, text=True) as training:
        assert training.stdout.readline() == "held\n"
        assert error(begun) == f"process {training.pid} is still training in this folder; wait until it ends"
        training.stdin.close()


def test_command_that_takes_back_names_the_models_there_are(tmp_path):
    repository_with(tmp_path, 1)
    with pytest.raises(BundleError, match="holds no model 'letters'; it holds mnist; choose with --name"):
        newest(tmp_path, "letters")
    with pytest.raises(BundleError, match="publish one with mnist-export"):
        newest(tmp_path / "nowhere", "letters")


def test_run_without_classes_of_the_newest_version_is_not_published(models):
    digits = list("0123456789")
    check_classes(run_with(9_000, dataset={"name": "x", "labels": [*digits, "+"]}), models, "mnist")
    check_classes(run_with(9_000, dataset={"name": "x", "labels": ["a", "b"]}), models, "other")
    for labels, gone in (
        (digits[1:], r"lacks 1 of the 10 classes of .*mnist/3 \(0\)"),
        ("ab", r"0, 1, 2, 3, 4 and 5 more"),
    ):
        with pytest.raises(ExportError, match=rf"{gone}.*; publish it as another model with --name, or train it with"):
            publish(run_with(9_000, dataset={"name": "x", "labels": labels}), models, "mnist")


def test_run_that_prepares_pictures_in_another_way_is_not_published(models):
    said = {"name": "x", "labels": list("0123456789"), "prepare": "as-is"}
    check_classes(run_with(9_000, dataset=said), models, "other")
    with pytest.raises(ExportError, match=r"--prepare as-is, and .*mnist/3 with --prepare symbol; publish it as anoth"):
        check_classes(run_with(9_000, dataset=said), models, "mnist")


# The packaged model has some 30 errors in 10,000 test images. By chance, 20 errors more or less are common.
@pytest.mark.parametrize(("correct", "passes"), [(8_700, False), (9_940, False), (9_955, True), (9_999, True)])
def test_run_that_is_worse_than_the_served_version_is_not_published(tmp_path, models, correct, passes):
    run = dataclasses.replace(run_with(correct), folder=tmp_path / "run")
    Gate().check(run, models, "mnist")
    for other in "served", "2":
        if passes:
            Gate(not_worse_than=other).check(run, models, "mnist")
        else:
            served = MANIFEST.result["test"]["accuracy"]
            with pytest.raises(
                GateError, match=rf"accuracy of {correct / 10_000:.2%}, and version . of mnist has {served:.2%}"
            ):
                Gate(not_worse_than=other).check(run, models, "mnist")


def test_served_version_is_the_newest_that_can_be_verified(tmp_path, models):
    run = dataclasses.replace(run_with(8_700), folder=tmp_path)
    (models / "mnist" / "3" / bundle.ONNX).write_bytes(b"rubbish")
    with pytest.raises(GateError, match="version 2 of mnist"):
        Gate(not_worse_than="served").check(run, models, "mnist")
    Gate(not_worse_than="served").check(run, models, "another-name")
    Gate(not_worse_than="served").check(run, tmp_path / "no-repository", "mnist")
    with pytest.raises(ExportError, match=r"--not-worse-than 9: .*is not a model bundle"):
        Gate(not_worse_than="9").check(run, models, "mnist")


def test_run_below_the_lowest_accuracy_is_not_published(tmp_path, models):
    run = dataclasses.replace(run_with(8_700), folder=tmp_path)
    Gate(min_accuracy=0.87).check(run, models, "mnist")
    with pytest.raises(GateError, match=r"accuracy of 87.00%: it must be at least 99.00% \(--min-accuracy\)"):
        Gate(min_accuracy=0.99).check(run, models, "mnist")


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"min_accuracy": math.nan}, "--min-accuracy nan: must be from 0 to 1"), ({"margin": 2}, "--margin 2: must be")],
)
def test_limit_that_is_no_share_lets_nothing_pass(limits, message):
    with pytest.raises(ExportError, match=message):
        Gate(**limits)


@pytest.mark.parametrize(("option", "value"), [("--min-accuracy", "99"), ("--margin", "-0.1")])
def test_command_rejects_a_limit_that_is_no_share(command, option, value):
    """Before it reads the run, because torch takes seconds to load."""
    done = command("nosuch", option, value)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"Error: {option} {value}: must be from 0 to 1; 0.99 means 99 %"


@pytest.mark.parametrize("task", [["--verify", "models/mnist/1"], ["--rollback"], ["--retire", "1"]])
@pytest.mark.parametrize("option", [["--min-accuracy", "1"], ["--not-worse-than", "served"], ["--sign", "k"]])
def test_option_of_a_new_bundle_is_not_ignored_without_a_run(command, task, option):
    """A script that verifies a bundle could believe that it has checked the accuracy."""
    done = command(*task, *option)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"Error: {option[0]}: belongs to a new bundle; name the run to export"


def test_runs_of_different_data_are_not_compared(tmp_path, models):
    run = dataclasses.replace(run_with(9_999, dataset={"name": "fashion-mnist"}), folder=tmp_path)
    with pytest.raises(GateError, match="trained on fashion-mnist, but version 3 of mnist on mnist"):
        Gate(not_worse_than="served").check(run, models, "mnist")


def test_equal_run_is_not_published_twice(models):
    lowest = MANIFEST.confidence.threshold
    calibration = Calibration(MANIFEST.temperature, None, MANIFEST.novelty.threshold, lowest)  # type: ignore[arg-type]
    record = {
        "model_sha256": MANIFEST.training["model_sha256"],
        "calibration": {"result": MANIFEST.result},
        "dataset": {"name": "mnist", "validation_images": 5000 if MANIFEST.reference else 0},
    }
    # The packaged model is a cascade.
    first = run_with(1, model_sha256=MANIFEST.first.training["model_sha256"])
    run = dataclasses.replace(run_with(1, **record), calibration=calibration, first=first, share=MANIFEST.first.share)
    with pytest.raises(AlreadyPublishedError, match="mnist/3 was made from the same run"):
        check_new(run, models, "mnist", int8=False, versions=MANIFEST.versions)
    # Another file, newer packages, another calibration, other weights, and a version before the newest are new. So is a
    # bundle with reference histograms, if the older one has none.
    check_new(run, models, "mnist", int8=True, versions=MANIFEST.versions)
    check_new(run, models, "mnist", int8=False, versions=MANIFEST.versions | {"onnx": "99"})
    described = {"name": "mnist", "validation_images": 0 if MANIFEST.reference else 5000}
    check_new(
        dataclasses.replace(run, record=run.record | {"dataset": described}),
        models,
        "mnist",
        int8=False,
        versions=MANIFEST.versions,
    )
    warmer = dataclasses.replace(run, calibration=dataclasses.replace(calibration, temperature=9.0))
    check_new(warmer, models, "mnist", int8=False, versions=MANIFEST.versions)
    bolder = dataclasses.replace(run, calibration=dataclasses.replace(calibration, confidence=None))
    check_new(bolder, models, "mnist", int8=False, versions=MANIFEST.versions)
    check_new(dataclasses.replace(run, first=None), models, "mnist", int8=False, versions=MANIFEST.versions)
    other = dataclasses.replace(run, record=copy.deepcopy(run.record) | {"model_sha256": "f" * 64})
    check_new(other, models, "mnist", int8=False, versions=MANIFEST.versions)
    path = models / "mnist" / "3" / bundle.MANIFEST
    path.write_text(path.read_text().replace(MANIFEST.training["model_sha256"], "f" * 64))
    check_new(run, models, "mnist", int8=False, versions=MANIFEST.versions)


# What is said about a version that was published.


def retested(models, number, errors, **dataset):
    """Version ``number`` with other errors, or with another data set."""
    path = models / "mnist" / str(number) / bundle.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["result"]["test"]["errors"] = errors
    manifest["training"]["dataset"] |= dataset
    path.write_text(json.dumps(manifest))
    return bundle.read(path.parent)


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        (37, 256, "had 37 errors in 10,000 test images, this one has 256; take it back with mnist-export --rollback "),
        (1256, 37, "had 1,256 errors in 10,000 test images, this one has 37"),
        (1, 1, "had 1 error in 10,000 test images, this one has as many"),
    ],
)
def test_new_version_is_compared_with_the_one_before(models, capsys, before, now, line):
    retested(models, 2, before)
    new = retested(models, 3, now)
    back = f"--repository {models}" if now > before else ""
    assert compared(new, models) == f"version 2 {line}{back}"
    print_published(new, models, "")
    assert f"{new.folder}\nCompared    version 2 {line}{back}\nNext " in capsys.readouterr().out


def test_versions_with_other_tests_are_not_compared(models, capsys):
    first = bundle.read(models / "mnist" / "1")
    assert compared(first, models) == ""
    print_published(first, models, "")
    assert f"Published   {first.folder}\nNext " in capsys.readouterr().out
    assert compared(retested(models, 3, 37, name="usps"), models) == ""
    (models / "mnist" / "2" / bundle.ONNX).write_bytes(b"rubbish")
    assert compared(retested(models, 3, 37, name="mnist"), models).startswith("version 1 had ")
    replay = {"name": "mnist", "own": False, "images": 10_000, "errors": 40, "errors_before": 31}
    assert ", this one has 40; take it back" in compared(retested(models, 3, 0, replay=replay), models)
    replay["images"] = 300
    assert compared(retested(models, 3, 0, replay=replay), models) == ""


# Taking back.


def test_rollback_serves_the_version_before_and_can_be_undone(models, run):
    repository = Repository(models, 1)
    repository.scan()
    done = run("mnist-export", "--rollback", "--repository", models)
    assert done.returncode == 0, done.stderr
    assert "Retired     mnist version 3\n" in done.stdout
    assert repository.get("mnist").version == "3"
    assert {(change.kind, change.version) for change in repository.scan()} == {("loaded", "2"), ("dropped", "3")}
    assert repository.get("mnist").version == "2"
    assert next_version(models, "mnist") == 4
    command, source, target = re.search(r"Undo +(\S+) (\S+) (\S+)", done.stdout).groups()
    assert command == "mv"
    shutil.move(source, target)
    repository.scan()
    assert repository.get("mnist").version == "3"


def test_undo_is_one_command_of_a_shell_whatever_the_repository_is_called(models, tmp_path, run):
    spaced = shutil.copytree(models, tmp_path / "it's my\nmodels")
    done = run("mnist-export", "--rollback", "--repository", spaced)
    assert done.returncode == 0, done.stderr
    command, source, target = shlex.split(done.stdout.rsplit("Undo", 1)[1])
    assert command == "mv"
    assert Path(source).is_dir()
    assert Path(target).parent == spaced / "mnist"


def test_service_answers_every_request_during_a_rollback(models):
    with application(repository=models, poll=0.0, versions=1) as client:
        for expected in "3", "2", "1":
            client.app.state.service.scan()
            response = client.post("/predict", content=bytes(784), headers=PIXELS)
            assert response.json()["model"]["version"] == expected
            if expected != "1":
                retire(models, "mnist", int(expected))
                assert client.post("/predict", content=bytes(784), headers=PIXELS).status_code == 200


def test_retired_version_is_hidden_and_its_number_is_not_used_again(models):
    folder, served = retire(models, "mnist", 2)
    assert (folder.name, served) == (".retired-2", 3)
    assert versions(models, "mnist") == [1, 3]
    retire(models, "mnist", 3)
    assert next_version(models, "mnist") == 4


def test_version_in_a_read_only_repository_stays(models, monkeypatch):
    def rename(path, target):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path), None, str(target))

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(BundleError, match=r"^version 3 stays: .*/mnist cannot be changed: Read-only file system; make"):
        retire(models, "mnist", 3)


def test_version_that_cannot_be_retired_stays(models, tmp_path, run):
    with pytest.raises(BundleError, match="has no version 9: choose one of 1, 2, 3"):
        retire(models, "mnist", 9)
    (models / "mnist" / "2" / bundle.ONNX).write_bytes(b"rubbish")
    with pytest.raises(BundleError, match=r"mnist/2/model.onnx"):
        retire(models, "mnist", 3)
    assert versions(models, "mnist") == [1, 2, 3]
    for earlier in "folder", "link":
        target = models / "mnist" / ".retired-1"
        if earlier == "folder":
            shutil.copytree(models / "mnist" / "1", target)
        else:
            target.symlink_to("nowhere")
        with pytest.raises(BundleError, match=r"mnist/.retired-1 exists already: remove it first"):
            retire(models, "mnist", 1)
        shutil.rmtree(target) if earlier == "folder" else target.unlink()
    assert versions(models, "mnist") == [1, 2, 3]
    only = repository_with(tmp_path / "only", 1)
    done = run("mnist-export", "--retire", 1, "--repository", only)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "version 1 is the only one" in done.stderr
    for wrong in (
        ["--retire", 1, "--rollback"],
        ["--retire", 0],
        ["runs/cnn", "--not-worse-than", "best"],
        ["--rollback", "x"],
    ):
        assert run("mnist-export", *wrong, "--repository", models).returncode == 2
