"""``mnist-train review``: counts, disputed pictures and the contact sheet of stored corrections."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from serving.feedback.store import DISPUTED as DISPUTED_BY_SERVICE
from tests.support import application, picture
from training.data.errors import DataError
from training.data.own import review as reviewing
from training.data.own.review import DISPUTED, ShownTo, review, start_for
from training.origin import digest_of

PNG = {"content-type": "image/png"}


def store(folder, *corrections):
    """Send these pictures with their labels to the service."""
    with application(feedback=str(folder)) as client:
        for content, label in corrections:
            sent = client.post(f"/feedback?label={label}&consent=yes", content=picture(content), headers=PNG)
            assert sent.status_code == 201


@pytest.fixture(scope="module")
def corrections(digits, truth, tmp_path_factory):
    """Three right answers, 30 wrong labels of one class, and a picture with two labels."""
    folder = tmp_path_factory.mktemp("corrections") / "feedback"
    right = [(digits[i], truth[i]) for i in range(3)]
    ones = np.flatnonzero(truth == 1)[3:33]
    store(folder, *right, *((digits[i], 4) for i in ones), (digits[7], 3), (digits[7], 8))
    return folder


def test_missing_folder_gets_the_way_out(tmp_path):
    with pytest.raises(DataError, match="there is no such folder; name the folder of mnist-serve --feedback"):
        review(tmp_path / "none", "symbol")


def test_review_counts_and_lists(corrections, run, tmp_path):
    sheet = tmp_path / "sheet.png"
    done = run("mnist-train", "review", corrections, "--sheet", sheet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["label", "pictures", "wrong", "rejected"]
    assert ["4", "30", "30", "0"] in lines
    assert ["7", "1", "0", "0"] in lines
    assert ["all", "33", "30", "0"] in lines
    assert (
        "1 disputed, so the training ignores them. Of each, move the picture of the right label from "
        f"{corrections}/.disputed/LABEL" in (done.stdout)
    )
    assert ["3", "or", "8"] in [line[:3] for line in lines]
    assert (
        f"mnist-train --dataset {corrections} --from packaged --replay mnist --output runs/corrected\n" in done.stdout
    )
    # Six lines of images: one for each of 1, 2, 7 and the disputed picture, and two for the 30 pictures of the 4.
    with Image.open(sheet) as image:
        assert image.height == 4 + 6 * (56 + 4 + 15)


def test_class_may_be_a_question_mark(corrections, tmp_path):
    """It is no rejection if the model had read one, and the rejection of one is no right answer."""
    folder = tmp_path / "feedback"
    shutil.copytree(corrections / "4", folder / "?")
    answers = [{"accepted": False}, {"accepted": True, "label": "?"}]
    for path, answer in zip(sorted(folder.glob("?/*.json")), answers, strict=False):
        path.write_text(json.dumps({"answer": answer}))
    shutil.copytree(corrections / "7", folder / "!")
    [record] = folder.glob("!/*.json")
    record.write_text(json.dumps({"answer": {"accepted": True, "label": "?"}}))
    found = [line.split() for line in review(folder, "symbol").lines()]
    assert ["?", "30", "28", "1"] in found
    assert ["!", "1", "1", "0"] in found


@pytest.mark.parametrize(
    ("model", "places"),
    [
        (("letters", "3"), "--from models/letters/3 --replay ./YOUR-DATA"),
        (("mnist", "2"), "--from models/mnist/2 --replay mnist"),
    ],
)
def test_next_command_starts_from_the_model_that_was_corrected(corrections, run, tmp_path, model, places):
    folder = tmp_path / "feedback"
    shutil.copytree(corrections, folder)
    first, *others = sorted(folder.glob("*/*.json"))
    first.write_text("not a record")
    for path in others:
        record = json.loads(path.read_text())
        # Records of an older service have no digest.
        del record["model_sha256"]
        path.write_text(json.dumps(record | {"model": {"name": model[0], "version": model[1]}}))
    done = run("mnist-train", "review", folder, "--sheet", tmp_path / "sheet.png", cwd=tmp_path)
    assert f"Next           mnist-train --dataset {folder} {places} --output runs/corrected\n" in done.stdout
    assert ("with the pictures that letters was trained with" in done.stdout) == (model[0] == "letters")


def test_pictures_are_prepared_as_for_the_model_that_was_corrected(corrections, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, mine = shutil.copytree(corrections, "feedback"), tmp_path / "models" / "mnist" / "1" / "manifest.json"
    mine.parent.mkdir(parents=True)
    digest = digest_of("packaged")
    said = {"config": {"model": "cnn"}, "dataset": {"prepare": "as-is"}}
    mine.write_text(json.dumps({"files": {"model.onnx": {"sha256": digest}}, "training": said}))
    seen = []
    monkeypatch.setattr(reviewing, "review", lambda folder, how: seen.append(how) or review(folder, how))

    def next_line(*flags):
        done = command("review", folder, "--sheet", "sheet.png", *flags)
        return next(line for line in done.stdout.splitlines() if line.startswith("Next"))

    start = "--from models/mnist/1 --replay mnist"
    assert next_line().endswith(f"{start} --output runs/corrected")
    assert next_line("--prepare", "as-is").endswith(f"{start} --output runs/corrected")
    assert next_line("--prepare", "symbol").endswith(f"{start} --prepare symbol --output runs/corrected")
    mine.unlink()
    (tmp_path / "runs" / "corrected").mkdir(parents=True)
    assert next_line().endswith("--output runs/corrected-2")
    (tmp_path / "runs" / "corrected").rmdir()
    assert next_line("--prepare", "as-is").endswith("--replay mnist --prepare as-is --output runs/corrected")
    assert next_line().endswith("--from packaged --replay mnist --output runs/corrected")
    assert seen == ["as-is", "as-is", "symbol", "symbol", "as-is", "symbol"]


def test_start_is_the_model_with_the_digest(tmp_path, monkeypatch):
    """The packaged model and the first one that a user publishes have the same name and version."""
    monkeypatch.chdir(tmp_path)
    packaged = digest_of("packaged")
    assert start_for(None) == ("packaged", "")
    old, new = ShownTo("mnist", "1", ""), ShownTo("mnist", "1", packaged)
    assert [start_for(each) for each in (old, new)] == [("packaged", "")] * 2
    other = ShownTo("mnist", "1", "f" * 64)
    note = "with the model repository of that service instead of ./YOUR-MODELS"
    assert start_for(other) == ("./YOUR-MODELS/mnist/1", note)

    mine = tmp_path / "models" / "mnist" / "1" / "manifest.json"
    mine.parent.mkdir(parents=True)
    mine.write_text(json.dumps({"files": {"model.onnx": {"sha256": other.digest}}}))
    assert start_for(new) == ("packaged", "")
    assert start_for(other) == ("models/mnist/1", "")
    assert start_for(old) == (
        "models/mnist/1",
        "or --from packaged, if the service had no --repository: these corrections do not say it",
    )
    mine.write_text(json.dumps({"files": {"model.onnx": {"sha256": packaged}}}))
    assert {start_for(each) for each in (old, new)} == {("models/mnist/1", "")}
    mine.write_text("no manifest")
    assert start_for(new) == ("packaged", "")


def test_next_command_is_no_training_that_would_fail(digits, run, tmp_path):
    folder = tmp_path / "feedback"
    store(folder, (digits[0], 7), (digits[0], 1))
    done = run("mnist-train", "review", folder, "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        f"Not ready      {folder}: every picture is disputed; move those of the right labels, as said above\n"
        f"Next           mnist-train review {folder}\n"
    )
    (folder / "7" / "broken.png").write_bytes(b"broken")
    assert "7/broken.png: " in run("mnist-train", "review", folder, "--sheet", tmp_path / "sheet.png").stdout


def test_rejected_picture_is_not_counted_as_wrong(corrections, tmp_path):
    folder = tmp_path / "feedback"
    shutil.copytree(corrections, folder)
    path = next((folder / "4").glob("*.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"answer": record["answer"] | {"accepted": False}}))
    assert ["4", "30", "29", "1"] in [line.split() for line in review(folder, "symbol").lines()]


def test_moved_picture_is_no_longer_disputed(digits, tmp_path):
    store(tmp_path, (digits[0], 7), (digits[0], 1))
    assert review(tmp_path, "symbol").found is None
    [kept, removed] = [next((tmp_path / DISPUTED / label).glob("*.png")) for label in ("7", "1")]
    kept.rename(tmp_path / "7" / kept.name)
    removed.unlink()
    found = review(tmp_path, "symbol")
    assert found.disputed == {}
    assert found.found.labels == ("7",)
    with Image.open(io.BytesIO(found.sheet())) as image:
        assert image.width > 0


def test_folder_without_corrections_is_an_error(tmp_path, run):
    with pytest.raises(DataError, match="holds no pictures in folders"):
        review(tmp_path, "symbol")
    done = run("mnist-train", "review", tmp_path / "none")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_training_passes_over_the_folder_that_the_service_uses():
    assert DISPUTED == DISPUTED_BY_SERVICE
