"""A filled shape stays filled at every size, and a shadow or a card that is as broad is not taken for ink."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serving.pictures.close_up import find_close_up
from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.morphology import grey_erosion
from serving.pictures.normalize import BOX, centre_in_frame
from serving.pictures.pieces import find_pieces
from serving.pictures.shapes import without_shapes
from tests.serving.pictures.files import encoded

SIDES = (28, 40, 64, 96, 100, 150, 280, 400, 800)
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# Not at the middle of the page: a picture of 28x28 pixels with a centred shape is taken for an image of MNIST.
PLACE = 0.44
TURN = np.linspace(0, 2 * np.pi, 10, endpoint=False)
SHAPES = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "disc": [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 90)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "star": [(r * np.sin(angle), -r * np.cos(angle)) for r, angle in zip((1, 0.45) * 5, TURN, strict=True)],
}


def page_with(shape, side, share, place=PLACE, ink=0, outline=None):
    """Return a white page with a shape whose longer side is ``share`` of the page."""
    # The edges are smooth. On a large page, that makes no difference and takes long.
    fine = 4 if side < 200 else 1
    page = Image.new("L", (side * fine, side * fine), 255)
    points = [tuple(side * fine * (place + share / 2 * np.array(point))) for point in SHAPES[shape]]
    canvas = ImageDraw.Draw(page)
    canvas.polygon(points, ink)
    if outline is not None:
        canvas.line([*points, points[0]], outline, round(0.03 * side * fine))
    return np.asarray(page.reduce(fine))


def check_filled(digit, shape, length):
    """Check that the shape is filled up to its edges and has the area that it has when drawn into MNIST's box.

    Args:
        length: of the shape in the picture, in pixels. The edges of a shape of few pixels are blurred.
    """
    ideal = 255.0 - page_with(shape, BOX, 1, place=0.5).astype(np.float32)
    frame = centre_in_frame(ideal).astype(np.float32)
    inner = grey_erosion(frame, 7 + 2 * round(BOX / length)) > 250
    assert digit.reason is None
    assert digit.image[inner].min(initial=255) > 0.7 * 255
    least, most = (0.75, 1.15) if length > 10 else (0.5, 1.3)
    assert least < digit.image.sum() / frame.sum() < most


@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_filled_at_every_size(shape, bright):
    for side in SIDES:
        for share in SHARES:
            page = page_with(shape, side, share)
            digit = to_mnist_form(encoded(Image.fromarray(255 - page if bright else page), "PNG"), 10**6)
            check_filled(digit, shape, share * side)


@pytest.mark.parametrize("side", [100, 280, 800])
@pytest.mark.parametrize("shape", ["square", "disc"])
def test_a_scanned_shape_and_one_with_an_outline_are_filled(shape, side):
    random = np.random.default_rng(0)
    for share in SHARES:
        scan = 20 + 0.85 * page_with(shape, side, share) + random.normal(0, 3, (side, side))
        check_filled(
            to_mnist_form(encoded(Image.fromarray(scan.clip(0, 255).astype(np.uint8)), "JPEG"), 10**6),
            shape,
            share * side,
        )
        outlined = page_with(shape, side, share, ink=30, outline=0)
        check_filled(to_mnist_form(encoded(Image.fromarray(outlined), "PNG"), 10**6), shape, share * side)


def test_a_stroke_on_a_card_is_found():
    page = np.full((90, 90), 255, np.float32)
    page[10:80, 10:80] = 180
    page[30:60, 42:48] = 0
    ink = find_close_up(page).ink
    rows, columns = np.nonzero(ink > 0.5 * ink.max())
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (30, 6)


def test_a_shadow_inside_a_photo_is_no_ink():
    y, x = np.mgrid[:90, :90] - 45
    light = 1 - 0.5 / (1 + np.exp((np.hypot(y, x) - 35) / 2))
    page = np.full((90, 90), 230, np.float32)
    page[30:60, 42:48] = 40
    page = page * light + np.random.default_rng(0).normal(0, 2, page.shape)
    ink = find_close_up(page.astype(np.float32)).ink
    rows, columns = np.nonzero(ink > 0.5 * ink.max())
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (30, 6)


@pytest.mark.parametrize(("side", "is_searched"), [(8, True), (24, False)])
def test_page_of_many_pieces_is_not_searched_for_shapes(monkeypatch, side, is_searched):
    """The outline of each piece would be measured."""
    searched = []
    monkeypatch.setattr("serving.pictures.shapes._may_be_solid", lambda *_: searched.append(True))
    dot = np.pad(np.full((3, 3), 255, np.float32), [(0, 3), (0, 3)])
    pieces = find_pieces(np.tile(dot, (side, side)))
    assert len(without_shapes(pieces)) == side**2
    assert bool(searched) == is_searched
