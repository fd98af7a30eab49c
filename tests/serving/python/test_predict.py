"""predict() in Python: the same results as the service, for every kind of picture, and how they look."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

import serving
from serving.errors import InputError, InputTooLargeError, PictureError
from serving.python import inputs
from tests.support import PIXELS, ROOT, picture

SEVEN = ROOT / "tests" / "seven.png"


@pytest.fixture(scope="module")
def model():
    return serving.load()


@pytest.fixture(scope="module")
def seven(model):
    [prediction] = model.predict(SEVEN)
    return prediction


@pytest.fixture
def page():
    """A page with a 7, as an array ``[H, W]``."""
    return np.asarray(Image.open(SEVEN).convert("L"))


def test_prediction_is_that_of_the_service(client, seven):
    response = client.post("/predict?include=image", content=SEVEN.read_bytes(), headers={"content-type": "image/png"})
    [expected] = response.json()["predictions"]
    assert (seven.label, seven.digit, seven.accepted, seven.reason) == ("7", 7, True, None)
    assert seven.confidence == expected["confidence"]
    assert list(seven.probabilities.values()) == expected["probabilities"]
    assert seven.image.tolist() == expected["image"]


def test_images_in_mnist_form_are_used_as_they_are(client, model, digits, truth):
    images = digits[:40]
    response = client.post("/predict", content=images.tobytes(), headers=PIXELS)
    expected = [each["probabilities"] for each in response.json()["predictions"]]
    found = model.predict(images)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.labels == [str(label) for label in truth[:40]]
    np.testing.assert_array_equal(found[3].image, images[3])


def test_every_kind_of_picture_gives_the_same_prediction(model, seven, page):
    content = SEVEN.read_bytes()
    same = [
        *(SEVEN, str(SEVEN), content, bytearray(content), memoryview(content), Image.open(SEVEN)),
        *(page, page[..., None], np.stack([page] * 3, axis=-1), page.astype(np.float64)),
        np.stack([page, np.full_like(page, 255)], axis=-1),
        *(page / 255, page.astype(np.int64), Image.fromarray(page).convert("RGBA"), Image.fromarray(page).convert("F")),
    ]
    for each in same:
        [found] = model.predict(each)
        assert found.label == "7", type(each)
        assert abs(found.confidence - seven.confidence) < 0.01
    assert model.predict(same).labels == ["7"] * len(same)
    assert model.predict(iter(same)).labels == ["7"] * len(same)


def test_pil_image_of_any_mode_gives_the_same_prediction(model, seven, page):
    grey = Image.fromarray(page)
    deep = page.astype(np.uint16) * 257
    same = [
        *(grey.convert(mode) for mode in ("1", "LA", "P", "CMYK", "YCbCr", "I", "I;16")),
        *(grey.convert("LA").convert("La"), grey.convert("RGBA").convert("RGBa"), grey.convert("RGB").convert("HSV")),
        Image.frombytes("I;16B", grey.size, deep.astype(">u2").tobytes()),
        Image.fromarray(page.astype(np.int32) * 300 - 1000),
        Image.fromarray(page.astype(np.float32) / 255),
    ]
    found = model.predict(same)
    assert found.labels == ["7"] * len(same)
    assert all(abs(each.confidence - seven.confidence) < 0.01 for each in found)


def test_pil_image_of_floats_has_the_values_of_an_array(model, page):
    with pytest.raises(InputError, match=r"image 1: its pixels are from .* must be in 0\.\.255, or floats in 0..1"):
        model.predict([page, Image.fromarray(page.astype(np.float32) * 257)])


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((28, 28), 1),
        ((3, 28, 28), 3),
        ((2, 1, 28, 28), 2),
        ((0, 28, 28), 0),
        ((28, 28, 3), 1),
        ((28, 28, 28), 28),
        ((40, 30), 1),
        ((40, 30, 1), 1),
        ((40, 30, 2), 1),
        ((40, 30, 4), 1),
        ((5, 40, 30), 5),
        ((2, 40, 30, 3), 2),
    ],
)
def test_shape_of_an_array_says_how_many_pictures_it_holds(model, shape, count):
    found = model.predict(np.zeros(shape, np.uint8))
    assert len(found) == count
    assert all(each.reason == "empty" for each in found)


def test_folder_pattern_and_list_stand_for_their_pictures(model, tmp_path):
    for name in ("b.png", "a.png", "c/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SEVEN.read_bytes())
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/b.png\n{tmp_path}/a.png\n")
    names = lambda found: [Path(each.name).name for each in found]  # noqa: E731
    assert names(model.predict(tmp_path)) == ["a.png", "b.png", "d.png"]
    assert names(model.predict(f"{tmp_path}/*.png")) == ["a.png", "b.png"]
    assert names(model.predict([tmp_path / "list.txt", tmp_path / "c"])) == ["b.png", "a.png", "d.png"]


def test_open_file_is_a_picture(model, monkeypatch):
    with SEVEN.open("rb") as file:
        found = model.predict([file, io.BytesIO(SEVEN.read_bytes())])
    assert (found.labels, [each.name for each in found]) == (["7", "7"], ["image 0", "image 1"])
    assert model.predict(io.BytesIO(SEVEN.read_bytes())).labels == ["7"]
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 10)
    with pytest.raises(InputTooLargeError, match="image: BytesIO has more than 10 bytes"):
        model.predict(io.BytesIO(SEVEN.read_bytes()))


def test_array_of_paths_is_a_list_of_pictures(model):
    for paths in (np.array([str(SEVEN)] * 2), np.array([SEVEN, SEVEN], dtype=object)):
        found = model.predict(paths)
        assert (found.labels, [each.name for each in found]) == (["7", "7"], [str(SEVEN)] * 2)


def test_turned_photo_is_set_upright(model, page, seven):
    """Phones write the direction into the file, and a PIL image keeps it there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(page)).save(buffer, "JPEG", exif=exif, quality=95)
    for turned in (buffer.getvalue(), Image.open(io.BytesIO(buffer.getvalue()))):
        assert model.predict(turned).labels == ["7"]


