"""Keeping a drawing: its link, a reload, the saved picture, and the explanation of its prediction."""

from __future__ import annotations

import io
import re
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from tests.serving.web.handwriting import EIGHT, STYLES, THREE, draw, draw_at_once
from tests.serving.web.page import count_ink, expect, predicted_digit, wait_for_prediction
from tests.support import ROOT

FRAGMENT = re.compile(r"#d=[0-9a-z-]+$")
IMAGE = "[...document.querySelector('#model-input').getContext('2d').getImageData(0, 0, 28, 28).data]"


def test_link_brings_the_drawing_back_and_no_request_contains_it(url, visit):
    page = visit(url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    draw(page, EIGHT)
    assert predicted_digit(page) == "8"
    page.get_by_role("button", name="Copy a link").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert FRAGMENT.search(link)
    other = visit(url)
    sent = []
    other.on("request", lambda request: sent.append(request.url))
    other.goto(link)
    expect(other.locator("#digit")).to_have_text("8")
    assert 0.9 < count_ink(other) / count_ink(page) < 1.1
    assert not any(urlsplit(link).fragment in (request or "") for request in sent)


def test_nothing_can_be_kept_before_something_is_drawn(url, visit):
    page = visit(url)
    buttons = [
        page.get_by_role("button", name=name) for name in ("Copy a link", "Save a picture", "Copy a curl command")
    ]
    for button in buttons:
        expect(button).to_be_disabled()
    draw(page, THREE)
    for button in buttons:
        expect(button).to_be_enabled()
    page.locator("#clear").click()
    for button in buttons:
        expect(button).to_be_disabled()
    expect(page.locator("#curl")).to_have_value(re.compile("@picture.png"))


def test_drawing_outlives_a_reload_until_it_is_cleared(url, visit):
    page = visit(url)
    draw_at_once(page, THREE)
    page.wait_for_url(FRAGMENT)
    page.reload()
    expect(page.locator("#digit")).to_have_text("3")
    page.locator("#clear").click()
    page.wait_for_url(re.compile(r"/$"))


def test_back_to_the_same_drawing_leaves_it_as_it_is(url, visit):
    page = visit(url)
    draw_at_once(page, THREE)
    page.wait_for_url(FRAGMENT)
    page.locator("header").get_by_role("link", name="mnist").click()
    page.go_back()
    # The drawing is back in the address, for a reload.
    page.locator("header").get_by_role("link", name="mnist").click()
    page.wait_for_url(FRAGMENT)
    page.locator("#clear").click()
    expect(page.locator("#history li")).to_have_count(1)


def test_fragments_that_are_no_drawing_are_ignored(url, visit):
    page = visit(f"{url}/#d=2j{'00zz' * 5000}")
    for fragment in ("d=", "d=0", "d=zz", "d=2jk", "d=2jk5--", "d=<script>", "d=2J00", "model", "d=%00", "d=2j00é0"):
        page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
    draw(page, THREE)
    assert predicted_digit(page) == "3"
    assert page.locator("#undo").is_enabled()
    page.locator("#undo").click()
    assert page.locator("#undo").is_disabled()


def test_picture_has_no_link(url, visit):
    page = visit(url)
    page.locator("#file").set_input_files(ROOT / "tests" / "seven.png")
    expect(page.locator("#digit")).to_have_text("7")
    page.get_by_role("button", name="Copy a link").click()
    expect(page.locator("#copied")).to_have_text("This is too large for a link.")


def test_saved_picture_shows_the_drawing_above_the_prediction(url, visit):
    page = visit(url)
    draw(page, THREE)
    wait_for_prediction(page)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save a picture").click()
    assert saved.value.suggested_filename == "drawing.png"
    picture = np.asarray(Image.open(io.BytesIO(saved.value.path().read_bytes())).convert("L"))
    assert picture.shape == (720, 640)
    assert (picture[:640] < 128).mean() > 0.02
    assert (picture[640:] < 128).any()


def test_explanation_colours_the_ink_that_speaks_for_the_label(url, visit):
    """Without its crossbar, a four looks less like one. The end of its stem does not matter."""
    page = visit(url)
    draw(page, STYLES[4][0])
    assert predicted_digit(page) == "4"
    plain = np.reshape(page.evaluate(IMAGE), (28, 28, 4))
    with page.expect_response("**/predict?model=*") as asked:
        page.get_by_role("button", name="Why?").click()
    without = r"Without the reddest part it is (read as [^4]|still read as 4)"
    words = re.compile(rf"^Red ink speaks for 4, blue against\. {without}\.?$")
    expect(page.locator("figcaption")).to_have_text(words)
    expect(page.locator("#announcement")).to_have_text(words)
    assert len(asked.value.json()["predictions"]) == len(asked.value.request.post_data_buffer) // 784 == 196
    red, _, blue, _ = np.moveaxis(np.reshape(page.evaluate(IMAGE), (28, 28, 4)), -1, 0)
    colour = (red - blue)[plain[..., 0] > 100]
    assert colour.max() > 100
    assert (colour < 50).any()
    # A new stroke is explained too, when the pen rests. The button takes the colours away again.
    draw(page, [[(0.1, 0.1), (0.12, 0.12)]])
    wait_for_prediction(page)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("figcaption")).to_have_text("Model input, 28×28")
    page.locator("#clear").click()
    expect(page.locator("#why")).to_be_disabled()


def test_explanation_that_is_asked_for_too_early_comes_with_the_prediction(url, visit):
    page = visit(url)
    draw(page, THREE)
    wait_for_prediction(page)
    held = []
    page.route("**/predict?include=image", lambda route: held.append(route))
    page.get_by_role("button", name="Sample 4").click()
    expect(page.locator("#prediction")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Why?").click()
    held[0].continue_()
    expect(page.locator("figcaption")).to_have_text(re.compile("^Red ink speaks for 4"))
