"""The page asks whether a prediction is right, and a model that learns from the answers reads what it misread."""

from __future__ import annotations

import shutil

import httpx
import numpy as np
import pytest

from serving.models import bundle
from serving.settings import RELEASE
from tests.serving.web.handwriting import FIVE, TWO, draw, draw_at_once, line, vary
from tests.serving.web.page import expect, predicted_digit, screenshot, wait_for_prediction
from tests.support import service, until
from tests.training.conftest import NoPlots

# A seven with a foot, which looks like a two.
FOOTED = [line([(0.2, 0.15), (0.75, 0.15), (0.35, 0.9), (0.7, 0.9)])]
ADMIN = {"x-api-key": "ADMIN"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A repository with the packaged model."""
    folder = tmp_path_factory.mktemp("feedback") / "models"
    shutil.copytree(RELEASE / "mnist" / "1", folder / "mnist" / "1")
    return folder


@pytest.fixture(scope="module")
def folder(models):
    return models.parent / "corrections"


@pytest.fixture(scope="module")
def asking(models, folder):
    """A service that stores corrections."""
    with service("--repository", models, "--feedback", folder, "--poll", 0.1, "--admin-keys", "ADMIN") as (url, _):
        yield url


def report(url):
    return httpx.get(f"{url}/feedback", headers=ADMIN).json()


def send(page, label):
    page.get_by_label("What it was").select_option(label)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#feedback .note")).to_have_text(f"Thank you. Stored as {label}.")


def test_page_asks_nothing_unless_corrections_are_stored(url, visit):
    page = visit(url)
    draw(page, FIVE)
    wait_for_prediction(page)
    expect(page.locator("#feedback")).to_be_hidden()


def test_nothing_is_sent_before_the_visitor_agrees(asking, visit):
    page = visit(asking)
    sent = []
    page.on("request", lambda request: "/feedback" in request.url and sent.append(request.url))
    right, consent = page.get_by_role("button", name="Right"), page.get_by_label("I agree that this service stores")
    expect(consent).not_to_be_checked()
    expect(right).to_be_disabled()
    consent.check()
    expect(right).to_be_disabled()  # There is nothing to store yet.
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    consent.uncheck()
    for name in ("Right", "Send"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    expect(page.get_by_label("What it was")).to_be_disabled()
    consent.check()
    assert page.get_by_label("What it was").locator("option").all_inner_texts()[1:] == list("0123456789")
    page.get_by_role("button", name="Send").click()  # No label is chosen.
    before = report(asking)["pictures"]
    assert sent == []
    right.click()
    expect(page.locator("#feedback .note")).to_have_text("Thank you. Stored as 5.")
    expect(right).to_be_disabled()
    assert len(sent) == 1
    after = report(asking)
    assert (after["pictures"], after["labels"]["5"]) == (before + 1, {"pictures": 1, "right": 1})
    screenshot(page, "feedback")


def test_rejected_correction_gets_a_message_and_can_be_sent_again(models, tmp_path, visit):
    arguments = ("--repository", models, "--feedback", tmp_path, "--feedback-keys", "KEY", "--feedback-files", 2)
    with service(*arguments) as (url, _):
        page = visit(url)
        draw(page, FIVE)
        wait_for_prediction(page)
        page.get_by_label("I agree").check()
        page.get_by_role("button", name="Right").click()
        expect(page.locator("#notice")).to_have_text("The service needs an API key.")
        page.get_by_label("API key").fill("KEY")
        page.get_by_role("button", name="Use this key").click()
        wait_for_prediction(page)
        send(page, "3")
        draw(page, [[(0.1, 0.1), (0.2, 0.1)]])
        wait_for_prediction(page)
        page.get_by_label("What it was").select_option("4")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#notice")).to_have_text("The service has no space left for drawings.")
        page.locator("#clear").click()
        expect(page.locator("#notice")).to_be_empty()


def test_answer_that_fails_late_is_not_offered_for_the_next_drawing(asking, visit):
    page = visit(asking)
    late, labels = [], []

    def hold(route):
        labels.append(route.request.url.partition("label=")[2][0])
        late.append(route) if len(labels) == 1 else route.continue_()

    page.route("**/feedback?*", hold)
    page.get_by_label("I agree").check()
    draw(page, FIVE)
    assert predicted_digit(page) == "5"
    right = page.get_by_role("button", name="Right")
    right.click()
    until_held(page, late)
    page.locator("#clear").click()
    draw(page, TWO)
    assert predicted_digit(page) == "2"
    late[0].fulfill(status=507, content_type="application/problem+json", body='{"title": "full", "status": 507}')
    expect(page.locator("#notice")).to_have_text("The service has no space left for drawings.")
    right.click()
    expect(page.locator("#feedback .note")).to_have_text("Thank you. Stored as 2.")
    assert labels == ["5", "2"]


def test_answer_that_was_not_sent_is_not_offered_for_the_next_drawing(asking, visit):
    page = visit(asking)
    page.get_by_label("I agree").check()
    draw(page, FIVE)
    wait_for_prediction(page)
    page.get_by_label("What it was").select_option("6")
    page.locator("#clear").click()
    draw(page, TWO)
    wait_for_prediction(page)
    expect(page.get_by_label("What it was")).to_have_value("")


def until_held(page, late):
    """Wait for a request, while the page goes on."""
    while not late:
        page.wait_for_timeout(10)


def test_corrected_drawings_are_read_after_fine_tuning_without_a_restart(asking, models, folder, visit, monkeypatch):
    """Ten sevens that the packaged model takes for twos. MNIST is replayed, so that it is not forgotten."""
    from export.publishing import publish
    from export.run import Run
    from training.config import TrainConfig
    from training.data.load import Selection, load_data
    from training.loop.train import train

    page, random = visit(asking), np.random.default_rng(0)
    sevens = [vary(FOOTED, random) for _ in range(10)]
    page.get_by_label("I agree").check()

    def read(seven):
        page.locator("#clear").click() if page.locator("#clear").is_enabled() else None
        draw_at_once(page, seven)
        return predicted_digit(page)

    for seven in sevens:
        assert read(seven) != "7"
        send(page, "7")
    assert report(asking)["labels"]["7"] == {"pictures": 10, "right": 0}

    monkeypatch.setattr("training.loop.train.PlotProcess", NoPlots)
    settings = {"dataset": str(folder), "start": str(models / "mnist" / "1"), "replay": "mnist"}
    config = TrainConfig.of(**settings, subset=6400, validation=1000)
    splits = load_data(
        config.dataset,
        Selection(config.prepare, validation=config.validation, subset=config.subset),
        config.replay,
    )
    train(config, splits, folder.parent / "run")
    packaged = bundle.read(models / "mnist" / "1").manifest
    published = publish(Run.read(folder.parent / "run"), models)
    replayed = published.manifest.training["dataset"]["replay"]
    assert (replayed["name"], replayed["images"]) == ("mnist", 10_000)
    # The run started from the second network of the packaged cascade.
    assert abs(replayed["errors_before"] - packaged.result["test"]["errors"]) <= 3
    assert replayed["errors"] <= replayed["errors_before"] + 5

    until(lambda: httpx.get(f"{asking}/certificate").json()["version"] == 2)
    assert [read(seven) for seven in sevens] == ["7"] * 10
    expect(page.locator("header")).to_contain_text("version 2")
