"""mnist-export: a published bundle is verified, and each wrong file is caught by the check meant for it."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import export.publishing
from export import metadata, triton
from export.equivalence import (
    ContractError,
    LabelsError,
    NumbersError,
    Reference,
    check_int8,
    check_onnx,
    check_torchscript,
    count_correct,
    hard_cases,
)
from export.folder import ExportError
from export.gate import AlreadyPublishedError
from export.graph import ServingGraph
from export.measure import draw_sets, measure
from export.onnx import export_onnx
from export.publishing import publish
from export.quantize import export_int8
from export.run import Run
from export.staging import staging_folder
from export.torchscript import export_torchscript, load_torchscript
from export.verify import verify_bundle
from serving.errors import BundleError, SettingsError
from serving.models import bundle, repository
from serving.models.classifier import Classifier
from serving.models.model import load_folder
from serving.settings import RELEASE, Settings
from tests.support import BIN
from tests.training.conftest import invoke, prepare
from training.evaluate import Evaluation
from training.networks import build, normalize
from training.trust.calibrate import Calibration
from training.trust.novelty import Novelty

LABELS = tuple("0123456789")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the tutorial's network."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        done = invoke("--model", "mlp", "--epochs", 1, "--subset", 4096, "--output", folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def graph(trained):
    run = Run.read(trained)
    return ServingGraph(run.network, run.calibration)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory, run):
    """A repository, and the outputs of the two commands that exported the run to it at the same time.

    The second one added an int8 file. Which of them got version 1 is a matter of chance.
    """
    models = tmp_path_factory.mktemp("exported") / "my models"
    line = ("mnist-export", trained, "--repository", models)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda more: run(*line, *more), [[], ["--int8"]]))
    assert [process.returncode for process in done] == [0, 0], done
    return models, *(process.stdout for process in done)


def versions(models):
    """The two versions of a repository, that without an int8 file first."""
    found = [repository.load(models, "mnist", version).bundle for version in repository.versions(models, "mnist")]
    return sorted(found, key=lambda each: bundle.INT8 in each.manifest.files)


@pytest.fixture(scope="module")
def published(exported):
    """The published bundle that has no int8 file."""
    return versions(exported[0])[0]


@pytest.fixture
def copied(published, tmp_path):
    """A copy of the published bundle, for tests that damage it."""
    return shutil.copytree(published.folder, tmp_path / "models" / "mnist" / published.folder.name)


@pytest.fixture(scope="module")
def odd(graph, tmp_path_factory):
    """A folder whose name is not UTF-8, with an ONNX file that this process has written."""
    folder = tmp_path_factory.mktemp("odd") / os.fsdecode(b"m\xff \n")
    folder.mkdir()
    export_onnx(graph, folder / bundle.ONNX, LABELS)
    return folder


def test_exports_at_the_same_time_get_different_versions(exported):
    models, *_ = exported
    assert [repository.load(models, "mnist", version).version for version in (1, 2)] == ["1", "2"]
    assert sorted(path.name for path in (models / "mnist").iterdir()) == ["1", "2", "config.pbtxt"]


def test_command_publishes_and_prints_the_manifest(trained, exported, published, command):
    models, printed, _ = exported
    folder = published.folder
    result = json.loads((trained / "run.json").read_text())["result"]["test"]
    assert f"{result['correct']} of 10000 correct" in printed
    assert f"mnist-serve --repository '{models}'" in printed
    for name in ("model.onnx", "model.torchscript.pt", "golden.npz"):
        content = (folder / name).read_bytes()
        described = bundle.file_of(folder / name)
        assert f"{described.bytes}  {described.sha256}" in printed
        assert len(content) == described.bytes
    card = (folder / "README.md").read_text()
    assert f"| {result['accuracy']:.2%} |" in card

    verified = command("--verify", folder)
    assert verified.exit_code == 0, verified.stderr
    assert "matches its manifest" in verified.stdout


def test_same_run_is_not_published_again(trained, exported, command):
    models, *_ = exported
    newest = repository.load(models, "mnist").bundle
    again = command(trained, "--repository", models, *(["--int8"] if bundle.INT8 in newest.manifest.files else []))
    assert again.exit_code == 0, again.stderr
    assert f"Already published   {newest.folder} was made from the same run" in again.stdout
    assert repository.versions(models, "mnist") == [1, 2]


def test_manifest_certifies_the_run_and_every_format(published, trained):
    manifest = published.manifest
    record = json.loads((trained / "run.json").read_text())
    assert manifest.labels == LABELS
    assert manifest.parameters == 22_270
    assert manifest.result == record["calibration"]["result"]
    assert manifest.training["config"] == record["config"]
    assert manifest.training["dataset"]["digests"]["t10k-labels-idx1-ubyte"].startswith("ff7bcfd4")
    for found in manifest.equivalence.values():
        assert found.images > 10_000
        assert found.labels_differing == 0
        assert found.logits_difference <= found.tolerance
    assert set(manifest.equivalence) == {"onnx", "torchscript"}
    assert {sum(images) for images in manifest.reference.images().values()} == {record["dataset"]["validation_images"]}


def test_onnx_file_holds_its_labels_but_no_paths_of_the_machine(published):
    model = onnx.load(published.folder / bundle.ONNX)
    manifest = published.manifest
    assert {p.key: p.value for p in model.metadata_props} == {
        "labels": "\n".join(LABELS),
        "temperature": str(manifest.temperature),
        "threshold": str(manifest.novelty.threshold),
        "confidence": str(manifest.confidence.threshold),
        "name": "mnist",
        "version": str(manifest.version),
        "producer": f"mnist-service {version('mnist-service')}",
        "data_license": "Creative Commons Attribution-ShareAlike 3.0",
        "input": "images: uint8 [N, 28, 28], 0 is paper and 255 is ink, as in MNIST; the graph scales them",
        "weights_sha256": manifest.training["model_sha256"],
    }
    assert not any(tensor.metadata_props for tensor in model.graph.input)
    assert b"/" not in b"".join(node.doc_string.encode() for node in model.graph.node)
    assert not any(node.metadata_props for node in model.graph.node)


def test_another_process_writes_the_same_bytes(published, odd):
    """Without the metadata, which it gets when it is published."""
    models = [onnx.load_from_string((folder / bundle.ONNX).read_bytes()) for folder in (odd, published.folder)]
    for model in models:
        del model.metadata_props[:]
    assert models[0].SerializeToString() == models[1].SerializeToString()


def test_same_weights_give_the_same_bytes(tmp_path):
    torch.manual_seed(3)
    network = build("cnn")
    graph = ServingGraph(network, Calibration(1.0, Novelty(network.head.in_features + 10), 0.0))
    for name in ("a", "b"):
        export_onnx(graph, tmp_path / name, LABELS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_configuration_for_triton_follows_the_classes_unless_somebody_changed_it(
    trained, published, tmp_path, monkeypatch
):
    def build(staging, *_, **__):
        shutil.copytree(published.folder, staging, dirs_exist_ok=True)
        return published.manifest

    monkeypatch.setattr(export.publishing, "build", build)
    written = (published.folder.parent / triton.CONFIG).read_text()
    path = tmp_path / "mnist" / triton.CONFIG
    path.parent.mkdir()
    path.write_text(written.replace("[-1, 10]", "[-1, 26]"))
    publish(Run.read(trained), tmp_path)
    assert path.read_text() == written
    for change in ("num_versions: 4", "num_versions: 3 } }\ninstance_group [{ count: 2 }] #"):
        assert not triton.is_ours(written.replace("num_versions: 3", change), written)


def test_metadata_of_whole_pictures_and_of_an_own_data_set_says_so(published):
    manifest = published.manifest
    own = manifest.training | {"dataset": manifest.training["dataset"] | {"name": "letters", "own": True}}
    whole = msgspec.structs.replace(manifest, prepare="as-is", training=own, labels=("ä", "字"), confidence=None)
    said = metadata.metadata(whole)
    assert said["input"].startswith("images: uint8 [N, 28, 28], whole pictures, 0 is black and 255 is white")
    assert (said["data_license"], said["labels"], said["confidence"]) == ("that of its owner", "ä\n字", None)


def test_changed_metadata_of_an_onnx_file_is_caught(copied, mnist, monkeypatch):
    """The digest in the manifest is that of the changed file."""
    few = replace(mnist, train=mnist.train.take(torch.arange(4096)))
    monkeypatch.setattr("export.verify.load_data", lambda *_, **__: few)
    path = copied / bundle.ONNX
    true = path.read_bytes()
    for i in range(len(onnx.load_from_string(true).metadata_props)):
        model = onnx.load_from_string(true)
        entry = model.metadata_props[i]
        entry.value += "1"
        path.write_bytes(model.SerializeToString())
        manifest = json.loads((copied / bundle.MANIFEST).read_text())
        manifest["files"][bundle.ONNX] = msgspec.to_builtins(bundle.file_of(path))
        (copied / bundle.MANIFEST).write_text(json.dumps(manifest))
        message = rf"its manifest says {entry.key}, for the metadata of model\.onnx, .* found '"
        with pytest.raises(BundleError, match=message) as raised:
            verify_bundle(copied)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("opset", [17, 24, 18.0, "18", True])
def test_unknown_opset_is_an_error_before_anything_is_written(trained, tmp_path, opset):
    with pytest.raises(ExportError, match=rf"opset {opset!r}: must be a whole number from 18 to 23"):
        publish(Run.read(trained), tmp_path / "models", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_lowest_and_highest_opset_give_the_same_results(graph, published, tmp_path, digits):
    assert published.manifest.versions["opset"] == "18"
    lowest, highest = published.folder / bundle.ONNX, tmp_path / "23.onnx"
    export_onnx(graph, highest, LABELS, opset=23)
    for path, opset, ir_version in ((lowest, 18, 8), (highest, 23, 11)):
        model = onnx.load(path)
        assert [(each.domain, each.version) for each in model.opset_import] == [("", opset)]
        assert model.ir_version == ir_version
    outputs = [Classifier(path).classify(digits[:100]) for path in (lowest, highest)]
    for found, wanted in zip(*outputs, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_reference_evaluator_of_onnx_gives_the_same_results(published, digits):
    found = ReferenceEvaluator(onnx.load(published.folder / bundle.ONNX)).run(None, {"images": digits[:20]})
    expected = Classifier(published.folder / bundle.ONNX).classify(digits[:20])
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=2e-4)


def test_equal_exports_at_the_same_time_publish_one_version(trained, published, tmp_path, monkeypatch):
    def build_while_another_publishes(staging, *_, **__):
        for folder in (staging, tmp_path / "mnist" / "1"):
            shutil.copytree(published.folder, folder, dirs_exist_ok=True)
        return published.manifest

    monkeypatch.setattr(export.publishing, "build", build_while_another_publishes)
    with pytest.raises(AlreadyPublishedError, match="mnist/1 was made from the same run"):
        publish(Run.read(trained), tmp_path)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == ["1"]


# Exports that are wrong on purpose. The check meant for each one has to catch it.


def changed(graph, scale):
    """A copy of the graph whose bias for the digit 3 is moved by ``scale``."""
    wrong = copy.deepcopy(graph)
    with torch.no_grad():
        wrong.network.head.bias[3] += scale
    return wrong


def write_changed(published, path, scale=0.0, labels=LABELS):
    """Write the published ONNX file with the bias for the digit 3 moved by ``scale``, and with these labels."""
    model = onnx.load(published.folder / bundle.ONNX)
    [bias] = [values for values in model.graph.initializer if values.name == "head.bias"]
    moved = onnx.numpy_helper.to_array(bias).copy()
    moved[3] += scale
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    onnx.helper.set_model_props(model, {"labels": "\n".join(labels)})
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(("scale", "error"), [(0.001, NumbersError), (30.0, LabelsError), (float("nan"), LabelsError)])
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_changed_bias_is_caught(graph, published, tmp_path, digits, scale, error, format):
    path = tmp_path / "model"
    if format == "onnx":
        write_changed(published, path, scale)
        with pytest.raises(error):
            check_onnx(path, Reference(graph, digits[:300]), LABELS)
    else:
        export_torchscript(changed(graph, scale), path)
        with pytest.raises(error):
            check_torchscript(path, Reference(graph, digits[:300]), LABELS)


def test_swapped_labels_are_caught(graph, published, tmp_path, digits):
    write_changed(published, tmp_path / "model.onnx", labels=("1", "0", *LABELS[2:]))
    with pytest.raises(ContractError, match="its labels are"):
        check_onnx(tmp_path / "model.onnx", Reference(graph, digits[:100]), LABELS)


def test_fixed_batch_axis_is_caught(graph, published, tmp_path, digits):
    path = tmp_path / "model.onnx"
    model = onnx.load(published.folder / bundle.ONNX)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, path)
    with pytest.raises(ContractError, match="its inputs are"):
        check_onnx(path, Reference(graph, digits[:100]), LABELS)


def test_fixed_batch_size_is_caught_in_torchscript(graph, trained, tmp_path, digits):
    class Fixed(ServingGraph):
        def forward(self, images):
            return super().forward(images.view(2, 28, 28))

    run = Run.read(trained)
    export_torchscript(Fixed(run.network, run.calibration), tmp_path / "model.pt")
    with pytest.raises(ContractError, match="three images"):
        check_torchscript(tmp_path / "model.pt", Reference(graph, digits[:100]), LABELS)


def test_another_output_name_is_caught(graph, published, tmp_path, digits):
    path = tmp_path / "model.onnx"
    model = onnx.load(published.folder / bundle.ONNX)
    original = model.graph.output[1].name
    model.graph.output[1].name = "scores"
    for node in model.graph.node:
        node.output[:] = ["scores" if name == original else name for name in node.output]
    onnx.save(model, path)
    with pytest.raises(ContractError, match="its outputs are"):
        check_onnx(path, Reference(graph, digits[:100]), LABELS)


@pytest.mark.parametrize("file", [bundle.ONNX, bundle.TORCHSCRIPT, bundle.GOLDEN])
def test_flipped_byte_is_caught(copied, file, command):
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    failed = command("--verify", copied)
    assert failed.exit_code == 1
    assert f"{file} was altered" in failed.stderr
    with pytest.raises(BundleError, match="was altered"):
        repository.load(copied.parent.parent, "mnist")


def test_replaced_model_with_a_matching_digest_is_caught(copied, published):
    """The new weights do not reproduce the golden logits."""
    write_changed(published, copied / bundle.ONNX, 0.01)
    manifest = json.loads((copied / bundle.MANIFEST).read_text())
    described = bundle.file_of(copied / bundle.ONNX)
    manifest["files"][bundle.ONNX] = {"sha256": described.sha256, "bytes": described.bytes}
    (copied / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not reproduce its golden logits"):
        load_folder(copied)


# What a manifest says, by path, and a change of it that needs the files or the data set to be noticed.
FALSE = {
    "labels": lambda labels: [labels[1], labels[0], *labels[2:]],
    "parameters": lambda count: count + 1,
    "temperature": lambda value: value * 1.001,
    "novelty.threshold": lambda value: value + 0.001,
    "novelty.false_rejections.test": lambda share: share + 0.005,
    "confidence.threshold": lambda value: value + 0.001,
    "confidence.false_rejections.test": lambda share: share + 0.005,
    "result.test.correct": lambda count: count + 1,
    "result.test.accuracy": lambda share: share + 0.0001,
    "result.test.loss": lambda loss: loss - 0.001,
    "result.test.images": lambda count: count * 2,
    "result.validation.accuracy": lambda share: 1.0,
    "result.test": lambda _: {},
    "equivalence.onnx.images": lambda count: count + 1,
    "equivalence.torchscript.labels_differing": lambda count: count + 1,
    "equivalence.torchscript.tolerance": lambda value: value * 10,
    "sets.noise.accepted": lambda count: count + 5,
    "sets.noise.reasons": lambda reasons: {**reasons, "no digit": 499},
    "sets.blur.calibration_error": lambda error: error + 0.1,
    "sets.faint.what": lambda text: text.replace("test", "training"),
    "classes": lambda classes: [],
    "training.config.model": lambda _: "cnn",
    "training.config.epochs": lambda _: "many",
    "training.dataset.name": lambda _: "letters",
    "training.dataset.digests": lambda _: {},
    "training.dataset.train_images": lambda count: count + 1,
    "training.dataset": lambda _: [],
    "training.model_sha256": lambda digest: digest[::-1],
    "name": lambda _: "letters",
    "version": lambda version: version + 1,
    "prepare": lambda _: "as-is",
    "provenance.export.version": lambda _: "7.0",
    "provenance.export.time": lambda time: time.replace("20", "19"),
    "provenance.export": lambda _: "here",
    "provenance.training.revision": lambda _: "0" * 40,
    "provenance.training.host.cores": lambda count: count + 1,
    "provenance.teachers": lambda _: ["0" * 64],
    "provenance.fonts": lambda _: {"a.ttf": "0" * 64},
    "provenance.start": lambda _: [7],
    "provenance.seed": lambda seed: seed + 1,
    "training.config.seed": lambda seed: seed + 1,
    "training.config.augment": lambda strength: strength + 1,
    "training.config.teacher": lambda _: "another",
    "versions.torch": lambda _: "1.0",
    "versions": lambda versions: {"opset": versions["opset"]},
    "versions.opset": lambda _: "7",
    "reference.labels": lambda images: [images[0] + 100, images[1] - 100, *images[2:]],
    "reference.novelty": lambda found: {**found, "images": found["images"][::-1], "edges": [0.1 * i for i in range(9)]},
    "reference.reasons": lambda found: {**found, "accepted": found["accepted"] - 100, "empty": 100},
}


def test_every_false_statement_of_a_manifest_is_caught(copied, mnist, monkeypatch):
    """The manifest is checked on 500 images, because the whole test set takes a second for each statement."""
    few = replace(mnist, train=mnist.train.take(torch.arange(4096)), test=mnist.test.take(torch.arange(500)))
    monkeypatch.setattr("export.verify.load_data", lambda *_, **__: few)
    # They are drawn once, because that takes two seconds, and they do not depend on the manifest.
    drawn = draw_sets(few, "symbol")
    monkeypatch.setattr("export.measure.draw_sets", lambda *_: drawn)
    path = copied / bundle.MANIFEST
    true = json.loads(path.read_text())
    output = Classifier(copied / bundle.ONNX).classify(few.test.images.numpy())
    true["result"]["test"] = Evaluation(torch.from_numpy(output.logits), few.test.labels).summary()
    true["novelty"]["false_rejections"]["test"] = float((output.novelty > true["novelty"]["threshold"]).mean())
    below = output.probabilities.max(axis=1) < true["confidence"]["threshold"]
    true["confidence"]["false_rejections"]["test"] = float(below.mean())
    for found in true["equivalence"].values():
        found["images"] = 500 + sum(map(len, hard_cases(few.test.images.numpy())))
    path.write_text(json.dumps(true))
    true |= msgspec.to_builtins(measure(load_folder(copied), few, with_latency=False)._asdict())
    path.write_text(json.dumps(true))
    verify_bundle(copied)
    for statement, change in FALSE.items():
        manifest = json.loads(json.dumps(true))
        *folders, name = statement.split(".")
        part = manifest
        for key in folders:
            part = part[key]
        part[name] = change(part[name])
        path.write_text(json.dumps(manifest))
        with pytest.raises(BundleError) as raised:
            verify_bundle(copied)
        assert "\n" not in str(raised.value), statement


@pytest.mark.parametrize("name", ["../evil", "x/y", "a b", "ünï", ".hidden", ".", "..", "", "x\n", "x" * 129])
def test_name_that_no_service_would_serve_is_rejected(trained, tmp_path, name):
    with pytest.raises(ExportError, match="is not a valid model name"):
        publish(Run.read(trained), tmp_path / "models", name or ".")
    with pytest.raises(BundleError, match="is not a valid model name"):
        repository.load(tmp_path, name)
    with pytest.raises(SettingsError, match=r"(?s)--model .*: must have 1 to 128 characters"):
        Settings(model=name)
    assert list(tmp_path.iterdir()) == []


def test_wrong_name_is_an_error_before_anything_is_loaded(trained, tmp_path, run):
    failed = run("mnist-export", trained, "--repository", tmp_path, "--name", "../evil")
    assert failed.returncode == 2
    assert "Error: --name ../evil: must have 1 to 128 characters" in failed.stderr


def test_highest_version_is_an_error_and_no_endless_loop(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("export.publishing.build", lambda *_, **__: None)
    (tmp_path / "mnist" / "999999999999999999").mkdir(parents=True)
    with pytest.raises(ExportError, match="has version 999999999999999999, the highest"):
        publish(Run.read(trained), tmp_path)


def test_files_can_be_in_a_folder_whose_name_is_not_utf_8(graph, odd, digits):
    """torch, onnx and onnxruntime take no such path."""
    export_torchscript(graph, odd / "model.torchscript.pt")
    export_int8(odd / "model.onnx", odd / "model.int8.onnx", digits[:200])
    check_torchscript(odd / "model.torchscript.pt", Reference(graph, digits[:10]), LABELS)
    for name in ("model.onnx", "model.int8.onnx"):
        assert Classifier(odd / name).classify(digits[:10]).logits.shape == (10, 10)


def test_full_disk_leaves_no_files(trained, tmp_path, run):
    """A limit on the size of files acts like a full disk. torch itself would abort the process."""
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000,) * 2)"
    program = f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"
    line = [sys.executable, "-c", program, BIN / "mnist-export", trained, "--repository", tmp_path / "my models"]
    failed = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1
    assert re.fullmatch(
        r"Error: not published: .*model\.torchscript\.pt: File too large", failed.stderr.splitlines()[-1]
    )
    assert list(tmp_path.iterdir()) == []


def test_staging_folder_of_a_killed_export_is_removed_and_that_of_a_running_one_is_not(tmp_path):
    (tmp_path / ".export-dead").mkdir()
    (tmp_path / ".export-dead" / "model.onnx").write_text("half")
    (tmp_path / "1").mkdir()
    with staging_folder(tmp_path) as one, staging_folder(tmp_path) as two:
        assert {path.name for path in tmp_path.iterdir()} == {"1", one.name, two.name}
    assert {path.name for path in tmp_path.iterdir()} == {"1"}


def test_staging_folder_removes_only_the_empty_folders_that_it_has_made(tmp_path):
    (tmp_path / "old").mkdir()
    with staging_folder(tmp_path / "old"), staging_folder(tmp_path / "models" / "letters"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    with staging_folder(tmp_path / "models" / "letters"):
        (tmp_path / "models" / "mnist").mkdir()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mnist"]
    with staging_folder(tmp_path / "models" / "letters") as staging:
        staging.rename(staging.parent / "1")
    assert (tmp_path / "models" / "letters" / "1").is_dir()


def test_files_of_a_bundle_have_the_mode_that_the_umask_leaves(trained, published, tmp_path):
    usual = os.umask(0o077)
    try:
        private = publish(Run.read(trained), tmp_path).folder
    finally:
        os.umask(usual)
    for folder, umask in ((private, 0o077), (published.folder, usual)):
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666 & ~umask}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask


def test_failed_export_leaves_no_files_and_no_new_folder(trained, published, tmp_path, monkeypatch):
    monkeypatch.setattr("export.onnx.export_onnx", lambda graph, path, *_: write_changed(published, path, 0.001))
    with pytest.raises(NumbersError):
        publish(Run.read(trained), tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_holds_no_run_is_named_with_what_it_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, reason in (("no", "there is no such folder"), ("file", "there is no such"), ("empty", "holds no run")):
        with pytest.raises(ExportError, match=reason):
            Run.read(tmp_path / name)
    with pytest.raises(ExportError, match=r"is a published version; .* use mnist-export --verify "):
        Run.read(RELEASE / "mnist" / "1")


@pytest.mark.parametrize("damage", ["no record", "no weights", "altered weights", "invalid record"])
def test_incomplete_or_changed_run_is_rejected(trained, tmp_path, command, damage):
    folder = shutil.copytree(trained, tmp_path / "run")
    if damage == "no record":
        (folder / "run.json").unlink()
    elif damage == "no weights":
        (folder / "model.pt").unlink()
    elif damage == "altered weights":
        (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes() + b"x")
    else:
        (folder / "run.json").write_text("{")
    with pytest.raises(ExportError):
        Run.read(folder)
    failed = command(folder, "--repository", tmp_path / "models")
    assert failed.exit_code == 1
    assert str(folder) in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "models").exists()


ODD_RECORDS = {
    "a list": lambda record: [record],
    "no config": lambda record: record.pop("config"),
    "config is text": lambda record: record.update(config="cnn"),
    "unknown network": lambda record: record["config"].update(model="resnet"),
    "another network": lambda record: record["config"].update(model="cnn"),
    "no data set": lambda record: record.pop("dataset"),
    "unknown data set": lambda record: record["dataset"].update(name="letters"),
    "labels are numbers": lambda record: record["dataset"].update(labels=list(range(10))),
    "no calibration": lambda record: record.pop("calibration"),
    "calibration without results": lambda record: record["calibration"].pop("result"),
    "no digest": lambda record: record.pop("model_sha256"),
    "digest is a number": lambda record: record.update(model_sha256=7),
    "no versions": lambda record: record.pop("versions"),
    "no seconds": lambda record: record.update(seconds=None),
    "teachers are a list": lambda record: record.update(teachers=["7"]),
    "digest of a font is a number": lambda record: record.update(fonts={"a.ttf": 7}),
    "start is nothing": lambda record: record.update(start=None),
    "two lines as a network": lambda record: record["config"].update(model="cnn\nmlp"),
}


@pytest.mark.parametrize("case", ODD_RECORDS)
def test_odd_record_is_an_error_of_one_line(trained, tmp_path, case):
    folder = shutil.copytree(trained, tmp_path / "my run")
    record = json.loads((folder / "run.json").read_text())
    changed = ODD_RECORDS[case](record)
    (folder / "run.json").write_text(json.dumps(changed if isinstance(changed, list) and case == "a list" else record))
    with pytest.raises(ExportError) as raised:
        Run.read(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_deeply_nested_record_is_an_error(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "run.json").write_text("[" * 100_000)
    with pytest.raises(ExportError, match="not the record of a run"):
        Run.read(folder)


def test_wrong_usage_ends_with_a_message(command, tmp_path):
    assert command().exit_code == 2
    assert command(tmp_path, "--verify", tmp_path).exit_code == 2
    # A variable of a script that is not set must not publish without a signature.
    assert "--sign: names no key" in command(tmp_path, "--sign", "").stderr
    failed = command("--verify", tmp_path)
    assert failed.exit_code == 1
    assert "is not a model bundle" in failed.stderr
    missing = command("--verify", tmp_path / "nothing")
    assert missing.exit_code == 1
    assert "nothing: there is no such folder; name a published version, such as models/mnist/1" in missing.stderr
    for number in (2, 10):
        (tmp_path / "models" / "mnist" / str(number)).mkdir(parents=True)
    newest = tmp_path / "models" / "mnist" / "10"
    for folder in (newest.parent, newest.parent.parent):
        with pytest.raises(BundleError, match=rf"{folder} is not .*; name one version of a model, such as {newest}$"):
            bundle.read(folder)


def test_packaged_model_gives_its_certified_results():
    """It classifies at least 99.5 % of the test set correctly, and its ONNX file is smaller than 500 kB."""
    verified = verify_bundle(RELEASE / "mnist" / "1")
    assert verified.manifest.training["config"]["model"] == "cnn"
    assert verified.manifest.training["config"]["subset"] == 0
    assert verified.manifest.result["test"]["accuracy"] >= 0.995
    assert verified.manifest.files[bundle.ONNX].bytes < 500_000


def test_torchscript_file_runs_without_this_project(published, digits):
    logits, probabilities, novelty = load_torchscript(published.folder / bundle.TORCHSCRIPT)(
        torch.from_numpy(digits[:5].copy())
    )
    assert novelty.shape == (5,)
    np.testing.assert_allclose(logits.softmax(1).detach(), probabilities.detach(), atol=1e-6)


def test_temperature_and_novelty_are_in_the_graph(published, trained, digits):
    """The graph divides logits by the run's temperature, and its novelty score rejects about 0.5 % of the digits."""
    run = Run.read(trained)
    output = load_folder(published.folder).classifier.classify(digits)
    raw = run.network.eval()(normalize(torch.from_numpy(digits[:100].copy()))).detach().numpy()
    np.testing.assert_allclose(output.logits[:100], raw / run.calibration.temperature, atol=1e-4)
    assert published.manifest.temperature == run.calibration.temperature
    assert published.manifest.novelty.threshold == run.calibration.threshold
    rejected = float((output.novelty > run.calibration.threshold).mean())
    assert published.manifest.novelty.false_rejections["test"] == pytest.approx(rejected, abs=1e-3)
    assert 0.001 < rejected < 0.03


