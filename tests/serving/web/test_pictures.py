"""Pictures on the page: samples, files that are chosen, pasted or dropped, and the camera."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.serving.web.handwriting import FIVE, draw
from tests.serving.web.page import (
    copy_curl_command,
    count_ink,
    expect,
    picture_in,
    predicted_digit,
    screenshot,
    wait_for_prediction,
)
from tests.support import picture


def photograph(image, background=(240, 236, 220), ink=(30, 40, 90)):
    """Return a digit of MNIST as in a photograph: eight times as large and in colour, uint8 ``[224, 224, 3]``."""
    amount = np.kron(image, np.ones((8, 8)))[..., None] / 255
    return (amount * ink + (1 - amount) * background).astype(np.uint8)


def test_samples_are_predicted_right(url, visit):
    page = visit(url)
    for sample in range(10):
        page.get_by_role("button", name=f"Sample {sample}").click()
        assert predicted_digit(page) == str(sample)


def test_chosen_pictures_are_predicted_right(url, visit, digits, truth):
    page = visit(url)
    wide = np.pad(photograph(digits[0]), ((20, 20), (200, 30), (0, 0)), "edge")
    transparent = np.kron(np.dstack([np.full((28, 28, 3), 255, np.uint8), digits[1]]), np.ones((8, 8, 1), np.uint8))
    for name, content, wanted in (
        ("wide.jpg", picture(wide, "JPEG"), truth[0]),
        ("transparent.png", picture(transparent), truth[1]),
        ("mnist.png", picture(digits[2]), truth[2]),
        ("large.png", picture(np.kron(photograph(digits[3]), np.ones((14, 14, 1), np.uint8))), truth[3]),
    ):
        with page.expect_file_chooser() as chooser:
            page.locator("#choose").click()
        chooser.value.set_files({"name": name, "mimeType": "image/*", "buffer": content})
        # The page reads the file first, and then changes the drawing.
        expect(page.locator("#clear")).to_be_enabled()
        expect(page.locator("#digit")).to_have_text(str(wanted))
        assert predicted_digit(page) == str(wanted)
        page.locator("#clear").click()
        expect(page.locator("#digit")).to_be_empty()


def test_file_that_is_not_a_picture_gets_a_message_until_the_next_drawing(url, visit):
    page = visit(url)
    page.locator("#file").set_input_files({"name": "letter.txt", "mimeType": "text/plain", "buffer": b"hello"})
    expect(page.locator("#notice")).to_have_text(re.compile("letter.txt: .*cannot open it as a picture"))
    page.locator("#file").set_input_files({"name": "empty.png", "mimeType": "image/png", "buffer": b""})
    expect(page.locator("#notice")).to_have_text("empty.png is empty.")
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    expect(page.locator("#notice")).to_be_empty()


def test_drawing_over_a_picture_sends_no_white_frame(url, visit, digits):
    """The picture is a narrow photograph of a 1, light on dark."""
    page = visit(url)
    dark = photograph(digits[2], background=(20, 30, 25), ink=(230, 235, 240))
    narrow = picture(dark[:, 60:-60])
    page.locator("#file").set_input_files({"name": "1.png", "mimeType": "image/png", "buffer": narrow})
    expect(page.locator("#digit")).to_have_text("1")
    draw(page, [[(0.45, 0.2), (0.55, 0.2)]])
    wait_for_prediction(page)
    image = np.asarray(Image.open(io.BytesIO(picture_in(copy_curl_command(page)))))
    assert image.shape[0] == 224
    assert image.shape[1] == pytest.approx(224 * 104 / 224, abs=2)
    assert image[:3, :3, :3].max() < 60


def test_pasted_picture_is_predicted_right(url, visit, digits, truth):
    page = visit(url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy = """async (data) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt());
        const blob = new Blob([bytes], { type: "image/png" });
        await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]); }"""
    page.evaluate(copy, base64.b64encode(picture(photograph(digits[4]))).decode())
    page.keyboard.press("Control+v")
    expect(page.locator("#digit")).to_have_text(str(truth[4]))


def dragged(page, *images):
    """Return what a drag of files with these images carries."""
    return page.evaluate_handle(
        """(files) => { const transfer = new DataTransfer();
        for (const data of files) {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt());
            transfer.items.add(new File([bytes], "digit.png", { type: "image/png" }));
        }
        return transfer; }""",
        [base64.b64encode(picture(photograph(image))).decode() for image in images],
    )


def test_dropped_picture_is_predicted_right(url, visit, digits, truth):
    page = visit(url)
    transfer = dragged(page, digits[5])
    for event in ("dragenter", "dragover"):
        page.dispatch_event("#bars", event, {"dataTransfer": transfer})
    expect(page.locator(".paper")).to_have_class(re.compile("dropping"))
    screenshot(page, "dropping")
    page.dispatch_event("#bars", "drop", {"dataTransfer": transfer})
    expect(page.locator("#digit")).to_have_text(str(truth[5]))
    expect(page.locator(".paper")).not_to_have_class(re.compile("dropping"))


def test_several_dropped_pictures_get_a_message(url, visit, digits, truth):
    page = visit(url)
    page.dispatch_event("#bars", "drop", {"dataTransfer": dragged(page, digits[0], digits[1])})
    expect(page.locator("#notice")).to_have_text("Choose one of the 2 files. The page reads one picture at a time.")
    assert count_ink(page) == 0
    page.dispatch_event("#bars", "drop", {"dataTransfer": dragged(page, digits[1])})
    expect(page.locator("#digit")).to_have_text(str(truth[1]))
    expect(page.locator("#notice")).to_be_empty()


def test_camera_takes_a_picture_and_is_switched_off(url, visit):
    page = visit(url)
    page.locator("#camera").click()
    video = page.locator("video")
    expect(video).to_have_js_property("readyState", 4)
    screenshot(page, "camera")
    page.keyboard.press("Escape")
    expect(video).to_be_hidden()
    expect(video).to_have_js_property("srcObject", None)
    page.locator("#camera").click()
    expect(video).to_have_js_property("readyState", 4)
    page.get_by_role("button", name="Take the picture").click()
    expect(video).to_be_hidden()
    wait_for_prediction(page)
    expect(page.locator("#confidence")).not_to_be_empty()
    assert count_ink(page) > 1000


def test_second_click_on_the_camera_leaves_nothing_switched_on(url, visit):
    page = visit(url)
    page.evaluate(
        """() => { window.tracks = [];
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            const stream = await ask(wanted);
            window.tracks.push(...stream.getTracks());
            return stream; }; }"""
    )
    page.locator("#camera").dblclick()
    expect(page.locator("video")).to_have_js_property("readyState", 4)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("video")).to_be_hidden()
    assert set(page.evaluate("tracks.map((track) => track.readyState)")) == {"ended"}
