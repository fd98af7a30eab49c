"""The page when the service is stopped, overloaded, needs a key, or rejects a request."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serving.web.handwriting import EIGHT, FIVE, ONE, TWO, draw
from tests.serving.web.page import (
    copy_curl_command,
    expect,
    predicted_digit,
    record_predictions,
    screenshot,
    wait_for_prediction,
)
from tests.support import PIXELS, service


def test_page_recovers_when_the_service_is_restarted(visit):
    with service() as (url, _):
        page = visit(url)
        draw(page, FIVE)
        assert predicted_digit(page) == "5"
    notice = page.locator("#notice")
    page.get_by_role("button", name="Sample 3").click()
    expect(notice).to_have_text("The service does not respond. The page keeps trying.")
    page.evaluate("scrollTo(0, 0)")
    screenshot(page, "unavailable")
    page.locator("#clear").click()
    draw(page, TWO)
    with service("--port", urlsplit(url).port):
        assert predicted_digit(page) == "2"
        expect(notice).to_be_empty()
        expect(page.locator("#announcement")).to_have_text(re.compile("responds again|2, "))


def test_page_recovers_when_the_model_is_loaded_again(visit):
    with service("--admin-keys", "key") as (url, _):
        page = visit(url)
        httpx.post(f"{url}/v2/repository/models/mnist/unload", headers={"x-api-key": "key"}).raise_for_status()
        draw(page, FIVE)
        expect(page.locator("#notice")).to_contain_text("The model is not available.")
        httpx.post(f"{url}/v2/repository/models/mnist/load", headers={"x-api-key": "key"}).raise_for_status()
        assert predicted_digit(page) == "5"
        expect(page.locator("#notice")).to_be_empty()


def test_page_recovers_when_the_overload_is_over(visit, digits):
    with service("--max-concurrency", 1) as (url, _):
        page = visit(url)
        stop = threading.Event()
        batch = digits[:1024].tobytes()

        def load():
            with httpx.Client(base_url=url, timeout=60) as client:
                while not stop.is_set():
                    client.post("/predict", content=batch, headers=PIXELS)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            draw(page, FIVE)
            expect(page.locator("#notice")).to_contain_text("The service is overloaded.")
            screenshot(page, "overloaded")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert predicted_digit(page) == "5"
        expect(page.locator("#notice")).to_be_empty()


def test_page_asks_for_a_key_and_keeps_it(visit):
    with service("--predict-keys", "secret") as (url, _):
        page = visit(url)
        form, notice = page.locator("#key-form"), page.locator("#notice")
        expect(notice).to_have_text("The service needs an API key.")
        draw(page, FIVE)
        page.get_by_label("API key").fill("guess")
        page.keyboard.press("Enter")
        expect(notice).to_have_text("The service does not accept this API key.")
        page.get_by_label("API key").fill("secret")
        page.get_by_role("button", name="Use this key").click()
        assert predicted_digit(page) == "5"
        expect(form).to_be_hidden()
        page.goto(url)
        draw(page, TWO)
        assert predicted_digit(page) == "2"
        expect(form).to_be_hidden()

        # The service would reject a plain link to the manifest or the card, because a link sends no key.
        with page.expect_popup() as popup:
            page.locator("#model").get_by_role("link", name="manifest").click()
        assert json.loads(popup.value.inner_text("body"))["name"] == "mnist"
        link = page.locator("#model").get_by_role("link", name="card")
        expect(link).to_have_attribute("href", re.compile("^blob:"))
        with page.expect_popup() as popup:
            link.click()
        expect(popup.value.get_by_role("heading", level=1)).to_have_text("Model card of mnist version 1")
        assert popup.value.locator("main").evaluate("element => getComputedStyle(element).maxWidth") != "none"
        # The curl command reads the key from a variable and does not contain it.
        command = copy_curl_command(page)
        assert "secret" not in command
        environment = os.environ | {"MNIST_KEY": "secret"}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
        assert json.loads(done.stdout)["predictions"][0]["digit"] == 2


@pytest.mark.parametrize("key", ["schlüssel", "“quoted”", "鍵"])
def test_key_of_any_characters_is_sent(visit, key):
    """As fetch sends a header, the first key would be another one, and the others would look like a service that is
    down, for as long as the window is open."""
    with service("--predict-keys", key) as (url, _):
        page = visit(url)
        draw(page, FIVE)
        page.get_by_label("API key").fill(f"{key}\u200b")  # as copied from some pages
        page.keyboard.press("Enter")
        expect(page.locator("#notice")).to_have_text("The service does not accept this API key.")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        assert predicted_digit(page) == "5"
        expect(page.locator("#notice")).to_be_empty()


def test_key_counts_that_is_entered_while_another_one_is_checked(visit):
    with service("--predict-keys", "secret") as (url, _):
        page = visit(url)
        draw(page, FIVE)
        expect(page.locator("#notice")).to_have_text("The service needs an API key.")
        wait_for_prediction(page)
        held = []
        page.route("**/predict*", lambda route: held.append(route), times=1)
        with page.expect_request("**/predict*"):
            page.get_by_label("API key").fill("guess")
            page.keyboard.press("Enter")
        # This is the response to another request, for the manifest.
        expect(page.locator("#notice")).to_have_text("The service does not accept this API key.")
        page.get_by_label("API key").fill("secret")
        page.keyboard.press("Enter")
        held[0].continue_()
        assert predicted_digit(page) == "5"
        expect(page.locator("#notice")).to_be_empty()


def test_rejected_requests_are_explained(visit):
    with service("--max-body", 600) as (url, _):
        page = visit(url)
        responses = record_predictions(page)
        draw(page, EIGHT)
        expect(page.locator("#notice")).to_contain_text("The picture is larger than the service accepts: ")
        detail = responses[-1].json()["detail"]
        assert "600" in detail
        expect(page.locator("#notice")).to_contain_text(detail)
        page.locator("#clear").click()
        expect(page.locator("#notice")).to_be_empty()
        # The service was never down, so the announcement is not "The service responds again."
        expect(page.locator("#announcement")).to_have_text("The drawing area is empty.")
    page.route("**/predict*", lambda route: route.fulfill(status=500, json={"detail": "?"}))
    draw(page, ONE)
    expect(page.locator("#notice")).to_have_text(
        "The service failed on this drawing. The service's log has the reason."
    )
