"""The switch on the page for whole numbers."""

from __future__ import annotations

import re

from tests.serving.web.handwriting import FIVE, ONE, TWO, draw
from tests.serving.web.page import (
    change_prediction,
    copy_curl_command,
    expect,
    predicted_digit,
    screenshot,
    wait_for_prediction,
)


def side_by_side(*styles):
    """Return the strokes of several digits in a row."""
    width = 1 / len(styles)
    return [stroke * [width, 0.4] + [i * width, 0.3] for i, style in enumerate(styles) for stroke in style]


def boxes(page):
    """Return left, top, right and bottom of each box as shares of the drawing area."""
    sheet = page.locator("#sheet").bounding_box()
    for item in page.locator("#boxes li").all():
        box = item.bounding_box()
        left, top = (box["x"] - sheet["x"]) / sheet["width"], (box["y"] - sheet["y"]) / sheet["height"]
        yield left, top, left + box["width"] / sheet["width"], top + box["height"] / sheet["height"]


def test_switch_reads_whole_numbers_and_shows_their_boxes(url, visit):
    page = visit(url)
    draw(page, side_by_side(TWO, ONE, FIVE))
    wait_for_prediction(page)
    expect(page.locator("#confidence")).to_have_text("More than one digit; switch on “Read whole numbers”")
    page.locator("#number").check()
    expect(page.locator("#digit")).to_have_text("215")
    wait_for_prediction(page)
    expect(page.locator("#boxes li")).to_have_text(["2", "1", "5"])
    for i, (left, top, right, bottom) in enumerate(boxes(page)):
        assert i / 3 - 0.02 < left < right < (i + 1) / 3 + 0.02
        assert 0.28 < top < bottom < 0.72
    assert "predict?mode=number" in copy_curl_command(page)
    for part in ("#model-input", "#bars"):
        expect(page.locator(part)).to_be_hidden()
    screenshot(page, "number")
    page.locator("#clear").click()
    expect(page.locator("#boxes li")).to_have_count(0)
    page.locator("#number").uncheck()
    expect(page.locator("#model-input")).to_be_visible()
    draw(page, FIVE)
    assert predicted_digit(page) == "5"


def test_link_and_reload_keep_the_switch(url, visit):
    page = visit(url)
    page.locator("#number").check()
    page.wait_for_url(re.compile("#n=$"))
    page.reload()
    expect(page.locator("#number")).to_be_checked()
    draw(page, side_by_side(TWO, ONE, FIVE))
    page.wait_for_url(re.compile("#n=[0-9a-z-]+$"))
    other = visit(page.url)
    expect(other.locator("#number")).to_be_checked()
    expect(other.locator("#digit")).to_have_text("215")
    other.locator("#number").uncheck()
    other.wait_for_url(re.compile("#d="))
    other.reload()
    expect(other.locator("#confidence")).to_have_text(re.compile("More than one digit"))
    expect(other.locator("#number")).not_to_be_checked()


def test_picture_without_a_line_says_only_that_there_is_no_digit(url, visit):
    page = visit(url)
    page.locator("#number").check()
    change_prediction(page, accepted=False, reason="no digit", text="", lines=[])
    expect(page.locator("#confidence")).to_have_text("Seems to be no digit")
