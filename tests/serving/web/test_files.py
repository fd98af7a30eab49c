"""The files of the page: their size, and the documentation page."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import httpx

from tests.serving.web.page import expect, screenshot
from tests.support import ROOT


def test_files_are_smaller_than_80_kibibytes_together():
    assert sum(file.stat().st_size for file in (ROOT / "serving" / "web").iterdir()) < 80 * 1024


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
    page.goto(f"{url}/schema")
    assert json.loads(page.inner_text("body"))["paths"].keys() == schema["paths"].keys()
    assert hosts == {urlsplit(url).netloc}
    page.close()
