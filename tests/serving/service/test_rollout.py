"""A new version repeats requests in the background until it is promoted, dropped or given a share of the requests."""

from __future__ import annotations

import errno
import json
import logging
import os
import re

import numpy as np
import pytest

from serving.errors import RolloutError, SettingsError
from serving.models.repository import load
from serving.settings import Settings
from tests.serving.models.bundles import change_manifest, favour, publish
from tests.support import PIXELS, application, picture, until

ADMIN = {"x-api-key": "key"}


@pytest.fixture
def other(models):
    """Version 2, which has other labels for some digits. It is published, but not yet in place."""
    folder = publish(models, 2, damage=favour(3, 12.0))
    return folder.rename(models / "mnist" / ".later")


def rollout(models, **settings):
    return application(repository=models, rollout=True, admin_keys="key", **settings)


def appear(client, folder):
    """Let a version appear, and wait until it is loaded."""
    folder.rename(folder.with_name("2"))
    client.app.state.service.scan()


def report(client):
    response = client.get("/models/mnist/shadow", headers=ADMIN)
    assert response.status_code == 200, response.text
    return response.json()


def compared(client, number):
    """Return the report when ``number`` predictions were compared."""
    until(lambda: report(client)["compared"] >= number)
    return report(client)


def predict(client, image, query="", **headers):
    response = client.post(f"/predict{query}", content=image.tobytes(), headers=PIXELS | headers)
    assert response.status_code == 200, response.text
    return response


def version(response):
    return response.json()["model"]["version"]


def post(client, action, **options):
    response = client.post(f"/models/mnist/{action}", headers=ADMIN, **options)
    assert response.status_code == 200, response.text
    return response.json()


def test_responses_stay_the_same_and_disagreements_are_those_of_an_offline_count(models, other, digits):
    images = digits[:300]
    with rollout(models) as client:
        before = [predict(client, piece).content for piece in np.array_split(images, 30)]
        appear(client, other)
        assert [predict(client, piece).content for piece in np.array_split(images, 30)] == before
        found = compared(client, 300)
        metrics = client.get("/metrics").text
    old, new = (load(models, "mnist", number) for number in (1, 2))
    first, second = (model.classifier.classify(images) for model in (old, new))
    labels, others = first.probabilities.argmax(axis=1), second.probabilities.argmax(axis=1)
    differs = labels != others
    assert 5 < differs.sum() < 250
    assert (found["stable"], found["candidate"], found["weight"]) == ("1", "2", 0)
    assert (found["compared"], found["disagreements"]) == (300, differs.sum())
    assert (found["skipped"], found["failed"]) == (0, 0)
    for label in range(10):
        own = labels == label
        assert found["labels"][str(label)]["compared"] == own.sum()
        assert found["labels"][str(label)]["disagreements"] == (own & differs).sum()
        assert f'mnist_shadow_predictions_total{{label="{label}",model="mnist",version="2"}} {own.sum()}.0' in metrics
    for role, model, output in (("stable", old, first), ("candidate", new, second)):
        accepted = np.mean([reason is None for reason in model.judge(images, output, {})])
        assert found["accepted"][role] == pytest.approx(accepted)
        assert found["confidence"][role] == pytest.approx(output.probabilities.max(axis=1).mean())
        assert found["seconds"][role] > 0
        assert f'mnist_shadow_inference_seconds_count{{model="mnist",role="{role}",version="2"}} 30.0' in metrics
    assert len(found["sample"]) == min(50, differs.sum())
    for one in found["sample"]:
        [index] = np.flatnonzero((images == np.array(one["image"], np.uint8)).all(axis=(1, 2)))
        assert (one["stable"]["label"], one["candidate"]["label"]) == (str(labels[index]), str(others[index]))


