"""A cascade: a small network decides the images that it is sure about, and both networks decide the rest."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from export.cascade import Cascade
from export.equivalence import LabelsError
from export.fit_cascade import fit_cascade
from export.onnx import export_onnx
from export.publishing import publish
from export.run import ExportError, Run
from export.torchscript import export_torchscript, load_torchscript
from serving.models import bundle, repository
from serving.models.classifier import Classifier
from serving.models.model import load_folder
from tests.export.test_fuse import serving_graph
from training.trained import read


@pytest.fixture(scope="module")
def runs(tmp_path_factory, run):
    """A finished run of the tutorial's network, and one of a network that takes more work."""
    folders = {}
    for model in "mlp", "cnn-first":
        folders[model] = tmp_path_factory.mktemp("runs") / model
        options = ("--epochs", 1, "--subset", 4096, "--validation", 1000, "--output", folders[model])
        done = run("mnist-train", "--model", model, *options)
        assert done.returncode == 0, done.stderr
    return folders


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    second = Run.read(runs["cnn-first"]).after(Run.read(runs["mlp"]))
    return publish(second, tmp_path_factory.mktemp("published"))


@pytest.fixture
def cascade(digits):
    """A cascade of random networks, whose first one is sure about half of the test's digits."""
    first, second = (serving_graph(name, with_maps=True) for name in ("cnn-first", "cnn"))
    with torch.inference_mode():
        _, probabilities, novelty = first(torch.from_numpy(digits[:64]))
    # Both limits lie between two images, so that rounding does not matter.
    limits = (float(each.quantile(0.3)) for each in (probabilities.amax(dim=1), torch.sigmoid(-novelty)))
    return Cascade(first, second, 0.25, *limits)


def test_first_network_or_both_decide_an_image(cascade, digits):
    images = torch.from_numpy(digits[:64])
    with torch.inference_mode():
        first, second, both = cascade.first(images), cascade.second(images), cascade(images)
        is_sure = cascade.is_sure(*first[1:])
    assert 0 < is_sure.sum() < len(images)
    means = [0.25 * of_first + 0.75 * of_second for of_first, of_second in zip(first, second, strict=True)]
    means[1] = means[0].softmax(dim=1)
    for of_first, mean, found in zip(first, means, both, strict=True):
        torch.testing.assert_close(found[is_sure], of_first[is_sure])
        torch.testing.assert_close(found[~is_sure], mean[~is_sure], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sure", ["some", "all", "none"])
def test_both_files_give_the_same_numbers(cascade, sure, digits, tmp_path):
    if sure != "some":
        cascade = Cascade(cascade.first, cascade.second, 0.25, *([1e-9, 1e-9] if sure == "all" else [1.1, 0.5]))
    export_onnx(cascade, tmp_path / "model.onnx", "0123456789")
    export_torchscript(cascade, tmp_path / "model.pt")
    classifier, script = Classifier(tmp_path / "model.onnx"), load_torchscript(tmp_path / "model.pt")
    with torch.inference_mode():
        expected = cascade(torch.from_numpy(digits[:64]))
        for size in 1, 3, 16:
            for start in range(0, 64 - size, size):
                images = digits[start : start + size]
                rows = [each[start : start + size].numpy() for each in expected]
                for found in classifier.classify(images), script(torch.from_numpy(images)):
                    for numbers, row in zip(found, rows, strict=True):
                        np.testing.assert_allclose(numbers, row, rtol=1e-4, atol=1e-4)


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


def test_command_publishes_and_verifies_a_cascade(runs, tmp_path, run):
    arguments = ("mnist-export", runs["cnn-first"], "--first", runs["mlp"], "--repository", tmp_path)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "first network: mlp, 22,270 of the parameters, decides" in done.stdout
    again = run(*arguments)
    assert "Already published" in again.stdout
    verified = run("mnist-export", "--verify", tmp_path / "mnist" / "1")
    assert verified.returncode == 0, verified.stderr
    # Without the first network it is another model.
    alone = run("mnist-export", runs["cnn-first"], "--repository", tmp_path)
    assert "Already published" not in alone.stdout
    assert repository.versions(tmp_path, "mnist") == [1, 2]


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


def test_runs_that_do_not_fit_together(runs, tmp_path, run):
    small, large = Run.read(runs["mlp"]), Run.read(runs["cnn-first"])
    with pytest.raises(ExportError, match="takes as much work as that of"):
        small.after(large)
    other = replace(small, record=small.record | {"dataset": small.record["dataset"] | {"labels": list("abcdefghij")}})
    with pytest.raises(ExportError, match=r"its data set differs from that of .* \(labels\)"):
        large.after(other)
    with pytest.raises(ExportError, match="--int8 cannot quantize a cascade"):
        publish(large.after(small), tmp_path, int8=True)
    done = run("mnist-export", "--first", runs["mlp"], "--rollback", "--repository", tmp_path)
    assert done.returncode == 2
    assert "name the run to export" in done.stderr
