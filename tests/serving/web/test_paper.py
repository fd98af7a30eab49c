"""The page on paper, and with files of kinds that a browser cannot read."""

from __future__ import annotations

import pytest

from tests.serving.web.page import expect

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("name", "content"),
    [("photo.heic", HEIC), ("scan.pdf", b"%PDF-1.7\n"), ("scan.tiff", b"II*\0\x08\0\0\0")],
)
def test_file_of_another_kind_is_told_what_would_work(url, browser, name, content):
    page = browser.new_page()
    page.goto(url)
    page.locator("#file").set_input_files({"name": name, "mimeType": "", "buffer": content})
    expect(page.locator("#notice")).to_contain_text("PNG")
    page.close()


def test_paper_gets_no_tools(url, browser):
    page = browser.new_page()
    page.goto(url)
    page.emulate_media(media="print")
    for part in ("nav", ".tools"):
        expect(page.locator(part).first).to_be_hidden()
    expect(page.locator("#sheet")).to_be_visible()
    page.close()