def test_every_way_to_ask_is_compared(models, other, digits):
    page = np.pad(np.concatenate(list(digits[:3]), axis=1), 20)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": digits[:1].ravel().tolist()}
    with rollout(models) as client:
        appear(client, other)
        png = {"content-type": "image/png"}
        assert client.post("/predict", content=picture(255 - digits[0]), headers=png).status_code == 200
        compared(client, 1)
        assert client.post("/predict?mode=number", content=picture(255 - page), headers=png).status_code == 200
        assert compared(client, 2)["labels"]["(number)"]["compared"] == 1
        assert client.post("/predict", json={"images": digits[:1].tolist()}).status_code == 200
        compared(client, 3)
        assert client.post("/v2/models/mnist/infer", json={"inputs": [tensor]}).status_code == 200
        compared(client, 4)
        # Not compared: requests that name a version, and requests that fail.
        predict(client, digits[:1], "?version=1")
        assert client.post("/v2/models/mnist/versions/2/infer", json={"inputs": [tensor]}).status_code == 200
        assert client.post("/predict", content=b"", headers=PIXELS).status_code == 400
        predict(client, digits[:1])
        assert compared(client, 5)["compared"] == 5


def test_page_without_a_number_has_no_confidence(models, other, digits):
    pages = [255 - np.pad(digits[0], 20), np.full((68, 68), 255, np.uint8)]
    with rollout(models) as client:
        appear(client, other)
        files = [("files", ("page.png", picture(page), "image/png")) for page in pages]
        found = client.post("/predict?mode=number", files=files).json()["predictions"]
        assert [len(page["lines"]) for page in found] == [1, 0]
        [line] = found[0]["lines"]
        assert compared(client, 2)["confidence"]["stable"] == pytest.approx(line["confidence"] / 2)


def test_candidate_prepares_pictures_itself(models, other, digits):
    change_manifest(other, prepare="as-is")
    # As it is, a small digit in a large picture is a speck.
    image = picture(255 - np.pad(digits[0], 300))
    with rollout(models) as client:
        appear(client, other)
        png = {"content-type": "image/png"}
        responses = [client.post(f"/predict{query}", content=image, headers=png).json() for query in ("", "?version=2")]
        [first], [second] = (response["predictions"] for response in responses)
        found = compared(client, 1)
        for role, expected in (("stable", first), ("candidate", second)):
            assert found["confidence"][role] == pytest.approx(expected["confidence"])
        assert found["disagreements"] == int(first["label"] != second["label"])


def test_share_of_the_requests_is_compared(models, other, digits):
    with rollout(models, shadow=0.0) as client:
        appear(client, other)
        for _ in range(5):
            predict(client, digits[:1])
        assert client.app.state.service.rollouts._findings.take() == {}


def test_promotion_by_hand_rollback_and_drop_survive_a_restart(models, other, digits):
    with rollout(models) as client:
        assert report(client)["candidate"] is None
        assert client.post("/models/mnist/promote", headers=ADMIN).status_code == 404
        appear(client, other)
        assert client.post("/models/mnist/promote?version=9", headers=ADMIN).status_code == 404
        assert version(predict(client, digits[:1])) == "1"
        assert version(predict(client, digits[:1], "?version=2")) == "2"
        compared(client, 1)
    with rollout(models) as client:
        # A restart changes nothing, and what was counted stays.
        assert version(predict(client, digits[:1])) == "1"
        assert compared(client, 2)["compared"] == 2
        promoted = post(client, "promote")
        assert (promoted["stable"], promoted["candidate"], promoted["compared"]) == ("2", None, 0)
        assert version(predict(client, digits[:1])) == "2"
        assert client.get("/certificate").json()["version"] == 2
    with rollout(models) as client:
        assert version(predict(client, digits[:1])) == "2"
        back = post(client, "promote", params={"version": "1"})
        # Otherwise the rule could promote version 2 again.
        assert (back["stable"], back["candidate"], back["dropped"]) == ("1", None, ["2"])
        response = client.post("/models/mnist/drop?version=1", headers=ADMIN)
        assert (response.status_code, "promote another" in response.text) == (400, True)
    with rollout(models) as client:
        assert report(client)["candidate"] is None
        for action in ("promote", "drop"):
            response = client.post(f"/models/mnist/{action}", headers=ADMIN)
            assert (response.status_code, "dropped after version 1: 2;" in response.text) == (404, True)
        assert version(predict(client, digits[:1])) == "1"
        publish(models, 3)
        client.app.state.service.scan()
        assert report(client)["candidate"] == "3"
        dropped = post(client, "drop")
        assert (dropped["candidate"], dropped["dropped"]) == (None, ["2", "3"])
        assert post(client, "promote", params={"version": "2"})["dropped"] == ["3"]


