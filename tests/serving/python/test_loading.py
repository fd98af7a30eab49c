"""serving.load(): which model a path names, and what it says when there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import serving
from serving.errors import BundleError
from serving.server.run import description
from serving.settings import RELEASE
from tests.serving.models.bundles import PACKAGED, publish
from tests.support import application, mode_0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A repository with two versions of one model."""
    models = tmp_path_factory.mktemp("repository") / "models"
    for version in (1, 2):
        models.mkdir(exist_ok=True)
        publish(models, version, "letters")
    return models


@pytest.mark.parametrize(
    ("place", "version", "loaded"),
    [
        (".", None, 2),
        ("letters", None, 2),
        ("letters", 1, 1),
        (".", 1, 1),
        ("letters/1", None, 1),
        ("letters/1", 1, 1),
    ],
)
def test_path_names_a_repository_a_model_or_a_version(models, monkeypatch, place, version, loaded):
    monkeypatch.chdir(models)
    model = serving.load(place, version)
    assert (model.name, model.version) == ("letters", loaded)


def test_packaged_model_is_loaded_without_a_path():
    model = serving.load()
    assert (model.name, model.labels) == ("mnist", tuple("0123456789"))
    assert model.accuracy == model.manifest.result["test"]["accuracy"] > 0.99
    assert repr(model) == f"<LoadedModel mnist version 1: 10 classes, accuracy {model.accuracy:.2%}>"
    assert "10: 0, 1, 2" in model._repr_html_()


def test_accuracy_that_no_manifest_states_is_not_said_to_be_zero(tmp_path):
    publish(tmp_path, 1, result={})
    model = serving.load(tmp_path)
    assert model.accuracy is None
    assert repr(model) == "<LoadedModel mnist version 1: 10 classes>"
    assert "not stated" in model._repr_html_()
    with application(repository=tmp_path) as client:
        assert description(client.app).startswith("mnist version 1: accuracy not stated, ")


def test_folder_of_a_version_may_lie_anywhere(tmp_path):
    shutil.copytree(PACKAGED, tmp_path / "my model")
    assert serving.load(tmp_path / "my model").name == "mnist"


def test_error_says_what_is_there_and_what_to_do(models, tmp_path):
    shutil.copytree(RELEASE / "mnist", tmp_path / "several" / "mnist")
    shutil.copytree(RELEASE / "mnist", tmp_path / "several" / "other")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for place, version, message in [
        ("nowhere", None, "is no folder; name a published model"),
        ("several", None, "holds the models mnist, other; name one"),
        ("run", None, r"is a run folder; publish it with export.publish or mnist-export first"),
        (".", None, "holds no published model"),
        (models / "letters", 7, "has no version 7; choose one of 1, 2"),
        (models / "letters", "1", "has no version '1'; choose one of 1, 2"),
        (models / "letters" / "1", 2, "is one version of a model; leave version=2 out"),
    ]:
        with pytest.raises(BundleError, match=message):
            serving.load(tmp_path / place, version)


@pytest.mark.parametrize("place", ["", "mnist", "mnist/1"])
def test_folder_that_may_not_be_read_is_the_reason(place):
    with tempfile.TemporaryDirectory() as folder:  # Another user may read it, unlike tmp_path.
        Path(folder).chmod(0o755)
        path = shutil.copytree(RELEASE, Path(folder) / "models") / place
        with mode_0(path), pytest.raises(BundleError, match=f"{path} cannot be read: Permission denied"):
            serving.load(path)


def test_altered_model_is_not_loaded(models, tmp_path):
    folder = shutil.copytree(models / "letters" / "1", tmp_path / "1")
    with (folder / "model.onnx").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="was altered"):
        serving.load(folder)


def test_package_lists_what_it_offers_and_nothing_else():
    assert set(serving.__all__) <= set(dir(serving))
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        _ = serving.predict


def test_prediction_imports_no_torch_and_no_web_framework():
    program = (
        "import sys, serving; serving.load().predict('tests/seven.png')._repr_html_();"
        "print({'torch', 'litestar', 'uvicorn', 'prometheus_client', 'training'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "set()"
