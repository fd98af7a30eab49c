"""A real browser, the service, and a function that opens the page."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.serving.web.page import HEIGHTS, TIMEOUT, expect
from tests.support import missing, service

CHROMIUM = Path("/usr/bin/chromium")
# The camera shows Chromium's test picture and asks nobody for permission. No host name can be resolved. Chromium does
# not use /dev/shm, because it is too small for large windows in containers.
ARGUMENTS = [
    *("--no-sandbox", "--disable-dev-shm-usage"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


# The scope is the module and not the session, because an open browser keeps an event loop running in this thread, and
# tests in other modules start their own event loop.
@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        missing(f"Debian's chromium at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url():
    with service() as (url, _):
        yield url


@pytest.fixture
def visit(browser):
    """Return a function that opens an address in a new window and returns the page.

    The test fails if a script fails, the security policy is violated, or the page sends a request to another host.
    """
    contexts, faults = [], []

    def visit(url, width=1280, **options):
        options = {"viewport": {"width": width, "height": HEIGHTS[width]}, "reduced_motion": "reduce"} | options
        context = browser.new_context(**options)
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: "Security Policy" in line.text and faults.append(line.text))
        host = urlsplit(url).netloc
        page.on("request", lambda sent: urlsplit(sent.url).netloc not in (host, "") and faults.append(sent.url))
        page.goto(url)
        expect(page.locator("#curl")).to_have_value(re.compile("curl"))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []
