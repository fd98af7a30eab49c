"""The drift of the predictions of the last hour and day, over one worker and over several."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.contract import ModelOutput
from serving.models.reference import Histogram, Reference
from serving.telemetry import windows
from serving.telemetry.drift import IMAGES_PER_BIN, MIN_IMAGES, Drift, is_enough, psi
from serving.telemetry.recorder import KEPT_VERSIONS, Recorder
from serving.telemetry.samples import NOW, empty, lasting, total
from serving.telemetry.timing import STAGES
from serving.telemetry.windows import STEPS, Windows

RECORDED = json.loads((Path(__file__).parent / "evidently_psi.json").read_text())
HOUR, DAY = 3600, 86400


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_index_equals_that_of_evidently_for_the_same_bins(case):
    assert psi(case["expected"], case["found"]) == pytest.approx(case["psi"], rel=1e-12, abs=1e-15)


def test_index_is_that_of_its_formula():
    expected, found = np.array([10, 20, 70]), np.array([300, 300, 400])
    p, q = expected / expected.sum(), found / found.sum()
    assert psi(expected.tolist(), found.tolist()) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))


def test_index_needs_images_for_every_bin():
    assert not is_enough([MIN_IMAGES - 1])
    assert is_enough([MIN_IMAGES])
    assert not is_enough([10 * IMAGES_PER_BIN - 1, *[0] * 9])
    assert is_enough([10 * IMAGES_PER_BIN, *[0] * 9])


# Windows.


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def counted_in(found: Windows, counts: int) -> dict[str, int]:
    return {name: counts - before.get("v", [0])[0] for name, before in found.beginnings().items()}


def test_window_holds_what_was_counted_since_its_beginning():
    clock = Clock()
    found, counts = Windows(clock), 0
    for second in range(0, 2 * DAY, 20):
        clock.now = second
        counts += 20  # One image a second.
        found.note(lambda: {"v": [counts]})  # noqa: B023 (it is called at once)
        for name, seconds in (("1h", HOUR), ("1d", DAY)):
            expected = min(second, seconds)
            assert expected <= counted_in(found, counts)[name] <= expected + seconds / STEPS + 40
    assert sum(len(notes) for notes in found._notes.values()) <= 2 * (STEPS + 2)


def test_window_is_empty_after_a_break_as_long_as_itself():
    clock = Clock()
    found = Windows(clock)
    for clock.now in (0, 60, 60 + HOUR, 61 + HOUR):
        found.note(lambda: {"v": [500]})
    assert counted_in(found, 500) == {"1h": 0, "1d": 500}


def test_threads_move_the_windows_one_after_another():
    """Two threads that end a window at the same time could leave it without a beginning."""
    drift = Drift()
    is_locked = []
    drift._windows.note = drift._windows.keep = lambda _: is_locked.append(drift._lock.locked())
    drift.note()
    drift.keep([], [])
    assert is_locked == [True, True]


# The series.

REFERENCE = Reference(
    labels=(250, 250),
    confidence=Histogram((0.9,), (100, 400)),
    novelty=Histogram((-5.0, 0.0), (200, 200, 100)),
    ink=Histogram((0.1,), (250, 250)),
    reasons={"accepted": 490, "unsure": 10},
)


@dataclass(frozen=True, eq=False)
class Named:
    """The attributes of a model that the recorder reads."""

    name: str = "mnist"
    version: str = "3"
    labels: tuple[str, ...] = ("0", "1")
    reference: Reference | None = REFERENCE

    def judge(self, images, output, reasons):
        assert len(images), "a model judges no empty batch"
        return [None] * len(images)


def predict(recorder, model, images, label=1):
    probabilities = np.full((images, 2), 0.05, np.float32)
    probabilities[:, label] = 0.95
    output = ModelOutput(probabilities, probabilities, np.full(images, -5.0, np.float32))
    recorder.predicted(model, np.full((images, 28, 28), 51, np.uint8), output, dict.fromkeys(STAGES, 0.001))


def drift(text):
    """The samples of the drift, by version, by what is compared if it is an index, and by window."""
    return {
        tuple(sample.labels[name] for name in ("version", "of", "window") if name in sample.labels): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("mnist_drift")
    }


def recorder_of(*models):
    recorder = Recorder()
    recorder.models_are(models)
    return recorder


def test_predictions_are_counted_in_the_bins_of_the_reference():
    model = Named()
    recorder = recorder_of(model)
    predict(recorder, model, MIN_IMAGES - 1)
    assert drift(recorder.text()) == {("3", window): MIN_IMAGES - 1 for window in ("1h", "1d")}
    predict(recorder, model, 1)
    found = drift(recorder.text())
    expected = {
        "labels": psi((250, 250), (0, MIN_IMAGES)),
        "confidence": psi((100, 400), (0, MIN_IMAGES)),
        "novelty": psi((200, 200, 100), (0, MIN_IMAGES, 0)),  # -5 is an edge, and belongs to the bin above it.
        "ink": psi((250, 250), (0, MIN_IMAGES)),
        "reasons": psi((490, 0, 0, 0, 10), (MIN_IMAGES, 0, 0, 0, 0)),
    }
    assert {key: value for key, value in found.items() if len(key) == 3} == pytest.approx(
        {("3", of, window): value for of, value in expected.items() for window in ("1h", "1d")}
    )


def test_request_without_images_counts_as_nothing():
    model = Named()
    recorder = recorder_of(model)
    predict(recorder, model, 0)  # A picture without a digit, read as a number.
    recorder.count()
    predict(recorder, model, 3)
    assert set(drift(recorder.text()).values()) == {3}


def test_only_loaded_versions_with_a_reference_have_a_drift():
    older, dropped, loaded = Named(version="1", reference=None), Named(version="2"), Named()
    recorder = recorder_of(older, loaded)
    for model in (older, dropped, loaded):
        predict(recorder, model, 5)
    assert set(drift(recorder.text())) == {("3", "1h"), ("3", "1d")}


def test_bins_of_a_replaced_version_do_not_count_for_its_successor():
    before, after = Named(), Named(reference=Reference((1, 1), *[Histogram((), (2,))] * 3, {"accepted": 2}))
    recorder = recorder_of(after)
    predict(recorder, before, 5)
    predict(recorder, after, 7)
    assert set(drift(recorder.text()).values()) == {7}


def test_window_of_one_worker_ends(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(windows.Windows.__init__, "__defaults__", (clock,))
    model = Named()
    recorder = recorder_of(model)
    predict(recorder, model, 300)
    for clock.now in (60, 60 + HOUR):
        recorder.count()
    predict(recorder, model, 7)
    found = drift(recorder.text())
    assert (found["3", "1h"], found["3", "1d"]) == (7, 307)
    assert ("3", "ink", "1d") in found
    assert ("3", "ink", "1h") not in found


def test_dropped_version_is_forgotten_in_the_windows_too_and_counts_anew_when_it_comes_back(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(windows.Windows.__init__, "__defaults__", (clock,))
    recorder = Recorder()
    for version in range(20):
        model = Named(version=str(version))
        recorder.models_are([model])
        predict(recorder, model, 300)
        clock.now += HOUR
        recorder.count()
        recorder.model_changed("dropped", "mnist", str(version))
    moments = recorder._metrics.drift._windows._notes.values()
    kept = {key.split("/")[1] for notes in moments for _, counts in notes for key in counts}
    assert kept == {str(version) for version in range(19 - KEPT_VERSIONS, 20)}
    model = Named(version="0")
    recorder.models_are([model])
    predict(recorder, model, 7)
    found = drift(recorder.text())
    assert (found["0", "1h"], found["0", "1d"]) == (7, 7)


def test_replaced_version_leaves_no_bins():
    recorder = Recorder()
    for bound in range(20):
        model = Named(reference=Reference((1, 1), *[Histogram((bound,), (1, 1))] * 3, {"accepted": 2}))
        recorder.models_are([model])
        predict(recorder, model, 5)
        recorder.count()
    assert len(recorder.snapshot()["bins"][NOW]) == 1


def test_windows_hold_the_predictions_of_all_workers_also_of_one_that_has_died():
    models = [Named(), Named(), Named()]
    recorders = [recorder_of(model) for model in models]
    clock = Clock()
    supervisor = Windows(clock)
    predict(recorders[0], models[0], 100)
    predict(recorders[1], models[1], 50)
    past = lasting(recorders[0].snapshot())  # The first worker dies, and the third replaces it.
    clock.now = 60
    supervisor.note(lambda: total([past, recorders[1].snapshot()])["bins"][NOW])
    clock.now += HOUR
    supervisor.note(lambda: total([past, recorders[1].snapshot()])["bins"][NOW])
    predict(recorders[2], models[2], 30, label=0)
    predict(recorders[1], models[1], 20)
    beginnings = {**empty(), "bins": supervisor.beginnings()}
    for scraped, other in ((1, 2), (2, 1)):
        others = total([past, recorders[other].snapshot(), beginnings])
        found = drift(recorders[scraped].text([recorders[scraped].snapshot(), json.loads(json.dumps(others))]))
        assert (found["3", "1h"], found["3", "1d"]) == (50, 200)
        assert found["3", "labels", "1d"] == psi((250, 250), (30, 170))
