"""The page with a model of letters: it names what the model has learnt, and offers nothing that is for digits."""

from __future__ import annotations

import itertools

import pytest

from tests.serving.models.bundles import publish
from tests.serving.web.handwriting import THREE, draw
from tests.serving.web.page import copy_curl_command, expect, predicted_digit, screenshot
from tests.serving.web.test_layout import overlap
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


def test_link_to_a_whole_number_reads_a_symbol(letters, visit):
    page = visit(f"{letters}/#n=")
    expect(page.locator("h1")).to_have_text("Draw a symbol")
    draw(page, THREE)
    assert predicted_digit(page) == "D"
    expect(page.locator("#bars")).to_be_visible()


SIGNS = ["7", "?", "10", "mm", "千"]
WORDS = ["tick", "häkchen", "WWWW", "check mark", "signature", "Unterschrift", "千字文", "?"]
# Shows a prediction with this label, and returns the words that stand on more than one line.
BROKEN_WORDS = """async ([labels, label]) => {
  const { PredictionView } = await import("/prediction.js");
  const view = new PredictionView(document.querySelector("#prediction"));
  view.setLabels(labels);
  view.show({ label, accepted: true, confidence: 0.9999, probabilities: labels.map(() => 0.1), times: {} });
  const text = document.querySelector("#digit").firstChild;
  const lines = ({ index, 0: word }) => {
    const range = document.createRange();
    range.setStart(text, index);
    range.setEnd(text, index + word.length);
    return new Set([...range.getClientRects()].map(({ top }) => top)).size;
  };
  return [...label.matchAll(/\\S+/g)].filter((word) => lines(word) > 1).map(([word]) => word);
}"""
PARTS = """() => ["#digit", "#confidence", ".result figure", ".result"].map((part) => {
  const { left, top, right, bottom } = document.querySelector(part).getBoundingClientRect();
  return [left, top, right, bottom];
})"""


@pytest.mark.parametrize("size", [(320, 640), (360, 740), (683, 312), (768, 1024), (1280, 860), (3840, 2160)])
def test_word_of_a_label_stays_on_one_line(letters, visit, size):
    page = visit(letters)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for labels in (SIGNS, WORDS):
        for label in labels:
            assert page.evaluate(BROKEN_WORDS, [labels, label]) == []
            digit, confidence, figure, result = page.evaluate(PARTS)
            assert not any(overlap(*two) for two in itertools.combinations((digit, confidence, figure), 2)), label
            assert max(digit[2], confidence[2]) <= figure[0], label
            assert figure[2] <= result[2] + 1, label
        screenshot(page, f"label {label} {size[0]}")
