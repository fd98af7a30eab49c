"""Functions for the tests of the page: they read the page, or change what the page receives."""

from __future__ import annotations

import base64

from playwright.sync_api import expect

from tests.serving.web.handwriting import ONE, draw
from tests.support import ROOT

# The height of the window for each width, in pixels.
HEIGHTS = {360: 740, 1280: 860, 3840: 2160}
# Milliseconds. A loaded machine may be slow.
TIMEOUT = 90_000
expect.set_options(timeout=TIMEOUT)

SCREENSHOTS = ROOT / "runs" / "screenshots"


def wait_for_prediction(page):
    """Wait until no request is in flight and the newest drawing has been sent."""
    expect(page.locator("#prediction")).to_have_attribute("aria-busy", "false")


def predicted_digit(page):
    wait_for_prediction(page)
    return page.locator("#digit").inner_text()


def record_predictions(page):
    """Return a list that will hold every response to a prediction request from now on."""
    responses = []
    page.on("response", lambda response: "/predict" in response.url and responses.append(response))
    return responses


def change_prediction(page, **changes):
    """Change these fields in every prediction from now on, and draw once more."""

    def changed(route):
        response = route.fetch()
        body = response.json()
        body["predictions"][0] |= changes
        route.fulfill(response=response, json=body)

    page.route("**/predict*", changed)
    draw(page, ONE)
    wait_for_prediction(page)


def copy_curl_command(page):
    """Click "Copy" and return the curl command."""
    page.locator("#copied").evaluate("(place) => { place.textContent = ''; }")
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    return page.locator("#curl").input_value()


def picture_in(command):
    """Return the PNG in a curl command."""
    return base64.b64decode("".join(command.split("\n")[1:-1]))


def count_ink(page):
    """Return how many pixels of the drawing area are not transparent."""
    return page.evaluate(
        """() => { const sheet = document.querySelector("#sheet");
        const { data } = sheet.getContext("2d").getImageData(0, 0, sheet.width, sheet.height);
        return data.filter((value, i) => i % 4 === 3 && value).length; }"""
    )


def screenshot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