def test_version_that_another_worker_has_promoted_is_not_dropped(models, other):
    with rollout(models, poll=1000) as first, rollout(models, poll=1000) as behind:
        appear(first, other)
        behind.app.state.service.scan()
        post(first, "promote")
        assert behind.post("/models/mnist/drop", headers=ADMIN).status_code == 400
        assert behind.post("/models/mnist/canary", json={"weight": 0.5}, headers=ADMIN).status_code == 404
        found = report(first)
        assert (found["stable"], found["dropped"], found["weight"]) == ("2", [], 0)


def test_misspelt_version_changes_nothing(models, other):
    with rollout(models) as client:
        appear(client, other)
        for action in ("promote", "drop"):
            response = client.post(f"/models/mnist/{action}?verison=1", headers=ADMIN)
            assert response.status_code == 400
            assert "parameter 'verison': unknown; did you mean version?" in response.json()["detail"]
            # As from a script whose variable is not set.
            response = client.post(f"/models/mnist/{action}?version=", headers=ADMIN)
            assert response.status_code == 404
            assert "has no version ''" in response.json()["detail"]
        found = report(client)
        assert (found["stable"], found["candidate"]) == ("1", "2")


def test_rule_promotes_an_equal_version_and_no_worse_one(models, digits):
    with rollout(models, promote_after=50, max_disagreement=0.02) as client:
        publish(models, 2, damage=favour(3, 30.0))
        client.app.state.service.scan()
        for start in range(0, 80, 20):
            predict(client, digits[start : start + 20])
        worse = compared(client, 80)
        assert (worse["stable"], worse["candidate"]) == ("1", "2")
        assert worse["disagreements"] > 2
        # This version has the same labels, but it rejects all digits.
        strict = {"threshold": -1e6, "false_rejections": {}}
        publish(models, 3, novelty=strict)
        client.app.state.service.scan()
        predict(client, digits[:80])
        assert compared(client, 80)["accepted"]["candidate"] == 0
        assert version(predict(client, digits[:1])) == "1"
        publish(models, 4)
        client.app.state.service.scan()
        predict(client, digits[:49])
        assert compared(client, 49)["stable"] == "1"
        predict(client, digits[:1])
        until(lambda: report(client)["stable"] == "4")
        assert version(predict(client, digits[:1])) == "4"


def test_canary_responds_to_its_share_and_the_same_key_gets_the_same_version(models, other, digits):
    with rollout(models, canary=0.25, canary_header="X-User") as client:
        appear(client, other)

        def served():
            return {user: version(predict(client, digits[:1], **{"x-user": str(user)})) for user in range(100)}

        first = served()
        assert 10 < list(first.values()).count("2") < 40
        assert served() == first
        found = compared(client, 100)
        assert found["weight"] == 0.25
        # Whoever responds, the counts are about the same version.
        assert set(found["labels"]) == {"7"}
        assert post(client, "canary", json={"weight": 0.5})["weight"] == 0.5
        second = served()
        assert 30 < list(second.values()).count("2") < 70
        assert all(second[user] == "2" for user, answer in first.items() if answer == "2")
        assert version(predict(client, digits[:1], "?version=1")) == "1"
        for body in ("", "{}", '{"weight": 1.5}', '{"weight": "1"}'):
            assert client.post("/models/mnist/canary", content=body, headers=ADMIN).status_code == 400
        # Every status of the route is in the OpenAPI document.
        assert client.post("/models/mnist/canary", content=" " * 2000, headers=ADMIN).status_code == 413
        operation = client.get("/schema").json()["paths"]["/models/{name}/canary"]["post"]
        assert {"200", "400", "413"} <= operation["responses"].keys()
    with rollout(models) as client:
        assert report(client)["weight"] == 0.5
        post(client, "canary", json={"weight": 0})
        by_request_id = {version(predict(client, digits[:1], **{"x-request-id": str(number)})) for number in range(20)}
        assert by_request_id == {"1"}


