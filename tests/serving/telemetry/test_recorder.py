"""The recorder counts everything that it has noted, and adds it up by model."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.contract import ModelOutput
from serving.telemetry.predictions import NO_REASONS
from serving.telemetry.recorder import KEPT_VERSIONS, MAX_LABEL_SERIES, MAX_NOTES, OTHER_LABELS, Recorder
from serving.telemetry.shadow import CANDIDATE, STABLE, Compared
from serving.telemetry.timing import STAGES
from serving.telemetry.totals import ModelTotals


@dataclass(frozen=True)
class Named:
    """The attributes of a model that the recorder reads."""

    name: str = "mnist"
    version: str = "3"
    labels: tuple[str, ...] = tuple("0123456789")
    reference: None = None

    def judge(self, images, output, reasons):
        return [reasons.get(i) or ("unsure" if output.novelty[i] > 0 else None) for i in range(len(images))]


SECONDS = {"decode": 0.001, "queue": 0.002, "infer": 0.003, "encode": 0.004}


def value(recorder, name, **labels):
    """The value of a sample, or None if there is no such sample."""
    for family in text_string_to_metric_families(recorder.text().decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def predict(recorder, model, images=1, novelty=-5.0, reasons=NO_REASONS):
    probabilities = np.eye(10, dtype=np.float32)[np.arange(images) % 10]
    output = ModelOutput(probabilities, probabilities, np.full(images, novelty, np.float32))
    recorder.predicted(model, np.full((images, 28, 28), 51, np.uint8), output, SECONDS, reasons)
    recorder.ran(model, SECONDS["infer"])


def test_totals_add_up_what_each_model_did():
    recorder, model, other = Recorder(), Named(), Named(version="4")
    for images in (1, 2, 2 * MAX_NOTES):
        predict(recorder, model, images)
    recorder.failed(model)
    predict(recorder, other)
    totals = recorder.totals()[model.name, model.version]
    assert (totals.requests, totals.images, totals.runs, totals.failures) == (3, 3 + 2 * MAX_NOTES, 3, 1)
    assert totals.stage_seconds == pytest.approx({stage: 3 * SECONDS[stage] for stage in STAGES})
    assert totals.last_prediction > 1.7e9
    assert recorder.totals()["mnist", "4"].requests == 1


def test_totals_of_an_unknown_model_are_zero():
    assert Recorder().totals()["mnist", "1"] == ModelTotals()


def test_prediction_is_counted_by_label_confidence_and_ink():
    recorder = Recorder()
    predict(recorder, Named(), 12)
    assert value(recorder, "mnist_predictions_total", model="mnist", label="1") == 2
    assert value(recorder, "mnist_predictions_total", model="mnist", label="2") == 1
    assert value(recorder, "mnist_confidence_ratio_sum", model="mnist") == 12
    assert value(recorder, "mnist_ink_ratio_sum", model="mnist") == pytest.approx(12 * 0.2)


def test_classes_beyond_the_first_hundred_of_all_versions_share_one_series():
    recorder = Recorder()
    for version in range(3):
        labels = tuple(f"{version}-{number}" for number in range(60))
        predict(recorder, Named("letters", str(version), labels), 10)
    predict(recorder, Named("digits"), 10)
    families = text_string_to_metric_families(recorder.text().decode())
    counted = {
        (sample.labels["model"], sample.labels["label"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "mnist_predictions_total"
    }
    assert len(counted) == MAX_LABEL_SERIES + 1 + 10
    assert counted["letters", "1-9"] == 1
    assert ("letters", "2-0") not in counted
    assert counted["letters", OTHER_LABELS] == 10
    assert counted["digits", "9"] == 1


def test_prediction_is_counted_by_novelty_acceptance_and_reason_also_together_with_others():
    recorder = Recorder()
    predict(recorder, Named(), 3)
    predict(recorder, Named(), 2, novelty=1.5)
    predict(recorder, Named(), 2, reasons={0: None, 1: "several"})
    judged = "mnist_judged_predictions_total"
    assert value(recorder, judged, model="mnist", accepted="true", reason="") == 4
    assert value(recorder, judged, model="mnist", accepted="false", reason="unsure") == 2
    assert value(recorder, judged, model="mnist", accepted="false", reason="several") == 1
    assert value(recorder, judged, model="mnist", accepted="false", reason="empty") == 0
    assert value(recorder, "mnist_novelty_bucket", model="mnist", le="-4.0") == 5
    assert value(recorder, "mnist_novelty_count", model="mnist") == 7


def test_unknown_methods_share_one_series():
    recorder = Recorder()
    for method in ("BREW", "WHEN"):
        recorder.request("/predict", method, 405, 0.001)
    assert value(recorder, "mnist_http_requests_total", method="other") == 2
    assert value(recorder, "mnist_http_requests_total", method="BREW") is None


def test_changes_of_models_are_counted():
    recorder = Recorder()
    recorder.model_changed("loaded", "mnist", "1")
    assert value(recorder, "mnist_model_loaded", model="mnist", version="1") == 1
    recorder.model_changed("rejected", "mnist", "2")
    assert value(recorder, "mnist_model_rejected_total", model="mnist", version="2") == 1
    assert value(recorder, "mnist_model_loaded", model="mnist", version="2") is None
    recorder.model_changed("dropped", "mnist", "1")
    assert value(recorder, "mnist_model_loaded", model="mnist", version="1") == 0


def test_every_note_is_counted_once_by_several_threads():
    recorder, model = Recorder(), Named()

    def work():
        for _ in range(500):
            recorder.request("/predict", "POST", 429, 0.001)
            predict(recorder, model)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.totals()["mnist", "3"].images == 2000
    assert value(recorder, "mnist_http_requests_total", status="429") == 2000
    assert value(recorder, "mnist_rejected_requests_total", status="429") == 2000


def use(recorder, versions, loaded=1):
    """Load these versions one after another. The newest ``loaded`` of them stay."""
    for version in versions:
        recorder.model_changed("loaded", "mnist", str(version))
        models = [Named(version=str(number)) for number in range(max(1, version - loaded + 1), version + 1)]
        if version > loaded:
            recorder.model_changed("dropped", "mnist", str(version - loaded))
        recorder.models_are(models)
        predict(recorder, models[-1])
        recorder.count()
        recorder.failed(models[-1])
        compared = [Compared("1", differs=True, accepted=(True, False), confidence=(0.9, 0.5))]
        recorder.shadow.compared("mnist", str(version), compared, {STABLE: 0.1, CANDIDATE: 0.1})
        recorder.shadow.skipped("mnist", str(version))
        recorder.shadow.failed("mnist", str(version))


def versions_in(recorder):
    """The versions in each family that has some."""
    found = defaultdict(set)
    for family in text_string_to_metric_families(recorder.text().decode()):
        for sample in family.samples:
            if sample.labels.keys() >= {"model", "version"}:
                found[family.name].add(sample.labels["version"])
    return found


def test_only_the_loaded_versions_and_the_last_dropped_ones_have_series():
    recorder = Recorder()
    use(recorder, range(1, 21), loaded=2)
    families = versions_in(recorder)
    assert len(families) > 10
    kept = {str(version) for version in range(19 - KEPT_VERSIONS, 21)}
    assert [found for found in families.values() if found != kept] == []
    assert value(recorder, "mnist_model_loaded", version="20") == 1
    assert value(recorder, "mnist_model_loaded", version="18") == 0
    # Predictions that end now are counted, and forgotten with the next change.
    predict(recorder, Named(version="3"))
    assert recorder.totals()["mnist", "3"].images == 1
    use(recorder, [21], loaded=2)
    assert "3" not in versions_in(recorder)["mnist_batch_images"]


def test_version_that_comes_back_soon_keeps_its_series():
    recorder = Recorder()
    use(recorder, [1, 2])
    recorder.model_changed("loaded", "mnist", "1")
    recorder.models_are([Named(version="1"), Named(version="2")])
    predict(recorder, Named(version="1"))
    assert recorder.totals()["mnist", "1"].images == 2


def test_rejected_version_has_its_series_while_it_is_there():
    recorder = Recorder()
    for version in range(2 * KEPT_VERSIONS):
        recorder.model_changed("rejected", "mnist", str(version))
    recorder.models_are([], [("mnist", str(version)) for version in range(2 * KEPT_VERSIONS)])
    assert len(versions_in(recorder)["mnist_model_rejected"]) == 2 * KEPT_VERSIONS
    recorder.models_are([], [("mnist", "7")])
    assert versions_in(recorder)["mnist_model_rejected"] == {"7"}