def test_changed_calibration_is_rejected(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "calibration.pt").write_bytes(b"x")
    with pytest.raises(ExportError, match=r"calibration\.pt: changed"):
        Run.read(folder)


def test_int8_is_certified_and_the_faster_file_is_served(exported, tmp_path, digits, truth):
    _, quantized = versions(exported[0])
    folder = shutil.copytree(quantized.folder, tmp_path / "mnist" / quantized.folder.name)
    model = repository.load(tmp_path, "mnist")
    manifest = model.bundle.manifest
    assert manifest.correct[bundle.INT8] >= manifest.correct[bundle.ONNX] - 5
    assert manifest.files[bundle.INT8].bytes < manifest.files[bundle.ONNX].bytes / 2
    quantized = onnx.load(folder / bundle.INT8)
    assert [(each.domain, each.version) for each in quantized.opset_import] == [("", 18)]
    assert quantized.ir_version == 8
    assert manifest.serve == min(manifest.microseconds, key=manifest.microseconds.get)
    assert model.precision == ("int8" if manifest.serve == bundle.INT8 else "float32")
    for file, correct in manifest.correct.items():
        assert count_correct(Classifier(folder / file).classify(digits), truth) == correct
    assert verify_bundle(folder).manifest == manifest
    # On another machine the other file may be faster. It can be served too.
    other = next(file for file in manifest.correct if file != manifest.serve)
    record = json.loads((folder / bundle.MANIFEST).read_text())
    (folder / bundle.MANIFEST).write_text(json.dumps(record | {"serve": other}))
    assert repository.load(tmp_path, "mnist").precision != model.precision