def test_version_that_fails_is_counted_and_harms_no_response(models, other, digits, caplog):
    with rollout(models, promote_after=1) as client:
        appear(client, other)
        candidate = client.app.state.service.repository.get("mnist", "2")
        candidate.classifier.classify = lambda images: 1 / 0
        for _ in range(3):
            assert version(predict(client, digits[:1])) == "1"
        until(lambda: report(client)["failed"] == 3)
        assert caplog.text.count("version 2 fails") == 1
        assert 'mnist_shadow_failures_total{model="mnist",version="2"} 3.0' in client.get("/metrics").text


def test_requests_that_find_no_time_are_counted(models, other, digits, monkeypatch):
    monkeypatch.setattr("serving.inference.shadow.MAX_WAITING", 0)
    with rollout(models) as client:
        appear(client, other)
        predict(client, digits[:1])
        assert report(client)["skipped"] == 1


def test_service_that_rejects_the_candidate_of_others_does_not_replace_their_evidence(models, other, digits):
    state = models / "mnist" / ".rollout.json"
    with rollout(models) as client:
        appear(client, other)
        publish(models, 3, damage=lambda folder: (folder / "model.onnx").write_bytes(b""))
        client.app.state.service.scan()
        state.write_text('{"stable": "1", "pair": ["1", "3"], "evidence": {"requests": 5}}')
        predict(client, digits[:1])
        counted = 'mnist_shadow_predictions_total{label="7",model="mnist",version="2"} 1.0'
        until(lambda: counted in client.get("/metrics").text)
        assert report(client)["candidate"] == "2"
        assert json.loads(state.read_text())["evidence"]["requests"] == 5
        # When that version is gone, the evidence about this one counts.
        (models / "mnist" / "3").rename(models / "mnist" / ".retired-3")
        client.app.state.service.scan()
        predict(client, digits[:1])
        compared(client, 1)


def test_retired_stable_version_is_replaced_by_the_one_before(models, digits):
    publish(models, 2)
    with rollout(models) as client:
        assert version(predict(client, digits[:1])) == "2"
        (models / "mnist" / "2").rename(models / "mnist" / ".retired-2")
        client.app.state.service.scan()
        assert version(predict(client, digits[:1])) == "1"
        assert report(client)["candidate"] is None


def test_newest_version_responds_at_once_without_the_setting(models, other, digits):
    with application(repository=models, admin_keys="key") as client:
        appear(client, other)
        assert version(predict(client, digits[:1])) == "2"
        for method, action in (("GET", "shadow"), ("POST", "promote"), ("POST", "drop"), ("POST", "canary")):
            response = client.request(method, f"/models/mnist/{action}", headers=ADMIN)
            assert (response.status_code, "--rollout" in response.text) == (403, True)
            assert client.request(method, f"/models/mnist/{action}").status_code == 401
    assert not list((models / "mnist").glob(".rollout*"))


def test_state_can_be_outside_of_a_repository_that_is_read_only(models, tmp_path, digits):
    with rollout(models, state=str(tmp_path / "state")) as client:
        assert version(predict(client, digits[:1])) == "1"
    assert (tmp_path / "state" / "mnist.json").exists()
    assert not list((models / "mnist").glob(".rollout*"))


def test_state_that_cannot_be_written_or_read_stops_the_start(models, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="--state"), rollout(models, state=str(tmp_path / "file")):
        pass
    (models / "mnist" / ".rollout.json").write_text("{")
    with pytest.raises(SettingsError, match="delete it"), rollout(models):
        pass


