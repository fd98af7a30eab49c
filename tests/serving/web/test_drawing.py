"""Drawing with a mouse, a finger and a stylus; undo, redo, and the history of drawings."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.serving.web.handwriting import (
    FIVE,
    ONE,
    STYLES,
    THREE,
    TWO,
    draw,
    draw_at_once,
    draw_with_finger,
    draw_with_stylus,
    fragment_of,
    on_screen,
    read_shapes,
    send_touch,
    vary,
)
from tests.serving.web.page import (
    copy_curl_command,
    count_ink,
    expect,
    predicted_digit,
    screenshot,
    wait_for_prediction,
)
from tests.support import until

SHAPES_TO_MISREAD = read_shapes()


def test_ten_digits_in_several_handwritings(url, visit):
    page = visit(url)
    random = np.random.default_rng(0)
    drawn, missed = 0, []
    for digit, styles in STYLES.items():
        for style in [*styles, *styles]:
            page.locator("#width").fill(str(random.integers(4, 11)))
            draw_at_once(page, vary(style, random))
            drawn += 1
            predicted = predicted_digit(page)
            if predicted != str(digit):
                missed.append((digit, predicted))
                screenshot(page, f"missed-{digit}-{drawn}")
            page.locator("#clear").click()
            expect(page.locator("#digit")).to_be_empty()
    assert len(missed) <= 0.05 * drawn, missed


@pytest.mark.parametrize("name", SHAPES_TO_MISREAD)
def test_shapes_that_are_easy_to_misread_in_ten_handwritings(url, visit, name):
    label, style = SHAPES_TO_MISREAD[name]
    page = visit(url)
    random, right = np.random.default_rng(1), 0
    for _ in range(10):
        fragment = fragment_of(vary(style, random), random.integers(4, 9) / 100)
        with page.expect_response("**/predict?include=image") as response:
            page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
        [prediction] = response.value.json()["predictions"]
        # Some of them are not accepted. Then the page says what they look most like.
        right += prediction["label"] == label if label else not prediction["accepted"]
    assert right >= 9


def test_prediction_appears_before_the_stroke_ends(url, visit):
    page = visit(url)
    [stroke] = on_screen(page, THREE)
    page.mouse.move(*stroke[0])
    page.mouse.down()
    for point in stroke[1:]:
        page.mouse.move(*point)
    assert predicted_digit(page) == "3"
    page.mouse.up()


@pytest.mark.parametrize("width", [360, 1280])
def test_finger_draws_and_does_not_scroll(url, visit, width):
    page = visit(url, width, has_touch=True, is_mobile=width < 500)
    for digit in (5, 8):
        draw_with_finger(page, STYLES[digit][0])
        assert predicted_digit(page) == str(digit)
        page.locator("#clear").tap()
    assert page.evaluate("scrollY") == 0


def test_stylus_draws(url, visit):
    page = visit(url, has_touch=True)
    draw_with_stylus(page, TWO)
    assert predicted_digit(page) == "2"


def test_second_finger_draws_nothing(url, visit):
    page = visit(url, has_touch=True)
    session = page.context.new_cdp_session(page)
    [stroke] = on_screen(page, ONE)
    [[second]] = on_screen(page, [[(0.9, 0.9)]])
    for i, point in enumerate(stroke):
        fingers = [point, second + i] if i > 2 else [point]
        send_touch(session, "Start" if i in (0, 3) else "Move", *fingers)
    send_touch(session, "End")
    assert predicted_digit(page) == "1"


def test_undo_redo_clear_and_history(url, visit):
    page = visit(url)
    undo, redo, clear = (page.locator(f"#{name}") for name in ("undo", "redo", "clear"))
    for button in (undo, redo, clear):
        expect(button).to_be_disabled()
    seven, bar = STYLES[7][1]
    draw(page, [seven, bar])
    assert predicted_digit(page) == "7"
    undo.click()
    wait_for_prediction(page)
    undo.click()
    expect(page.locator("#digit")).to_be_empty()
    expect(undo).to_be_disabled()
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+y")
    assert predicted_digit(page) == "7"
    expect(redo).to_be_disabled()

    clear.click()
    expect(page.locator("#digit")).to_be_empty()
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    page.get_by_role("button", name="Sample 3").click()
    assert predicted_digit(page) == "3"
    kept = page.locator("#history button")
    expect(kept).to_have_count(2)
    expect(kept.first).to_have_accessible_name(re.compile(r"Restore this drawing: 5, .* confidence\."))
    kept.last.click()
    assert predicted_digit(page) == "7"
    # The 7 keeps its one entry. The 3, which it replaced, becomes a new entry.
    clear.click()
    expect(kept).to_have_count(3)
    page.keyboard.press("Control+z")
    assert predicted_digit(page) == "7"
    screenshot(page, "history")


def test_history_keeps_eight_drawings(url, visit):
    page = visit(url)
    for sample in range(10):
        page.get_by_role("button", name=f"Sample {sample}").click()
        wait_for_prediction(page)
    expect(page.locator("#history li")).to_have_count(8)


def test_pen_width_changes_the_stroke(url, visit):
    page = visit(url)
    drawn = []
    for width in ("3", "14"):
        page.locator("#width").fill(width)
        draw(page, ONE)
        wait_for_prediction(page)
        drawn.append(count_ink(page))
        page.locator("#clear").click()
    assert 3 < drawn[1] / drawn[0] < 6


def test_drawing_keeps_the_screen_resolution_when_the_window_changes(url, visit):
    page = visit(url, device_scale_factor=2)
    draw(page, THREE)
    assert predicted_digit(page) == "3"
    curl = page.locator("#curl")
    expect(curl).to_have_value(re.compile("base64"))
    before = curl.input_value()
    page.set_viewport_size({"width": 360, "height": 740})
    side = page.evaluate("2 * document.querySelector('#sheet').clientWidth")
    expect(page.locator("#sheet")).to_have_js_property("width", side)
    page.emulate_media(color_scheme="dark")
    until(lambda: count_ink(page) > 1000)  # The page draws it anew with its next frame.
    assert copy_curl_command(page) == before
