"""The page with a model of letters: it names what the model has learnt, and offers nothing that is for digits."""

from __future__ import annotations

import pytest

from tests.serving.models.bundles import publish
from tests.serving.web.handwriting import THREE, draw
from tests.serving.web.page import copy_curl_command, expect, predicted_digit
from tests.support import service


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A service with the packaged network, whose classes are now letters: it takes a 3 for a D."""
    models = tmp_path_factory.mktemp("models")
    publish(models, 1, "letters", labels=tuple("ABCDEFGHIJ"))
    with service("--repository", models, "--model", "letters") as (url, _):
        yield url


def test_drawing_gets_the_name_of_its_class(letters, visit):
    page = visit(letters)
    expect(page.locator("h1")).to_have_text("Draw a symbol")
    draw(page, THREE)
    assert predicted_digit(page) == "D"
    assert page.locator("#bars .name").all_inner_texts() == list("ABCDEFGHIJ")
    assert page.locator("#bars .best .name").inner_text() == "D"
    assert "/predict" in copy_curl_command(page)
    assert page.locator("header [data-model=name]").inner_text() == "letters"
    expect(page.locator("#announcement")).to_contain_text("D, ")


def test_nothing_on_the_page_speaks_of_digits(letters, visit):
    page = visit(letters)
    expect(page.locator("h1")).to_have_text("Draw a symbol")
    seen = page.locator("body").inner_text()
    names = page.eval_on_selector_all(
        "[aria-label]", "parts => parts.filter(p => p.checkVisibility()).map(p => p.ariaLabel)"
    )
    assert "Draw a symbol here" in names
    for text in [seen, page.title(), *names]:
        assert "digit" not in text.lower(), text
        assert "MNIST" not in text, text
    assert "picture.png" in page.locator("#curl").input_value()
