"""The files of the page: their size, and the documentation page."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import httpx

from tests.serving.web.page import expect, screenshot
from tests.support import ROOT


def test_page_is_smaller_than_64_kibibytes_and_the_documentation_than_16():
    size = {file.name: file.stat().st_size for file in (ROOT / "serving" / "web").iterdir()}
    documentation = size.pop("docs.html") + size.pop("docs.js")
    assert sum(size.values()) < 64 << 10
    assert documentation < 16 << 10


def test_documentation_shows_every_operation_and_loads_nothing_from_other_hosts(url, browser):
    page = browser.new_page()
    hosts = set()
    page.on("request", lambda sent: hosts.add(urlsplit(sent.url).netloc))
    page.goto(f"{url}/docs")
    schema = httpx.get(f"{url}/schema").json()
    for path, methods in schema["paths"].items():
        for method in methods:
            expect(page.get_by_role("heading", name=f"{method.upper()} {path}", exact=True)).to_be_visible()
    screenshot(page, "docs")
    page.get_by_role("link", name="GET /v2", exact=True).click()
    assert page.url.endswith("/docs#serverMetadata")
    assert f"{url}/predict" in page.locator("#introduction").inner_text()
    form = page.locator("#predict details")
    form.locator("summary").click()
    form.locator("input[type=file]").set_input_files(ROOT / "tests" / "seven.png")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text('"digit":7')
    page.goto(f"{url}/schema")
    assert json.loads(page.inner_text("body"))["paths"].keys() == schema["paths"].keys()
    assert hosts == {urlsplit(url).netloc}
    page.close()
