"""The rollout of a model by several workers: under load, when workers die, and after a restart."""

from __future__ import annotations

import os
import signal

import httpx
import pytest

from tests.serving.models.bundles import publish
from tests.serving.server.clients import constant_load, served_versions, workers_of
from tests.support import PIXELS, service, until

ADMIN = {"x-api-key": "key"}
LABELS = {"1": "0123456789", "2": "abcdefghij"}


def versions(responses):
    return {response["model"]["version"] for _, response in responses}


def report(url):
    return httpx.get(f"{url}/models/mnist/shadow", headers=ADMIN, timeout=60).json()


def kill_one_after_the_other(process):
    for victim in workers_of(process):
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in workers_of(process))


@pytest.mark.parametrize("rule", [(), ("--promote-after", 200, "--max-disagreement", 1)], ids=["by-hand", "by-rule"])
def test_promotion_loses_no_request_mixes_no_answers_and_outlives_workers(models, digits, truth, rule):
    arguments = ("--repository", models, "--poll", 0.05, "--workers", 2, "--rollout", "--admin-keys", "key", *rule)
    with service(*arguments) as (url, process):
        until(lambda: served_versions(url) == {"1"})
        with constant_load(url, digits[:2].tobytes()) as responses:
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
            until(lambda: served_versions(url) == {"2"})
        assert {status for status, _ in responses} == {200}
        for _, response in responses:
            # The version and the labels in a response belong to the same model.
            expected = [LABELS[response["model"]["version"]][digit] for digit in truth[:2]]
            assert [prediction["label"] for prediction in response["predictions"]] == expected
        if rule:
            return
        kill_one_after_the_other(process)
        assert served_versions(url) == {"2"}
    with service(*arguments) as (url, _):
        assert served_versions(url) == {"2"}


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
        assert served_versions(url) == {"1", "2"}
