"""The page without a mouse, with reduced motion, and audited by axe-core in every state."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.serving.web.handwriting import FIVE, ONE, draw
from tests.serving.web.page import (
    HEIGHTS,
    change_prediction,
    expect,
    predicted_digit,
    screenshot,
    wait_for_prediction,
)
from tests.support import missing, service

AXE = "axe-core@4.14.1"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A service whose page also asks for corrections."""
    with service("--feedback", tmp_path_factory.mktemp("feedback")) as (url, _):
        yield url


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_everything_works_with_the_keyboard_alone(url, visit):
    page = visit(url)
    # The listener makes the browser report file choosers to the test and not open them on the desktop. It is added
    # here, because the browser needs a moment to switch.
    page.on("filechooser", lambda _: None)
    focused = []
    for _ in range(40):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        if focused[-1] == "sheet":
            break
    assert focused[-1] == "sheet", focused
    expect(page.locator("#pen")).to_be_visible()
    # Draw a seven: to the right, then down and a little to the left.
    press(page, *["ArrowLeft"] * 4, "Space", *["ArrowRight"] * 8, *["ArrowDown", "End"] * 5)
    announcement = page.locator("#announcement")
    expect(announcement).to_have_text(re.compile("confidence"))
    # It is announced again when the pen is lifted, though the drawing does not change.
    announcement.evaluate("place => { place.textContent = ''; }")
    press(page, "Space")
    assert predicted_digit(page) == "7"
    screenshot(page, "keys")
    expect(announcement).to_have_text(re.compile(r"^7, .* confidence\.$"))
    press(page, "Control+z")
    expect(announcement).to_have_text("The drawing area is empty.")

    page.locator("#width").focus()
    press(page, "ArrowRight")
    assert page.locator("#width").input_value() == "8"
    # Whole numbers, consent, and then the choice of a picture.
    press(page, "Tab", "Tab", "Tab")
    with page.expect_file_chooser():
        press(page, "Enter")
    while page.evaluate("document.activeElement.getAttribute('aria-label')") != "Sample 6":
        press(page, "Tab")
    press(page, "Space")
    assert predicted_digit(page) == "6"
    page.locator("#clear").focus()
    press(page, "Enter")
    expect(page.locator("#digit")).to_be_empty()
    page.locator("#history button").focus()
    press(page, "Enter")
    assert predicted_digit(page) == "6"
    # Tab leads out of the page: nothing traps the focus.
    for _ in range(40):
        press(page, "Tab")
        if page.evaluate("document.activeElement === document.body"):
            return
    pytest.fail("Tab does not lead out of the page")


def test_bars_move_only_if_the_visitor_allows_motion(url, visit):
    style = "getComputedStyle(document.querySelector('.bar'), '::before').transitionDuration"
    assert visit(url, reduced_motion="reduce").evaluate(style) == "0s"
    assert visit(url, reduced_motion="no-preference").evaluate(style) != "0s"


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """Return the source of axe-core, downloaded with npm."""
    npm = shutil.which("npm") or missing("npm")
    folder = tmp_path_factory.mktemp("axe")
    packed = subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True)
    if packed.returncode:
        missing(f"{AXE} from npm: {packed.stderr}")
    shutil.unpack_archive(folder / packed.stdout.strip(), folder)
    return (folder / "package" / "axe.min.js").read_text()


def audit(page):
    found = page.evaluate(f"axe.run(document, {{ runOnly: {RULES} }})")
    violations = [
        (violation["id"], node["html"][:200], node["failureSummary"])
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
    assert violations == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"


# The colours differ between the schemes, and the layout does not.
VIEWS = [("light", 360), ("light", 1280), ("dark", 1280)]
# In this window the style has the rules of 1280 pixels and larger letters. One state of each page shows them.
LARGEST = ("light", 3840)


def test_every_state_passes_the_audit_in_both_schemes(url, visit, axe):
    page = visit(url)

    def check(state, *more):
        page.evaluate(axe)
        for scheme, width in (*more, *VIEWS):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
            screenshot(page, f"{width}-{scheme}-{state}")
            audit(page)

    check("empty")
    for sample in (2, 8, 4, 0):
        page.get_by_role("button", name=f"Sample {sample}").click()
        wait_for_prediction(page)
    page.locator("#clear").click()
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    expect(page.locator("#curl")).to_have_value(re.compile("base64"))
    expect(page.locator("#model a").first).to_be_visible()
    page.get_by_label("I agree").check()
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("figcaption")).to_contain_text("Red ink")
    page.locator("summary").click()
    check("accepted", LARGEST)
    change_prediction(page, accepted=False, reason="no digit")
    check("rejected")
    # The last predictions may still be on their way.
    page.unroute_all(behavior="wait")
    page.route("**/predict*", lambda route: route.fulfill(status=401, json={"detail": "send a key"}))
    draw(page, ONE)
    expect(page.locator("#key-form")).to_be_visible()
    check("key")
    page.goto(f"{url}/docs")
    expect(page.get_by_role("heading", name="POST /predict")).to_be_visible()
    check("docs", LARGEST)
    page.goto(f"{url}/models/mnist/card")
    check("card", LARGEST)
