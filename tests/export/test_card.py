"""The model card and the provenance that the export writes into a bundle."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest

from export import describe
from export.build import _training
from export.provenance import provenance, statement
from serving.models import bundle, card
from serving.models.model import load_folder
from serving.models.results import ClassResult, Latency, Mistake
from serving.settings import RELEASE
from tests.support import missing
from training import source

PACKAGED = RELEASE / "mnist" / "1"
RECORD = {
    "config": {"seed": 7},
    "revision": "a" * 40 + "-dirty",
    "host": {"cpu": "one"},
    "teachers": {"/home/me/teacher": "b" * 64},
    "fonts": {"hand.ttf": "c" * 64},
    "start": {"/home/me/start": "d" * 64},
}


@pytest.fixture(scope="module")
def manifest():
    """The manifest of the packaged model, with a provenance."""
    return msgspec.structs.replace(bundle.read(PACKAGED).manifest, provenance=provenance(RECORD))


def model_card(text):
    try:
        from huggingface_hub import ModelCard
    except ImportError:
        missing("huggingface_hub")
    return ModelCard(text)


def test_packaged_bundle_has_the_card_of_its_manifest():
    manifest = bundle.read(PACKAGED).manifest
    assert {bundle.CARD, bundle.PROVENANCE} <= manifest.files.keys()
    files = {name: file for name, file in manifest.files.items() if name != bundle.CARD}
    assert card.to_readme(msgspec.structs.replace(manifest, files=files)) == (PACKAGED / bundle.CARD).read_text()


def test_card_says_what_the_thresholds_were_fitted_on(manifest):
    assert "were fitted on the validation set." in card.to_readme(manifest)
    dataset = manifest.training["dataset"] | {"validation_images": 0}
    alone = msgspec.structs.replace(manifest, training=manifest.training | {"dataset": dataset})
    assert "There was no validation set, so thresholds and calibration were fitted on training" in card.to_readme(alone)


def test_hugging_face_reads_the_card_with_its_results(manifest):
    data = model_card(card.to_readme(manifest)).data
    assert (data.model_name, data.pipeline_tag, data.datasets) == ("mnist", "image-classification", ["ylecun/mnist"])
    accuracy = {(found.dataset_config, found.metric_type): found.metric_value for found in data.eval_results}
    assert accuracy["test", "accuracy"] == round(manifest.result["test"]["accuracy"], 4)
    assert {name for name, _ in accuracy} == manifest.sets.keys() >= {"test", "pictures", "other styles", "noise"}


def test_hugging_face_reads_the_card_of_odd_data(manifest):
    name = 'my: "letters"\x7f\n---\n😀 <b>|'
    training = manifest.training | {"dataset": {"name": name, "own": True}}
    odd = msgspec.structs.replace(manifest, training=training, sets={}, labels=(name, *manifest.labels[1:]))
    found = model_card(card.to_readme(odd))
    [result] = found.data.eval_results
    assert result.dataset_type == 'my: "letters"  --- 😀 <b>|'
    assert found.data.datasets is None


def test_card_has_every_section_and_agrees_with_the_totals(manifest):
    text = card.to_readme(manifest)
    for section in ("Results", "Results by class", "Calibration", "How often and why it rejects", "Latency", "Limits"):
        assert f"\n## {section}\n" in text
    assert "Creative Commons" in text
    test = manifest.sets["test"]
    assert (test.images, test.correct) == (10_000, manifest.result["test"]["correct"])
    assert test.images == test.accepted + sum(test.reasons.values())
    assert sum(found.correct for found in manifest.classes) == test.correct
    assert sum(found.images for found in manifest.mistakes) == test.images - test.correct


def test_card_of_many_classes_lists_the_mistakes(manifest):
    labels = tuple(f"class {i}" for i in range(1000))
    classes = tuple(ClassResult(10, 9, 10) for _ in labels)
    mistakes = (Mistake(3, 5, 2), Mistake(9999, 1, 1))
    many = msgspec.structs.replace(manifest, labels=labels, classes=classes, mistakes=mistakes)
    text = card.to_readme(many)
    assert "| class 3 | class 5 | 2 |" in text
    assert "and 800 more" in text


def test_card_names_the_batch_that_was_measured(manifest):
    other = msgspec.structs.replace(manifest, latency=Latency(60.0, 20.0, "a CPU", batch_size=32))
    assert "60 microseconds alone, and 20 in a batch of 32: model.onnx on one thread of a CPU" in card.to_readme(other)


def test_card_of_an_older_bundle_needs_no_measurements(manifest):
    old = msgspec.structs.replace(manifest, sets={}, classes=(), mistakes=(), latency=None, provenance={}, training={})
    assert f"| test set | {manifest.result['test']['accuracy']:.2%} |" in card.to_readme(old)


def test_provenance_names_what_the_bundle_was_made_of_and_no_paths(manifest):
    text = statement(manifest).decode()
    assert "/home/me" not in text
    content = json.loads(text)
    assert {each["name"]: each["digest"]["sha256"] for each in content["subject"]} == {
        name: file.sha256 for name, file in manifest.files.items()
    }
    definition = content["predicate"]["buildDefinition"]
    found = {each.get("name", each.get("uri")): each.get("digest") for each in definition["resolvedDependencies"]}
    assert found["teacher 0"] == {"sha256": "b" * 64}
    assert found["font hand.ttf"] == {"sha256": "c" * 64}
    assert found["first weights 0"] == {"sha256": "d" * 64}
    assert found["data train-images-idx3-ubyte"]["sha256"].startswith("ba891046")
    assert found["source of the training"] == {"gitCommit": "a" * 40}
    assert "pkg:pypi/onnxruntime@1.32.0" in found
    assert definition["internalParameters"]["host of the training"] == {"cpu": "one"}


def test_provenance_of_a_cascade_names_what_both_networks_were_made_of(manifest):
    first = RECORD | {"revision": "e" * 40, "teachers": {"other": "f" * 64}, "fonts": {}}
    made = msgspec.structs.replace(manifest, provenance=provenance(RECORD, first))
    definition = json.loads(statement(made))["predicate"]["buildDefinition"]
    found = {each.get("name"): each["digest"] for each in definition["resolvedDependencies"] if "digest" in each}
    assert found["teacher 0"] == {"sha256": "b" * 64}
    assert found["teacher 0 of the first network"] == {"sha256": "f" * 64}
    assert found["source of the training of the first network"] == {"gitCommit": "e" * 40}
    assert definition["internalParameters"]["host of the training of the first network"] == {"cpu": "one"}


def test_card_shows_the_settings_of_both_networks(manifest):
    text = card.to_readme(manifest)
    assert "| setting of the first network | value |" in text
    assert "| setting of the second network | value |" in text
    assert "| setting | value |" in card.to_readme(msgspec.structs.replace(manifest, first=None))


def test_config_of_a_manifest_has_names_and_no_paths():
    config = {"teacher": "/home/me/one,runs/two/", "fonts": "/home/me/fonts", "start": "packaged", "seed": 1}
    record = {"config": config, "dataset": {"name": "letters"}, "seconds": 1.0, "model_sha256": "a" * 64}
    names = {"dataset": "letters", "replay": "", "teacher": "one,two", "fonts": "fonts", "start": "packaged", "seed": 1}
    assert _training(record)["config"] == names


def test_provenance_is_a_valid_slsa_statement(manifest):
    try:
        from google.protobuf import json_format
        from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
        from in_toto_attestation.v1.statement import Statement
        from in_toto_attestation.v1.statement_pb2 import Statement as Message
    except ImportError:
        missing("in-toto-attestation")
    content = json.loads(statement(manifest))
    parsed = Statement.copy_from_pb(json_format.ParseDict(content, Message()))
    parsed.validate()
    made = json_format.ParseDict(content["predicate"], Provenance())
    assert made.run_details.metadata.finished_on.seconds > 1e9
    assert len(made.build_definition.resolved_dependencies) > 8


def test_revision_is_that_of_this_checkout_only(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert source.revision() == ""


def test_describing_again_keeps_the_model_files(mnist, tmp_path):
    folder = shutil.copytree(PACKAGED, tmp_path / "1")
    before = bundle.read(folder).manifest
    few = type(mnist)(**{**vars(mnist), "test": type(mnist.test)(mnist.test.images[:300], mnist.test.labels[:300])})
    after = describe.write(folder, describe.describe(folder, before, few))
    assert load_folder(folder).bundle.manifest == after
    assert after.sets["test"].images == after.sets["pictures"].images == 300
    for name in (bundle.ONNX, bundle.TORCHSCRIPT, bundle.GOLDEN):
        assert after.files[name] == before.files[name]
