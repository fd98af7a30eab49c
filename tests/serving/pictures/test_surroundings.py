"""What surrounds a digit on a page is removed, and the network chooses between the readings of a picture."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from benchmarks.pages import PAGES
from serving.errors import DeadlineExceededError
from serving.inference import readings
from serving.inference.readings import choose
from serving.models.repository import load
from serving.pictures.desk import without_desk
from serving.pictures.mnist_form import Digit, to_mnist_form
from serving.pictures.pieces import Piece
from serving.pictures.process import READING_BYTES, parse, respond
from serving.settings import RELEASE
from tests.support import picture

MAX_PIXELS = 25_000_000
# A picture of each kind, named after the kind and the digit. benchmarks/pages.py and benchmarks/scenes.py made them.
PICTURES = sorted(Path(__file__).with_name("pages").iterdir())


@pytest.fixture(scope="module")
def model():
    return load(RELEASE, "mnist")


def read(model, *contents):
    """Return the label and the reason for each picture file."""
    digits = choose(model, [to_mnist_form(content, MAX_PIXELS) for content in contents])
    images = np.stack([digit.image for digit in digits])
    output = model.classifier.classify(images)
    reasons = model.judge(images, output, {i: digit.reason for i, digit in enumerate(digits)})
    return list(zip(output.probabilities.argmax(axis=1).tolist(), reasons, strict=True))


@pytest.mark.parametrize("path", PICTURES, ids=[path.stem for path in PICTURES])
def test_picture_of_each_kind_is_read_and_accepted(model, path):
    assert read(model, path.read_bytes()) == [(int(path.stem[-1]), None)]


@pytest.mark.parametrize("kind", ["box of a form", "sheet on a table", "squared paper, lines of 40%"])
def test_digits_in_their_surroundings_are_read(model, digits, truth, kind):
    random = np.random.default_rng(0)
    labels = [label for label, _ in read(model, *(PAGES[kind](digit, random) for digit in digits[:30]))]
    assert (labels == truth[:30]).sum() >= 28


def page_with(digit, **lines):
    """Return white paper of 240x240 pixels with the digit, and with dark rectangles: top, left, bottom, right."""
    page = np.full((240, 240), 255, np.uint8)
    page[36:204, 36:204] = 255 - np.kron(digit, np.ones((6, 6), np.uint8))
    for top, left, bottom, right in lines.values():
        page[top:bottom, left:right] = 40
    return page


def test_only_a_page_with_surroundings_has_other_readings(digits):
    for digit in digits[:50]:
        assert to_mnist_form(picture(digit), MAX_PIXELS).others == ()
    assert sum(len(to_mnist_form(picture(page_with(digit)), MAX_PIXELS).others) for digit in digits[:20]) <= 3
    desk = page_with(digits[0], desk=(0, 0, 240, 20))
    assert to_mnist_form(picture(desk), MAX_PIXELS).others


@pytest.mark.parametrize("turned", [0, 12], ids=["straight", "turned"])
def test_digit_on_a_small_note_is_read(model, digits, truth, turned):
    pages = []
    for digit in digits[:20]:
        ink = np.kron(np.pad(digit, 4), np.ones((3, 3)))
        note = Image.fromarray((230 - 0.8 * ink).astype(np.uint8))
        page = Image.new("L", (320, 240), 100)
        opaque = Image.new("L", note.size, 255).rotate(turned, Image.Resampling.BICUBIC, expand=True)
        page.paste(note.rotate(turned, Image.Resampling.BICUBIC, expand=True), (40, 60), opaque)
        page.paste(170, (230, 30, 242, 200))  # a pen beside the note
        pages.append(picture(np.asarray(page)))
    expected = [(int(label), None) for label in truth[:20]]
    assert sum(found == true for found, true in zip(read(model, *pages), expected, strict=True)) >= 18


@pytest.mark.parametrize("squared", [False, True], ids=["ruled", "squared"])
def test_small_digit_on_a_large_photo_of_lined_paper_is_read(model, digits, truth, squared):
    random = np.random.default_rng(0)
    pages = []
    for digit in digits[:20]:
        page = np.full((900, 1100), 240, np.float32)
        page[::36] = page[1::36] = 190
        if squared:
            page[:, ::36] = page[:, 1::36] = 190
        top, left = random.integers(100, 700, 2)
        ink = np.kron(digit, np.ones((2, 2))) / 255
        part = page[top : top + 56, left : left + 56]
        part += ink * (40 - part)
        page += random.normal(0, 3, page.shape)
        pages.append(picture(page.clip(0, 255).astype(np.uint8), "JPEG"))
    expected = [(int(label), None) for label in truth[:20]]
    assert sum(found == true for found, true in zip(read(model, *pages), expected, strict=True)) >= 17


@pytest.mark.parametrize(("left", "top"), [(20, 40), (110, 90), (150, 10)])
def test_ring_that_a_cup_has_left_is_no_part_of_the_digit(model, digits, truth, left, top):
    random = np.random.default_rng(0)
    pages = []
    for digit in digits[:20]:
        page = page_with(digit)
        stain = Image.new("L", (240, 240))
        ImageDraw.Draw(stain).ellipse((left, top, left + 110, top + 110), outline=255, width=7)
        photo = np.minimum(page, 250 - 0.4 * np.asarray(stain)) + random.normal(0, 2, page.shape)
        pages.append(picture(photo.clip(0, 255).astype(np.uint8)))
    expected = [(int(label), None) for label in truth[:20]]
    assert sum(found == true for found, true in zip(read(model, *pages), expected, strict=True)) >= 18


def test_underline_that_touches_the_digit_is_left_out(model, digits, truth):
    pages = []
    for digit in digits[:40]:
        rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
        bottom, left, right = (36 + 6 * int(side) for side in (rows[-1] + 1, columns[0], columns[-1] + 1))
        pages.append(picture(page_with(digit, line=(bottom - 3, left - 25, bottom + 4, right + 25))))
    expected = [(int(label), None) for label in truth[:40]]
    assert sum(found == true for found, true in zip(read(model, *pages), expected, strict=True)) >= 30


def test_letter_with_a_broad_foot_is_no_digit(model):
    letters = []
    for letter in "AFHKNRTVX":
        page = Image.new("L", (200, 240), 255)
        pen = ImageDraw.Draw(page)
        pen.text((100, 200), letter, 0, ImageFont.load_default(160), anchor="ms")
        pen.rectangle((20, 198, 180, 204), 0)
        letters.append(picture(np.asarray(page)))
    assert all(reason is not None for _, reason in read(model, *letters))


def test_edge_of_a_desk_on_two_sides_is_not_taken_for_a_7(model, digits, truth):
    pages = [page_with(digit, top=(0, 0, 12, 240), right=(0, 226, 240, 240)) for digit in digits[:40]]
    read_as = read(model, *map(picture, pages))
    wrong = [label for (label, reason), true in zip(read_as, truth, strict=False) if label != true and reason is None]
    assert wrong == []


def test_text_and_faces_have_no_reading_without_their_surroundings(model):
    text = Image.new("L", (300, 200), 255)
    font = ImageFont.load_default(36)
    ImageDraw.Draw(text).multiline_text((20, 20), "what people\nsend is no\ndigit", 0, font, spacing=16)
    face = Image.new("L", (200, 200), 255)
    pen = ImageDraw.Draw(face)
    pen.ellipse((20, 20, 180, 180), outline=0, width=8)
    pen.arc((60, 60, 140, 145), 20, 160, 0, 10)
    for x in (75, 125):
        pen.ellipse((x - 9, 70, x + 9, 90), 0)
    for page in (text, face):
        content = picture(np.asarray(page))
        assert to_mnist_form(content, MAX_PIXELS).others == ()
        assert read(model, content)[0][1] is not None


@pytest.mark.parametrize(("rings", "is_read_alone"), [(6, True), (12, False)])
def test_one_of_many_pieces_has_no_reading_of_its_own(digits, rings, is_read_alone):
    """A pattern of a dozen pieces is a picture, and the digit may be a part of it."""
    page = np.full((300, 300), 255, np.uint8)
    page[20:132, 94:206] = 255 - np.kron(digits[3], np.ones((4, 4), np.uint8))
    image = Image.fromarray(page)
    for i in range(rings):
        x, y = 20 + i % 6 * 46, 150 + i // 6 * 40
        ImageDraw.Draw(image).ellipse((x, y, x + 26, y + 26), outline=40, width=7)
    found = to_mnist_form(picture(np.asarray(image)), MAX_PIXELS)
    assert found.reason == "several"
    assert any(other.reason is None for other in found.others) == is_read_alone


def test_tilted_lines_are_removed(model, digits, truth):
    """The page is turned by 2 degrees, as a hand holds a camera."""
    pages = []
    for digit in digits[:10]:
        page = page_with(digit, **{str(y): (y, 0, y + 2, 240) for y in range(10, 240, 40)})
        turned = Image.fromarray(page).rotate(2, Image.Resampling.BICUBIC, fillcolor=255)
        pages.append(picture(np.asarray(turned.crop((12, 12, 228, 228)))))
    assert ([label for label, _ in read(model, *pages)] == truth[:10]).sum() >= 9


def test_two_digits_stay_several_if_one_reaches_the_border(model, digits):
    crops = []
    for a, b in zip(digits[:40], digits[40:80], strict=True):
        page = 255 - np.kron(np.hstack([a, b]), np.ones((4, 4), np.uint8))
        rows, columns = np.nonzero((page < 128).any(axis=1))[0], np.nonzero((page < 128).any(axis=0))[0]
        crops.append(picture(page[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
    first = [to_mnist_form(crop, MAX_PIXELS).reason for crop in crops]
    chosen = [reason for _, reason in read(model, *crops)]
    assert first.count("several") - chosen.count("several") <= 1


def test_readings_cross_the_border_of_the_process(digits):
    content = picture(page_with(digits[0], desk=(0, 0, 240, 20)))
    kind, sent = respond(content, MAX_PIXELS)
    result = parse(kind, sent)
    expected = to_mnist_form(content, MAX_PIXELS)
    assert len(sent) == READING_BYTES * (1 + len(expected.others))
    assert result.reason == expected.reason
    for found, wanted in zip([result, *result.others], [expected, *expected.others], strict=True):
        np.testing.assert_array_equal(found.image, wanted.image)
        assert found.properties == wanted.properties


def test_network_chooses_the_reading_that_is_a_digit(model, digits):
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    [chosen] = choose(model, [Digit(noise, others=(Digit(noise.T), Digit(digits[0])))])
    np.testing.assert_array_equal(chosen.image, digits[0])
    [chosen] = choose(model, [Digit(noise, "several", others=(Digit(digits[0]),))])
    assert chosen.reason is None
    [chosen] = choose(model, [Digit(noise, "several", others=(Digit(noise.T),))])
    assert chosen.reason == "several"


def test_unsure_reading_does_not_outweigh_several_digits(model, digits, monkeypatch):
    first = Digit(np.rot90(digits[1]), "several", others=(Digit(digits[0]),))
    assert choose(model, [first])[0].reason is None
    monkeypatch.setattr(readings, "LEAST_CONFIDENCE", 1.1)
    assert choose(model, [first])[0].reason == "several"


def test_whole_picture_of_a_symbol_comes_first(model, digits, monkeypatch):
    """A reading that leaves a piece out may lack a part of the symbol. A digit has no such parts."""
    part, whole = digits[:2][model.classifier.classify(digits[:2]).novelty.argsort()]
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)

    def chosen(first, reason=None):
        [found] = choose(model, [Digit(first, reason, others=(Digit(part),))])
        return found

    np.testing.assert_array_equal(chosen(whole).image, part)
    monkeypatch.setattr(model, "digits", ())
    np.testing.assert_array_equal(chosen(whole).image, whole)
    np.testing.assert_array_equal(chosen(noise).image, part)
    np.testing.assert_array_equal(chosen(whole, "several").image, part)
    monkeypatch.setattr(model, "allows_several", True)
    np.testing.assert_array_equal(chosen(whole, "several").image, whole)
    assert chosen(whole, "several").reason is None


def test_choice_ends_at_the_deadline(model, digits):
    with pytest.raises(DeadlineExceededError):
        choose(model, [Digit(digits[0], others=(Digit(digits[1]),))], time.monotonic() - 1)


def test_page_of_many_pieces_is_not_searched_for_boxes(monkeypatch):
    """Each piece would be compared with each other piece."""
    monkeypatch.setattr(Piece, "contains", None)
    dot = np.pad(np.zeros((3, 3), np.float32), [(0, 3), (0, 3)], constant_values=255)
    page = np.pad(np.tile(dot, (24, 24)), 24, constant_values=255)
    page[:, :12] = 0
    assert without_desk(page) is not None
