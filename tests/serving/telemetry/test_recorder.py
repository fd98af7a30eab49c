"""The recorder counts everything that it has noted, and adds it up by model."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.contract import ModelOutput
from serving.telemetry.predictions import NO_REASONS
from serving.telemetry.recorder import MAX_LABEL_SERIES, MAX_NOTES, OTHER_LABELS, Recorder
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
