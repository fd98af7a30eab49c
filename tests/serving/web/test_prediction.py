"""What the page shows of a prediction and of the model, the curl command, and when requests are sent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time

import httpx
import numpy as np
import pytest

from tests.serving.web.handwriting import FIVE, ONE, draw
from tests.serving.web.page import (
    TIMEOUT,
    change_prediction,
    copy_curl_command,
    expect,
    picture_in,
    predicted_digit,
    record_predictions,
    wait_for_prediction,
)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("no digit", "Seems to be no digit. Looks most like 1"),
        ("unsure", "Looks most like 1, but may be something else"),
        ("several", "More than one digit; switch on “Read whole numbers”"),
        ("empty", "The picture is empty"),
        ("a reason that the page does not know", "Seems to be no digit. Looks most like 1"),
    ],
)
def test_rejected_drawing_shows_the_reason_and_no_digit(url, visit, reason, words):
    page = visit(url)
    change_prediction(page, accepted=False, reason=reason)
    expect(page.locator("#confidence")).to_have_text(words)
    assert page.locator("#digit").inner_text() == "?"
    expect(page.locator("#bars .best")).to_have_count(0)
    expect(page.locator("#announcement")).to_have_text(f"{words}.")


def test_page_shows_probabilities_model_input_and_times(url, visit):
    page = visit(url)
    with page.expect_response("**/predict*") as first:
        draw(page, [[(0.5, 0.5), (0.5, 0.51)]])
    wait_for_prediction(page)
    page.locator("#clear").click()
    responses = record_predictions(page)
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    assert first.value.ok
    prediction = responses[-1].json()["predictions"][0]
    rows = page.locator("#bars li")
    expect(rows).to_have_count(10)
    for row, probability in zip(rows.all(), prediction["probabilities"], strict=True):
        shown = float(row.locator(".probability").inner_text().replace("%", ""))
        assert shown == pytest.approx(100 * probability, abs=0.11)
        length = row.locator(".bar").evaluate("(bar) => getComputedStyle(bar).getPropertyValue('--probability')")
        assert float(length) == pytest.approx(probability)
    expect(page.locator("#bars .best .name")).to_have_text("5")
    pixels = page.evaluate(
        """() => [...document.querySelector("#model-input").getContext("2d").getImageData(0, 0, 28, 28).data]
        .filter((_, i) => i % 4 === 0)"""
    )
    np.testing.assert_array_equal(np.reshape(pixels, (28, 28)), prediction["image"])
    model, service, round_trip = (
        float(page.locator(f"#{name}").inner_text().split()[0]) for name in ("model-time", "service-time", "round-trip")
    )
    assert 0 < model < service < round_trip


def test_accuracy_on_few_test_images_is_a_count(url, visit):
    manifest = httpx.get(f"{url}/certificate").json()
    manifest["result"]["test"] |= {"images": 15, "correct": 14, "accuracy": 14 / 15}
    page = visit(url)
    page.route(re.compile(r"/certificate(\?|$)"), lambda route: route.fulfill(json=manifest))
    page.reload()
    expect(page.locator("#model")).to_contain_text("14 of 15 test images that were not used for training")
    expect(page.locator("header")).to_contain_text("14 of 15")


def test_page_shows_the_model_and_links_its_manifest(url, visit):
    page = visit(url)
    manifest = httpx.get(f"{url}/certificate").json()
    model = page.locator("#model")
    accuracy = f"{100 * manifest['result']['test']['accuracy']:.2f} %"
    networks = f"cascade of cnn-first and cnn, {manifest['parameters']:,} parameters"
    digest = manifest["files"]["model.onnx"]["sha256"]
    for text in (f"mnist, version {manifest['version']}", accuracy, networks, digest):
        expect(model).to_contain_text(text)
    expect(page.locator("header")).to_contain_text(accuracy)
    link = model.get_by_role("link", name="manifest")
    assert httpx.get(f"{url}/{link.get_attribute('href')}").json() == manifest
    with page.expect_popup() as popup:
        model.get_by_role("link", name="card").click()
    expect(popup.value.get_by_role("heading", level=1)).to_have_text("Model card of mnist version 1")


def test_curl_command_gives_the_same_probabilities_in_every_shell(url, visit):
    page = visit(url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    responses = record_predictions(page)
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    command = copy_curl_command(page)
    assert page.evaluate("navigator.clipboard.readText()") == command
    shown = responses[-1].json()["predictions"][0]["probabilities"]
    shells = [shell for shell in ("bash", "dash", "zsh", "busybox sh") if shutil.which(shell.split()[0])]
    for shell in shells:
        done = subprocess.run([*shell.split(), "-c", command], capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["predictions"][0]["probabilities"] == shown


class HeldRequests:
    """Prediction requests of a page, each held until the test lets it continue."""

    def __init__(self, page):
        self._page = page
        self.waiting = []
        self.bodies = []
        page.route("**/predict*", self._hold)

    def _hold(self, route):
        self.waiting.append(route)
        self.bodies.append(route.request.post_data_buffer)

    def next(self):
        """Wait for the next request. Fail if the page has sent more than one."""
        deadline = time.monotonic() + TIMEOUT / 1000
        while not self.waiting and time.monotonic() < deadline:
            self._page.evaluate("0")  # lets Playwright handle events
        [route] = self.waiting
        self.waiting.clear()
        return route


def test_one_request_is_in_flight_and_the_newest_drawing_is_sent_next(url, visit):
    page = visit(url)
    requests = HeldRequests(page)
    draw(page, FIVE)
    # The first touch sent one request. The rest of the stroke waits for its response.
    first = requests.next()
    draw(page, ONE)
    page.locator("#undo").click()
    assert not requests.waiting
    first.continue_()
    requests.next().continue_()
    assert predicted_digit(page) == "5"
    assert len(requests.bodies) == 2
    assert picture_in(copy_curl_command(page)) == requests.bodies[-1]


def test_prediction_for_a_cleared_drawing_is_not_shown(url, visit):
    page = visit(url)
    requests = HeldRequests(page)
    draw(page, ONE)
    late = requests.next()
    page.locator("#clear").click()
    shown = page.evaluate_handle(
        """() => { const seen = [];
        new MutationObserver(() => seen.push(document.querySelector("#digit").textContent))
        .observe(document.querySelector("#digit"), { childList: true });
        return seen; }"""
    )
    late.continue_()
    wait_for_prediction(page)
    assert shown.json_value() == []
    expect(page.locator("#digit")).to_be_empty()


def test_page_shows_the_best_ten_of_other_classes(url, visit):
    labels = [f"letter {chr(ord('A') + i)}" for i in range(26)]
    probabilities = [0.0] * 24 + [0.25, 0.75]

    def with_letters(route):
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"labels": labels})

    page = visit(url)
    page.route(re.compile(r"/certificate(\?|$)"), with_letters)
    page.reload()
    expect(page.locator("h1")).to_have_text("Draw a symbol")
    change_prediction(page, label="letter Z", digit=None, probabilities=probabilities, accepted=True, reason=None)
    names = page.locator("#bars .name").all_inner_texts()
    assert names[:3] == ["letter Z", "letter Y", "letter A"]
    assert len(names) == 10
    assert page.locator("#bars .best .name").inner_text() == "letter Z"
    assert page.locator("#digit").inner_text() == "letter Z"
    for name in ("#samples", ".switch.digits", ".watermark"):
        expect(page.locator(name)).to_be_hidden()
