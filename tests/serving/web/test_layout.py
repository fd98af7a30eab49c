"""The layout of the page in windows of many sizes."""

from __future__ import annotations

import itertools

import pytest

from tests.serving.web.handwriting import FIVE, draw
from tests.serving.web.page import expect, predicted_digit, screenshot

SIZES = {
    "phone": (360, 740),
    "phone on its side": (740, 360),
    "small laptop": (1366, 625),
    "window at 200 %": (683, 312),
    "narrow tablet": (768, 1024),
    "narrow window": (800, 600),
    "small window": (1000, 700),
    "desktop": (1920, 1080),
}
RECTANGLES = """(selector) => [...document.querySelectorAll(selector)].map((part) => part.getBoundingClientRect())
    .filter(({ width, height }) => width && height).map(({ left, top, right, bottom }) => [left, top, right, bottom])"""


def rectangles(page, selector):
    return page.evaluate(RECTANGLES, selector)


def overlap(one, other):
    return min(one[2], other[2]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1


@pytest.fixture(scope="module")
def drawn(browser, url):
    """A page with a drawing, its prediction, and one earlier drawing."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto(url)
    for _ in range(2):
        draw(page, FIVE)
        assert predicted_digit(page) == "5"
        page.locator("#clear").click()
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    expect(page.locator("#model")).to_be_visible()
    yield page
    page.close()


@pytest.mark.parametrize("size", SIZES)
def test_nothing_overlaps_and_sheet_and_tools_fit_the_window(drawn, size):
    width, height = SIZES[size]
    drawn.set_viewport_size({"width": width, "height": height})
    drawn.locator("h1").scroll_into_view_if_needed()
    screenshot(drawn, f"layout {size}")
    assert drawn.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for parts in ("main > section", "#samples button, #history button", "#drawing > *", ".result > *, #bars"):
        for one, other in itertools.combinations(rectangles(drawn, parts), 2):
            assert not overlap(one, other), (parts, one, other)
    for section in ("#more", "#drawing", "#prediction"):
        [outer] = rectangles(drawn, section)
        for inner in rectangles(drawn, f"{section} *:not(path, svg)"):
            assert outer[0] - 1 <= inner[0], (section, inner)
            assert inner[2] <= outer[2] + 1, (section, inner)
    [sheet] = rectangles(drawn, "#sheet")
    [tools] = rectangles(drawn, "#drawing .tools")
    assert tools[3] - sheet[1] <= height
    # A finger can scroll the page beside the sheet, or above and below it.
    assert sheet[2] - sheet[0] < width - 20
    assert sheet[3] - sheet[1] < height - 100


def test_clear_and_history_give_the_focus_to_the_sheet_and_delete_clears(drawn):
    focused = "document.activeElement.id"
    drawn.locator("#clear").click()
    assert drawn.evaluate(focused) == "sheet"
    drawn.locator("#history button").first.click()
    assert drawn.evaluate(focused) == "sheet"
    drawn.keyboard.press("Delete")
    expect(drawn.locator("#clear")).to_be_disabled()
    assert drawn.evaluate(focused) == "sheet"


def test_guess_is_pale_until_the_pen_lifts(drawn):
    drawn.set_viewport_size({"width": 1280, "height": 860})
    box = drawn.locator("#sheet").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in FIVE[0]]
    drawn.mouse.move(*at[0])
    drawn.mouse.down()
    for point in at[1:]:
        drawn.mouse.move(*point)
    prediction = drawn.locator("#prediction")
    expect(prediction).to_have_attribute("aria-busy", "false")
    expect(prediction).to_have_attribute("data-state", "guess")
    expect(drawn.locator("#confidence")).to_have_text("A guess while you draw")
    drawn.mouse.up()
    expect(prediction).not_to_have_attribute("data-state", "guess")
    assert "guess" not in drawn.locator("#confidence").inner_text()
