"""The files of the page: their size, and the documentation page."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import httpx

from tests.serving.web.page import expect, screenshot
from tests.support import ROOT


def test_opening_the_page_loads_less_than_64_kibibytes_and_each_file_once(url, browser):
    page = browser.new_page()
    loaded = []
    page.on("response", lambda response: loaded.append(response.url))
    page.goto(url, wait_until="networkidle")
    page.close()
    assert len(set(loaded)) == len(loaded)
    size = {file.name: file.stat().st_size for file in (ROOT / "serving" / "web").iterdir()}
    opened = {urlsplit(address).path.removeprefix("/") or "index.html" for address in loaded} - {"certificate"}
    assert sum(size[name] for name in opened) < 64 << 10
    # What few visits need is loaded later.
    assert not opened & {"boxes.js", "camera.js", "why.js", "link.js", "save.js", "feedback.js"}
    documentation = sum(size.pop(f"docs.{kind}") for kind in ("html", "css", "js"))
    assert documentation < 16 << 10
    # No visitor loads this picture, only the crawlers of messengers and social networks.
    assert size.pop("share.png") < 16 << 10
    assert sum(size.values()) < 72 << 10


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
    assert page.evaluate("[...document.querySelectorAll('pre')].every((pre) => pre.scrollWidth <= pre.clientWidth)")
    page.goto(f"{url}/schema")
    assert json.loads(page.inner_text("body"))["paths"].keys() == schema["paths"].keys()
    assert hosts == {urlsplit(url).netloc}
    page.close()


def test_page_begins_with_what_works_without_javascript():
    page = (ROOT / "serving" / "web" / "index.html").read_text()
    assert re.search(r"<body>\s*<noscript><p>This page needs JavaScript, but the service does not: <code>curl", page)
