"""A cascade of two runs: what its bundle certifies, and which runs make one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from export.equivalence import LabelsError
from export.fit_cascade import fit_cascade
from export.folder import ExportError
from export.gate import AlreadyPublishedError, Gate, GateError, check_new
from export.publishing import publish
from export.run import Run
from export.verify import verify_bundle
from serving.errors import BundleError
from serving.models import bundle, repository
from serving.models.model import load_folder
from tests.training.conftest import invoke, prepare
from training.trained import read


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of the tutorial's network, and one of a network that takes more work."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        for model in "mlp", "cnn-first":
            folders[model] = tmp_path_factory.mktemp("runs") / model
            options = ("--epochs", 1, "--subset", 4096, "--validation", 1000, "--output", folders[model])
            done = invoke("--model", model, *options)
            assert done.exit_code == 0, done.output
    return folders


@pytest.fixture(scope="module")
def line(runs, tmp_path_factory):
    """The arguments with which ``mnist-export`` publishes a cascade of both."""
    return runs["cnn-first"], "--first", runs["mlp"], "--repository", tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def printed(line, run):
    """What the command has printed."""
    done = run("mnist-export", *line)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(printed, line):
    return bundle.read(line[-1] / "mnist" / "1")


def test_share_and_thresholds_are_fitted_on_validation_digits(runs, mnist):
    """The first network counts for the images that it leaves, unless it is useless."""
    few = replace(mnist, validation=mnist.validation.take(torch.arange(400)))
    run = Run.read(runs["cnn-first"]).after(Run.read(runs["mlp"]))
    fitted = fit_cascade(run, few)
    assert 0 < fitted.share <= 0.5
    with torch.inference_mode():
        _, probabilities, novelty = fitted.graph()(few.validation.images)
    found = fitted.calibration
    shares = (novelty > found.threshold), (probabilities.amax(dim=1) < found.confidence)
    assert list(found.rejected.values()) == pytest.approx([float(each.float().mean()) for each in shares])
    assert sum(found.rejected.values()) <= 0.02

    with torch.no_grad():
        run.first.network.head.weight.neg_()
        run.first.network.head.bias.neg_()
    assert fit_cascade(run, few).share == 0


def test_data_set_of_a_cascade_is_loaded_once(runs, tmp_path, monkeypatch):
    loaded, splits = [], Run.splits

    def stop(*_, **__):
        raise ExportError("stop")

    monkeypatch.setattr(Run, "splits", lambda self, data: loaded.append(data) or splits(self, data))
    monkeypatch.setattr("export.publishing.fit_cascade", lambda run, splits: run)
    monkeypatch.setattr("export.publishing.build", stop)
    with pytest.raises(ExportError, match="stop"):
        publish(Run.read(runs["cnn-first"]).after(Run.read(runs["mlp"])), tmp_path)
    assert len(loaded) == 1


def test_bundle_certifies_both_networks(published, runs, digits, truth):
    manifest = published.manifest
    records = {model: json.loads((folder / "run.json").read_text()) for model, folder in runs.items()}
    assert manifest.training["model_sha256"] == records["cnn-first"]["model_sha256"]
    assert manifest.first.training["model_sha256"] == records["mlp"]["model_sha256"]
    assert manifest.parameters == sum(record["parameters"] for record in records.values())
    assert 0 < manifest.first.decided < 1
    # The figures are those of the cascade, as the files give them.
    model = load_folder(published.folder)
    output = model.classifier.classify(digits)
    assert manifest.result["test"]["correct"] == int((output.logits.argmax(axis=1) == truth).sum())
    assert "cascade of two networks" in (published.folder / bundle.CARD).read_text()
    statement = json.loads((published.folder / bundle.PROVENANCE).read_text())
    weights = [each["digest"]["sha256"] for each in statement["predicate"]["runDetails"]["byproducts"]]
    assert weights == [records[name]["model_sha256"] for name in ("cnn-first", "mlp")]
    assert model.classifier.metadata["first_weights_sha256"] == records["mlp"]["model_sha256"]


def test_command_publishes_and_verifies_a_cascade(printed, line, published, command):
    assert "cascade of mlp and cnn-first, " in printed
    assert "first network: mlp, 22,270 of the parameters, decides" in printed
    again = command(*line)
    assert again.exit_code == 0, again.stderr
    assert "Already published" in again.stdout
    assert repository.versions(line[-1], "mnist") == [1]
    verified = command("--verify", published.folder)
    assert verified.exit_code == 0, verified.stderr


def test_second_network_alone_is_another_model(runs, line, published):
    options = {"int8": False, "versions": published.manifest.versions}
    alone = Run.read(runs["cnn-first"])
    check_new(alone, line[-1], "mnist", **options)
    manifest = published.manifest
    found = replace(alone.calibration, threshold=manifest.novelty.threshold, confidence=manifest.confidence.threshold)
    cascade = replace(alone.after(Run.read(runs["mlp"])), calibration=found, share=manifest.first.share)
    with pytest.raises(AlreadyPublishedError):
        check_new(cascade, line[-1], "mnist", **options)


@pytest.mark.parametrize("setting", ["share", "sure", "familiar"])
def test_verifying_finds_a_changed_setting(published, setting, tmp_path):
    """The ONNX file holds the settings of the cascade."""
    folder = tmp_path / "1"
    shutil.copytree(published.folder, folder)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["first"][setting] += 0.001
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"its manifest says first\.{setting} "):
        verify_bundle(folder)


def test_training_continues_with_the_second_network(published, runs, digits):
    images = torch.from_numpy(digits[:64]).float().unsqueeze(1) / 255
    again, original = read(str(published.folder)), read(str(runs["cnn-first"]))
    assert again.model == "cnn-first"
    with torch.inference_mode():
        torch.testing.assert_close(again.network.eval()(images), original.network.eval()(images), rtol=1e-3, atol=1e-3)


def test_first_network_that_makes_mistakes_publishes_nothing(runs, tmp_path):
    first = Run.read(runs["mlp"])
    # Divided by so small a temperature, it is sure about most images.
    hasty = replace(first, calibration=replace(first.calibration, temperature=0.1))
    with torch.no_grad():
        hasty.network.head.weight.copy_(hasty.network.head.weight.flip(0))
        hasty.calibration.novelty.score.bias.fill_(-1000.0)
    with pytest.raises(LabelsError, match=r"the cascade: .* 5 fewer in 10,000 are allowed"):
        publish(Run.read(runs["cnn-first"]).after(hasty), tmp_path)
    assert repository.versions(tmp_path, "mnist") == []


def test_gate_looks_at_the_cascade(published, runs, tmp_path, monkeypatch):
    def build(staging, *_, **__):
        shutil.copytree(published.folder, staging, dirs_exist_ok=True)
        return published.manifest

    monkeypatch.setattr("export.publishing.build", build)
    cascade, found = Run.read(runs["cnn-first"]).after(Run.read(runs["mlp"])), published.manifest.result["test"]
    assert found["correct"] != cascade.record["calibration"]["result"]["test"]["correct"]
    with pytest.raises(GateError, match=rf"accuracy of {found['accuracy']:.2%}: it must be at least .*--min-accuracy"):
        publish(cascade, tmp_path, gate=Gate((found["correct"] + 1) / found["images"]))
    assert repository.versions(tmp_path, "mnist") == []


def test_runs_that_do_not_fit_together(runs, tmp_path, command):
    small, large = Run.read(runs["mlp"]), Run.read(runs["cnn-first"])
    with pytest.raises(ExportError, match="takes as much work as that of"):
        small.after(large)
    other = replace(small, record=small.record | {"dataset": small.record["dataset"] | {"labels": list("abcdefghij")}})
    with pytest.raises(ExportError, match=r"its data set differs from that of .* \(labels\)"):
        large.after(other)
    fewer = replace(small, record=small.record | {"dataset": small.record["dataset"] | {"validation_images": 0}})
    with pytest.raises(ExportError, match=r"its data set differs from that of .* \(validation_images\)"):
        large.after(fewer)
    with pytest.raises(ExportError, match="--int8 cannot quantize a cascade"):
        publish(large.after(small), tmp_path, int8=True)
    done = command("--first", runs["mlp"], "--rollback", "--repository", tmp_path)
    assert done.exit_code == 2
    assert "name the run to export" in done.stderr
