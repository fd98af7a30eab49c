"""The outline of a digit is filled, and circles, boxes and other digits are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from serving.inference.readings import choose
from serving.models.repository import load
from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.outline import inside_outline
from serving.settings import RELEASE
from tests.support import picture

MAX_PIXELS = 25_000_000
SIDE = 300


def page(shade=255):
    image = Image.new("L", (SIDE, SIDE), shade)
    return image, ImageDraw.Draw(image)


def write(draw, text, inside, edge, breadth):
    middle, font = (SIDE / 2, SIDE / 2), ImageFont.load_default(200)
    draw.text(middle, text, inside, font, "mm", stroke_width=breadth, stroke_fill=edge)


def read(image):
    """Return the label and the reason."""
    model = load(RELEASE, "mnist")
    [digit] = choose(model, [to_mnist_form(picture(np.asarray(image)), MAX_PIXELS)])
    images = digit.image[None]
    output = model.classifier.classify(images)
    return int(output.probabilities.argmax()), model.judge(images, output, {0: digit.reason})[0]


@pytest.mark.parametrize("label", [0, 2, 3, 4, 5, 6, 7, 8, 9])
def test_outlined_digit_is_read(label):
    image, draw = page()
    write(draw, str(label), 255, 20, 4)
    assert read(image) == (label, None)


@pytest.mark.parametrize("inside", [20, 150], ids=["darker than the page", "brighter than the page"])
@pytest.mark.parametrize("label", [0, 2, 3, 4, 5, 6, 7, 8, 9])
def test_digit_with_a_bright_edge_is_read(label, inside):
    image, draw = page(110)
    write(draw, str(label), inside, 255, 12)
    assert read(image) == (label, None)


@pytest.mark.parametrize("frame", ["ellipse", "rectangle"])
@pytest.mark.parametrize("text", ["0", "6"])
def test_what_a_circle_or_a_box_encloses_is_no_outlined_digit(frame, text):
    image, draw = page(0)
    getattr(draw, frame)((30, 30, 270, 270), outline=255, width=5)
    write(draw, text, 255, 255, 2)
    assert inside_outline(np.asarray(image.resize((80, 80)), np.float32)) is None


@pytest.mark.parametrize("text", "0123456789")
def test_plain_digit_has_no_outline(text):
    image, draw = page(0)
    write(draw, text, 255, 255, 4)
    assert inside_outline(np.asarray(image.resize((80, 80)), np.float32)) is None