def test_state_that_cannot_be_written_is_logged_once(models, caplog):
    """The service may read the folder of a new model without being allowed to write there."""
    lock = models / "letters" / ".rollout.json.lock"
    with rollout(models) as client:
        publish(models, 1, name="letters")
        lock.mkdir()
        service = client.app.state.service
        for _ in range(3):
            service.scan()
        assert caplog.text.count("letters/.rollout.json cannot be written") == 1
        assert [*service.rollouts.problems] == ["letters"]
        lock.rmdir()
        service.scan()
        assert service.rollouts.problems == {}


def test_damaged_state_of_a_running_service_changes_nothing(models, other, digits):
    with rollout(models) as client:
        appear(client, other)
        (models / "mnist" / ".rollout.json").write_text("{")
        client.app.state.service.scan()
        assert version(predict(client, digits[:1])) == "1"
        assert client.post("/models/mnist/promote", headers=ADMIN).status_code == 503
        (models / "mnist" / ".rollout.json").unlink()
        client.app.state.service.scan()
        assert report(client)["stable"] == "1"


def test_damaged_state_of_a_model_does_not_stop_decisions_about_another(models, other):
    publish(models, 1, "letters")
    with rollout(models) as client:
        publish(models, 2, "letters")
        appear(client, other)
        (models / "mnist" / ".rollout.json").write_text("{")
        client.app.state.service.scan()
        assert client.post("/models/mnist/promote", headers=ADMIN).status_code == 503
        response = client.post("/models/letters/promote", headers=ADMIN)
        assert (response.status_code, response.json()["stable"]) == (200, "2")


def test_damaged_state_of_a_model_loses_no_evidence_and_no_promotion(models, other, digits, monkeypatch):
    monkeypatch.setattr("serving.api.app.FLUSH_INTERVAL", 600)
    publish(models, 1, "letters")
    with rollout(models, promote_after=1) as client:
        service, state = client.app.state.service, models / "mnist" / ".rollout.json"
        publish(models, 2, "letters")
        appear(client, other)
        for name in ("mnist", "letters"):
            predict(client, digits[:1], f"?model={name}")
            counted = f'mnist_shadow_predictions_total{{label="7",model="{name}",version="2"}} 1.0'
            until(lambda counted=counted: counted in client.get("/metrics").text)
        before = state.read_text()
        state.write_text("{")
        with pytest.raises(RolloutError, match="delete it"):
            service.flush_rollouts()
        assert version(predict(client, digits[:1], "?model=letters")) == "2"
        assert version(predict(client, digits[:1])) == "1"
        state.write_text(before)
        service.flush_rollouts()
        assert version(predict(client, digits[:1])) == "2"


def test_promotion_is_logged_when_it_is_written(models, other, digits, monkeypatch, caplog):
    monkeypatch.setattr("serving.api.app.FLUSH_INTERVAL", 600)
    caplog.set_level(logging.INFO, "serving")
    with rollout(models, promote_after=1, max_disagreement=1) as client:
        service = client.app.state.service
        appear(client, other)
        predict(client, digits[:1])
        # A report would write the counts, so the metrics say when there is one.
        compared = re.compile(r'^mnist_shadow_predictions_total\{.*version="2"\} 1\.0$', re.MULTILINE)
        until(lambda: compared.search(client.get("/metrics").text))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            with pytest.raises(RolloutError, match="No space left"):
                service.flush_rollouts()
        assert "promoted model" not in caplog.text
        service.flush_rollouts()
        assert caplog.text.count("promoted model mnist version 2: version 1 has another label for 0 of 1") == 1


def no_space(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"canary": 0.1}, "only with --rollout"),
        ({"promote_after": 10}, "only with --rollout"),
        ({"state": "x"}, "only with --rollout"),
        ({"rollout": True, "canary": 1.5}, "between 0 and 1"),
        ({"rollout": True, "shadow": float("nan")}, "between 0 and 1"),
        ({"rollout": True, "max_disagreement": -1}, "between 0 and 1"),
        ({"rollout": True, "promote_after": -1}, "at least 0"),
        ({"rollout": True, "canary_header": "a b"}, "name of a header"),
    ],
)
def test_settings_that_make_no_sense_are_rejected(given, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**given)
