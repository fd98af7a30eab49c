"""``mnist-train review``: counts, disputed pictures and the contact sheet of stored corrections."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from serving.feedback import DISPUTED as DISPUTED_BY_SERVICE
from tests.support import application, picture
from training.data.own.review import DISPUTED, review
from training.data.sources import DataError

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


def test_review_counts_and_lists(corrections, run, tmp_path):
    sheet = tmp_path / "sheet.png"
    done = run("mnist-train", "review", corrections, "--sheet", sheet)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["label", "pictures", "misread", "rejected"]
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
        path.write_text(json.dumps(record | {"model": {"name": model[0], "version": model[1]}}))
    done = run("mnist-train", "review", folder, "--sheet", tmp_path / "sheet.png")
    assert f"Next           mnist-train --dataset {folder} {places} --output runs/corrected\n" in done.stdout
    assert ("with the pictures that letters was trained with" in done.stdout) == (model[0] == "letters")


def test_rejected_picture_is_not_counted_as_misread(corrections, tmp_path):
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