class Unreadable:
    def read(self, size):
        raise OSError(5, "Input/output error")


class Unusual:
    """As a tensor of torch."""

    def __array__(self, *arguments, **options):
        raise RuntimeError("it requires a gradient")


def test_damaged_camera_data_of_a_pil_image_is_passed_over_as_in_a_file(model, page):
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "PNG", exif=b"Exif\0\0garbage")
    assert model.predict([buffer.getvalue(), Image.open(buffer)]).labels == ["7", "7"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nowhere.png", PictureError, r"nowhere\.png: No such file"),
        ([SEVEN, "nowhere.png"], PictureError, r"nowhere\.png: No such file"),
        (b"text", PictureError, "image: not a picture"),
        ([b""], PictureError, "image 0: the picture is empty"),
        (io.BytesIO(), PictureError, r"image: BytesIO has no bytes left to read; call its seek\(0\) first"),
        ([io.StringIO("text")], InputError, "image 0: StringIO gives str: must give bytes; open it with mode 'rb'"),
        (None, InputError, "pictures: got NoneType: must be a path, the bytes"),
        ([3], InputError, "image 0: got int: must be a path"),
        ([[0] * 28] * 28, InputError, "image 0: got list: must be a path"),
        (np.full((28, 28), 256), InputError, "from 256 to 256: must be in 0..255, or floats in 0..1"),
        (np.full((28, 28), -0.5), InputError, "from -0.5 to -0.5"),
        (np.full((28, 28), np.nan), InputError, "from nan to nan"),
        (np.array(["nowhere.png"]), PictureError, r"nowhere\.png: No such file"),
        (np.full((28, 28), "7"), InputError, "has the type <U1: must be"),
        (np.zeros(784, np.uint8), InputError, r"has the shape \[784\]: must be \[28, 28\]"),
        ([np.zeros((4, 28), np.uint8), np.zeros((1, 2, 3, 4, 5), np.uint8)], InputError, "image 1: has the shape"),
        ("a\0.txt", PictureError, "embedded null byte"),
        ("\ud800.png", InputError, r"'\\ud800.png': is no path: surrogates not allowed"),
        (Unreadable(), PictureError, "image: Unreadable cannot be read: .*Input/output error"),
        ([Unusual()], InputError, "image 0: Unusual cannot become an array of NumPy: it requires a gradient"),
        (np.zeros((6000, 6000), np.uint8), InputTooLargeError, "image: the picture has 6000x6000 pixels"),
    ],
)
def test_error_names_the_picture_and_the_rule(model, given, error, message):
    with pytest.raises(error, match=message):
        model.predict(given)


