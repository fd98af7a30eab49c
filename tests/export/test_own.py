"""Classes that are no digits, all the way: a folder is trained, certified and served, and all know its names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

import export
import serving
import training
from export.build import golden_images
from export.folder import ExportError
from export.gate import GateError
from export.publishing import publish
from export.run import Run
from export.verify import verify_bundle
from serving.errors import BundleError
from serving.models import card
from tests.support import application, picture
from training.data.errors import DataError
from training.data.own import saved
from training.data.own.files import DATA_FILE

NAMES = (*(f"class {number:02}" for number in range(11)), "=")


def symbol(number, variant):
    """A ring with a notch at the place of ``number``; for the last class, two bars."""
    image = Image.new("L", (64, 64), 255)
    draw = ImageDraw.Draw(image)
    if number == 11:
        draw.line((10, 20 + variant % 3, 54, 20), 0, 6)
        draw.line((10, 44, 54, 44 - variant % 5), 0, 6)
    else:
        draw.arc((8, 8, 56, 56 - variant % 4), 30 * number + 40, 30 * number + 320 - variant % 7, 0, 6)
    return np.asarray(image)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "my marks"
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for variant in range(30):
            (folder / name / f"{variant}.png").write_bytes(picture(symbol(number, variant)))
    return folder


@pytest.fixture(scope="module")
def finished(pictures):
    """A finished run on these pictures."""
    folder = pictures.parent / "run"
    settings = {"model": "mlp", "epochs": 40, "batch_size": 32, "augment": 0.2}
    assert training.train(settings, pictures, folder, progress=False).accuracy > 0.8
    return folder


@pytest.fixture(scope="module")
def published(finished):
    return export.publish(finished, finished.parent / "models", int8=True, progress=False)


@pytest.fixture(scope="module")
def served(published):
    with application(repository=published.folder.parent.parent, model="my-marks") as client:
        yield client


def test_manifest_has_the_classes_and_how_to_prepare_pictures(published, pictures):
    manifest = published.manifest
    assert (manifest.name, manifest.labels) == ("my-marks", tuple(sorted(NAMES)))
    assert (manifest.prepare, manifest.several) == ("symbol", "allowed")
    assert str(pictures.parent) not in (published.folder / "manifest.json").read_text()


def test_bundle_is_verified_with_the_pictures_or_the_run(published, finished, pictures):
    for data in (pictures, finished):
        assert verify_bundle(published.folder, data).manifest == published.manifest
    with pytest.raises(DataError, match="name its folder, or that of the run, with --data"):
        verify_bundle(published.folder)


def test_bundle_is_not_verified_with_other_pictures(published, pictures, tmp_path):
    for name in NAMES[:3]:
        (tmp_path / name).mkdir()
        for variant in range(12):
            (tmp_path / name / f"{variant}.png").write_bytes((pictures / name / f"{variant}.png").read_bytes())
    with pytest.raises(BundleError, match="its manifest says labels"):
        verify_bundle(published.folder, tmp_path)


def test_data_set_may_have_the_file_name_of_a_run(published, tmp_path):
    images = np.zeros((24, 28, 28), np.uint8)
    images[:, 4:24, 14] = np.arange(24)[:, None] + 200
    np.savez(tmp_path / DATA_FILE, images=images, labels=np.repeat(["a", "b"], 12))
    with pytest.raises(BundleError, match="its manifest says labels"):
        verify_bundle(published.folder, tmp_path)


def test_changed_data_of_a_run_is_not_exported(finished, tmp_path):
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    splits = saved.load(tmp_path / "data.npz")
    splits.test.labels[0] = (splits.test.labels[0] + 1) % 12
    (tmp_path / "data.npz").write_bytes(saved.to_bytes(splits))
    with pytest.raises(ExportError, match="has changed since"):
        publish(Run.read(tmp_path), tmp_path / "models")


def test_card_speaks_of_symbols(published):
    said = (published.folder / "README.md").read_text()
    assert "curl --data-binary @symbol.png -H" in said
    assert "dots" not in said
    dotted = msgspec.structs.replace(published.manifest, prepare="dotted")
    assert "Small pieces near the symbol, such as dots, belong to it." in card.to_readme(dotted)


def test_prediction_has_a_name_and_no_digit(served):
    for number in (0, 7, 11):
        response = served.post("/predict", content=picture(symbol(number, 3)), headers={"content-type": "image/png"})
        [prediction] = response.json()["predictions"]
        assert prediction["label"] == NAMES[number]
        assert "digit" not in prediction
        assert len(prediction["probabilities"]) == 12
        assert prediction["reason"] != "several", "the class = consists of two pieces"


def test_whole_numbers_need_the_ten_digits(served):
    response = served.post("/predict?mode=number", content=picture(symbol(1, 1)), headers={"content-type": "image/png"})
    assert response.status_code == 400
    assert response.json()["detail"] == "mode number: the classes of 'my-marks' are not the ten digits; leave mode out"


def test_protocol_and_metrics_name_the_classes(served):
    data = [0] * 784
    asked = {
        "inputs": [{"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": data}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    }
    [output] = served.post("/v2/models/my-marks/infer", json=asked).json()["outputs"]
    assert all(text.split(":")[2] in NAMES for text in output["data"])
    assert 'mnist_predictions_total{label="class 03",model="my-marks"}' in served.get("/metrics").text


def test_picture_as_it_is(published, pictures, tmp_path):
    """A manifest that says as-is is obeyed: a small mark in a corner stays small and in its corner."""
    from tests.serving.models.bundles import change_manifest

    other = tmp_path / "models" / "my-marks" / "1"
    other.mkdir(parents=True)
    for path in published.folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    change_manifest(other, prepare="as-is")
    page = np.zeros((280, 280), np.uint8)
    page[10:30, 20:40] = 255
    with application(repository=tmp_path / "models", model="my-marks") as client:
        response = client.post("/predict?include=image", content=picture(page), headers={"content-type": "image/png"})
        large = client.post(
            "/predict?include=image",
            content=picture(np.kron(page, np.ones((4, 4), np.uint8))),
            headers={"content-type": "image/png"},
        )
    for each in (response, large):
        image = np.array(each.json()["predictions"][0]["image"])
        assert image[1:3, 2:4].min() == 255
        assert image.sum() == 4 * 255


def test_golden_images_have_a_bound():
    truth = np.arange(5000) % 1000
    chosen = golden_images(truth, 1000)
    assert len(chosen) == len(set(truth[chosen])) == 400
    assert len(golden_images(truth % 10, 10)) == 40


def test_run_of_a_folder_says_that_the_data_is_own(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["dataset"]["own"] is True
    assert (finished / "classes.png").exists()


# The Python interface.


def test_run_in_python_has_the_record_the_plots_and_the_path(finished):
    run = training.TrainingRun.read(finished)
    assert run.labels == tuple(sorted(NAMES))
    assert run.accuracy == json.loads((finished / "run.json").read_text())["result"]["test"]["accuracy"]
    assert (run.settings["epochs"], len(run.history)) == (40, 40)
    assert set(run.plots) == {"curves", "confusion", "mistakes", "reliability", "classes"}
    assert run.plots["confusion"]._repr_png_() == (finished / "confusion.png").read_bytes()
    assert os.fspath(run) == str(finished)
    counts = f"{run.test['correct']} of {run.test['images']}"
    assert repr(run) == f"<TrainingRun {finished}: mlp on my-marks, {counts} test images correct>"
    assert f"({run.test['correct']} of {run.test['images']})" in run._repr_html_()


def test_run_is_published_once(published, finished):
    again = export.publish(training.TrainingRun.read(finished), finished.parent / "models", int8=True, progress=False)
    assert (published.is_new, again.is_new) == (True, False)
    assert (again.folder, again.manifest) == (published.folder, published.manifest)


def test_next_version_is_compared_with_the_one_before(finished, tmp_path, capsys):
    first = export.publish(finished, tmp_path, progress=False)
    assert first.compared == ""
    second = export.publish(finished, tmp_path, opset=20)
    test = first.manifest.result["test"]
    errors = "1 error" if test["errors"] == 1 else f"{test['errors']} errors"
    assert second.compared == f"version 1 had {errors} in {test['images']} test images, this one has as many"
    assert f"{second.compared}\n" in capsys.readouterr().out


def test_published_model_shows_its_manifest(published):
    assert repr(published).startswith("my-marks version 1: mlp")
    shown = published._repr_html_()
    assert published.manifest.files["model.onnx"].sha256 in shown
    assert all(name in shown for name in ("onnx", "torchscript", "int8"))


def test_published_model_predicts_in_python_what_the_service_predicts(published, served, pictures):
    model = serving.load(published)
    assert model.labels == tuple(sorted(NAMES))
    found = model.predict(pictures / NAMES[3])
    assert len(found) == 30
    assert found.labels.count(NAMES[3]) > 24
    assert found[0].digit is None
    content = Path(found[0].name).read_bytes()
    response = served.post("/predict", content=content, headers={"content-type": "image/png"})
    [expected] = response.json()["predictions"]
    assert (found[0].label, found[0].reason) == (expected["label"], expected["reason"])
    np.testing.assert_allclose(found.probabilities[0], expected["probabilities"], atol=1e-5)


def test_run_that_is_not_accurate_enough_is_not_published(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["calibration"]["result"]["test"]["correct"] -= 1
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(GateError, match="must be at least 100"):
        export.publish(run, tmp_path / "models", name="marks", min_accuracy=1, progress=False)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"not_worse_than": 7}, "^--not-worse-than 7: "),
        ({"margin": 2}, "^--margin 2: must be from 0 to 1"),
        ({"first": "nothing"}, "^nothing: there is no such folder"),
    ],
)
def test_python_has_the_conditions_of_the_command(finished, tmp_path, options, message):
    with pytest.raises(ExportError, match=message):
        export.publish(finished, tmp_path / "models", progress=False, **options)
    assert not (tmp_path / "models").exists()
