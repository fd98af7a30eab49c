"""The rollout of a model by several workers: under load, when workers die, and after a restart."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from contextlib import contextmanager

import httpx
import pytest

from serving.settings import RELEASE
from tests.serving.models.bundles import publish
from tests.serving.server.clients import workers_of
from tests.support import PIXELS, service, until

ADMIN = {"x-api-key": "key"}
LABELS = {"1": "0123456789", "2": "abcdefghij"}


@pytest.fixture
def models(tmp_path):
    """A copy of the packaged repository."""
    return shutil.copytree(RELEASE, tmp_path / "models")


@contextmanager
def constant_load(url, digits):
    """Send requests from four clients without a pause. Yield the list of their responses."""
    stop, responses = threading.Event(), []

    def send():
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                response = client.post("/predict", content=digits[:2].tobytes(), headers=PIXELS)
                responses.append((response.status_code, response.json()))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield responses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def versions(responses):
    return {response["model"]["version"] for _, response in responses}


def report(url):
    return httpx.get(f"{url}/models/mnist/shadow", headers=ADMIN, timeout=60).json()


def served(url):
    """Return the versions that respond on new connections, which may go to different workers."""
    body = {"content": bytes(784), "headers": PIXELS, "timeout": 60}
    return {httpx.post(f"{url}/predict", **body).json()["model"]["version"] for _ in range(8)}


def kill_one_after_the_other(process):
    for victim in workers_of(process):
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in workers_of(process))


@pytest.mark.parametrize("rule", [(), ("--promote-after", 200, "--max-disagreement", 1)], ids=["by-hand", "by-rule"])
def test_promotion_loses_no_request_mixes_no_answers_and_outlives_workers(models, digits, truth, rule):
    arguments = ("--repository", models, "--poll", 0.05, "--workers", 2, "--rollout", "--admin-keys", "key", *rule)
    with service(*arguments) as (url, process):
        until(lambda: served(url) == {"1"})
        with constant_load(url, digits) as responses:
            publish(models, 2, labels=list(LABELS["2"]))
            if not rule:
                until(lambda: report(url)["compared"] >= 200)
                assert versions(responses) == {"1"}
                promoted = httpx.post(f"{url}/models/mnist/promote", headers=ADMIN, timeout=60)
                assert (promoted.status_code, promoted.json()["stable"]) == (200, "2")
                # Some responses of the former version may be on their way.
                sent = len(responses) + 4
                until(lambda: len(responses) > sent + 20)
                assert versions(responses[sent:]) == {"2"}
            until(lambda: served(url) == {"2"})
        assert {status for status, _ in responses} == {200}
        for _, response in responses:
            # The version and the labels in a response belong to the same model.
            expected = [LABELS[response["model"]["version"]][digit] for digit in truth[:2]]
            assert [prediction["label"] for prediction in response["predictions"]] == expected
        if rule:
            return
        kill_one_after_the_other(process)
        assert served(url) == {"2"}
    with service(*arguments) as (url, _):
        assert served(url) == {"2"}


def test_worker_that_dies_takes_no_evidence_and_no_decision_with_it(models, digits):
    publish(models, 2, labels=list(LABELS["2"]))
    with service("--repository", models, "--workers", 2, "--rollout", "--admin-keys", "key") as (url, process):
        # Without a state, the newest version is stable. The one before it may be promoted, and is then the stable one.
        answer = httpx.post(f"{url}/models/mnist/promote?version=1", headers=ADMIN, timeout=60).json()
        assert (answer["stable"], answer["candidate"]) == ("1", "2")
        httpx.post(f"{url}/models/mnist/canary", json={"weight": 0.5}, headers=ADMIN, timeout=60)
        for number in range(40):
            with httpx.Client(base_url=url, timeout=60) as client:
                client.post("/predict", content=digits[number].tobytes(), headers=PIXELS)
        until(lambda: report(url)["compared"] == 40)
        # Each worker keeps its own sample.
        assert len(report(url)["sample"]) == 40
        kill_one_after_the_other(process)
        after = report(url)
        assert (after["stable"], after["candidate"], after["weight"]) == ("1", "2", 0.5)
        assert (after["compared"], after["disagreements"]) == (40, 40)
        assert served(url) == {"1", "2"}