def test_label_of_a_golden_image_may_differ_only_where_the_tolerance_allows_it(copied):
    """As that of an int8 file may, which rounds more."""
    path = copied / bundle.GOLDEN
    with np.load(path) as golden:
        arrays = dict(golden)
    second, first = arrays["logits"][0].argsort()[-2:]
    gap = float(arrays["logits"][0, first] - arrays["logits"][0, second])
    arrays["logits"][0, second] += gap + 0.001
    np.savez(path, **arrays)
    classifier = Classifier(copied / bundle.ONNX)
    assert classifier.verify(path, path.read_bytes(), gap + 0.01) == pytest.approx(gap + 0.001, abs=1e-3)
    with pytest.raises(BundleError, match="does not reproduce its golden logits"):
        classifier.verify(path, path.read_bytes(), gap / 2)


def test_int8_with_too_many_errors_is_caught(graph, published, tmp_path, digits, truth):
    write_changed(published, tmp_path / "model.onnx", 3.0)
    with pytest.raises(LabelsError, match="fewer in 10,000"):
        check_int8(tmp_path / "model.onnx", Reference(graph, digits), truth, LABELS)


def test_export_imports_no_quantizer_and_no_converter_before_it_needs_them():
    program = (
        "import sys, export.cli, export.publishing, export.verify; "
        "print({'onnx_ir', 'onnxscript', 'onnxruntime.quantization', 'sympy', 'torch._dynamo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
