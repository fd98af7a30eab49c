"""The call from a web page that docs/serving.md shows, in a page of another origin."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.serving.web.page import TIMEOUT
from tests.support import ROOT, service

ADDRESS = "http://127.0.0.1:8000"
[BLOCK] = [
    block
    for block in re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    if "document" in block
]
PAGE = b"<!doctype html><title>A page of somebody else</title><input type=file><output></output>"


class OtherSite(BaseHTTPRequestHandler):
    """Sends the page. It is a real server, because a browser lets no public page call an address of loopback."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin():
    with HTTPServer(("127.0.0.1", 0), OtherSite) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser, origin):
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    page.goto(origin)
    yield page
    context.close()


def run_block(page, url, path):
    """Run the block of the documentation after a user has chosen a file."""
    page.locator("input").set_input_files(path)
    return page.evaluate(f"async () => {{ {BLOCK.replace(ADDRESS, url)} }}")


def test_page_of_another_origin_calls_the_service(page, origin, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with service("--cors-origins", origin) as (url, _):
        run_block(page, url, ROOT / "tests" / "seven.png")
        assert re.fullmatch(r"7 \(\d\.\d{3}, accepted\)", page.locator("output").inner_text())
        with pytest.raises(Exception, match="text/plain"):
            run_block(page, url, tmp_path / "notes.txt")


def test_page_of_an_origin_that_is_not_named_gets_nothing(page, url):
    with pytest.raises(Exception, match="Failed to fetch"):
        run_block(page, url, ROOT / "tests" / "seven.png")