def test_damaged_pil_image_is_an_input_error(model):
    content = picture(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
    with pytest.raises(PictureError, match="image 0: the picture is damaged"):
        model.predict([Image.open(io.BytesIO(content[:2000]))])


def test_results_are_read_like_a_list(model, page):
    found = model.predict([page, np.zeros((28, 28), np.uint8), page])
    assert len(found) == 3
    assert found[-1].label == "7"
    assert isinstance(found[1:], serving.Predictions)
    assert [each.name for each in found] == ["image 0", "image 1", "image 2"]
    assert found.probabilities.shape == (3, 10)
    assert found[0].best(2)[0] == ("7", found[0].confidence)
    assert len(found[0].best(100)) == 10


def test_probabilities_have_a_column_for_each_class_also_without_a_picture(model):
    for found in (model.predict([]), model.predict(np.zeros((0, 28, 28), np.uint8)), model.predict([SEVEN])[:0]):
        assert found.probabilities.shape == (0, 10)


def test_results_are_shown_as_text(model, page):
    found = model.predict([SEVEN, np.zeros((28, 28), np.uint8)])
    assert repr(found[0]) == "<Prediction '7' with >99.99% confidence, accepted>"
    assert repr(found[1]).endswith("rejected: empty>")
    head, first, second = repr(found).splitlines()
    assert head.split() == ["name", "label", "confidence", "accepted"]
    assert first.split() == [str(SEVEN), "7", ">99.99%", "yes"]
    assert second.split()[-1] == "empty"
    many = model.predict(np.zeros((1234, 28, 28), np.uint8))
    assert repr(many).splitlines()[-1] == "… and 1,204 more"
    assert len(many._repr_html_()) < 50_000


def test_results_in_a_notebook_escape_what_a_file_or_a_class_is_called(seven):
    from dataclasses import replace

    evil = replace(
        seven, name="<script>a</script>.png", label="<b>&", probabilities={"<b>&": 0.9, "<script>": 0.1}, reason=None
    )
    for shown in (evil._repr_html_(), serving.Predictions([evil])._repr_html_()):
        assert "<script>" not in shown
        assert "&lt;b&gt;&amp;" in shown
        assert re.search(r'<img src="data:image/png;base64,[\w+/=]+"', shown)


def test_numbers_are_those_of_the_service(client, model, page):
    content = picture(np.hstack([page, page]))
    response = client.post("/predict?mode=number", content=content, headers={"content-type": "image/png"})
    [expected] = response.json()["predictions"]
    for given in (content, [Image.open(io.BytesIO(content))], np.hstack([page, page])):
        [found] = model.read_numbers(given)
        assert (found.text, found.accepted, found.width) == (expected["text"], expected["accepted"], expected["width"])
        assert json.loads(msgspec.json.encode(found.lines)) == expected["lines"]
    assert found.text == "77"
    verdict = f"rejected: {found.reason}" if found.reason else "accepted"
    assert repr(found) == f"<Numbers '77', {verdict}>"


def test_image_in_mnist_form_is_a_number_too(model, digits):
    assert [found.text for found in model.read_numbers(digits[:2])] == ["7", "2"]


def test_numbers_of_a_picture_that_cannot_be_read_are_an_error_that_names_it(model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"bad\.png: "):
        model.read_numbers([SEVEN, tmp_path / "bad.png"])
