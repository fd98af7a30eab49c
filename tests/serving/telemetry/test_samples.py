"""The metrics of several workers become one."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.metrics import Metrics
from serving.telemetry.process import memory_kills
from serving.telemetry.samples import LATEST, NOW, OLDEST, deaths, lasting, sample_key, total


def test_snapshots_are_added_up():
    latest, oldest = "mnist_last_prediction_timestamp_seconds", "mnist_repository_scan_timestamp_seconds"
    counter, gauge, last, scan = (sample_key(name, name, {"x": '"'}) for name in ("a", "b", latest, oldest))
    old, new = ({"trace_id": "a"}, 0.1, 1.0), ({"trace_id": "b"}, 0.2, 2.0)
    first = {"counters": {counter: 2}, "gauges": {gauge: 1, last: 5, scan: 5}, "exemplars": {counter: old}}
    first["bins"] = {NOW: {"v": [1, 2]}}
    second = {"counters": {counter: 3}, "gauges": {gauge: 1, last: 4, scan: 4}, "exemplars": {counter: new}}
    second["bins"] = {NOW: {"v": [3, 0], "w": [1]}}
    sums = {"counters": {counter: 5}, "exemplars": {counter: new}, "bins": {NOW: {"v": [4, 2], "w": [1]}}}
    assert total([first, second]) == sums | {"gauges": {gauge: 2, last: 5, scan: 4}}
    assert total([lasting(second), first]) == sums | {"gauges": {gauge: 1, last: 5, scan: 5}}


def test_every_gauge_with_a_time_has_a_rule_for_several_workers():
    gauges = [family.name for family in Metrics()._registry.collect() if family.type == "gauge"]
    assert {name for name in gauges if name.endswith(("_timestamp_seconds", "time_seconds"))} <= LATEST | OLDEST


def test_two_workers_of_one_container_have_its_build_and_its_kills_once(tmp_path):
    mine = Metrics()
    found = values(mine.text([mine.snapshot(), mine.snapshot()]))
    [(build, one)] = [(key, value) for key, value in found.items() if key[0] == "mnist_build_info"]
    assert one == 1
    assert dict(build[1:])["version"] == importlib.metadata.version("mnist-service")
    single = values(mine.text([mine.snapshot()]))
    assert found["process_start_time_seconds",] == single["process_start_time_seconds",] > 1e9
    assert found["process_resident_memory_bytes",] > 1.5 * single["process_resident_memory_bytes",]
    for text, kills in ("low 0\noom_kill 3\n", 3), ("oom_kill_disable 0\nunder_oom 0\n", 0), ("", 0):
        (tmp_path / "events").write_text(text)
        assert memory_kills([tmp_path / "missing", tmp_path / "events"]) == kills


def values(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_text_of_two_workers_has_the_sums_and_the_series_of_both():
    mine, other = Metrics(), Metrics()
    mine.request_seconds.labels("/a").observe_all(np.array([0.01, 3.0]))
    other.request_seconds.labels("/a").observe_all(np.array([0.01]))
    other.request_seconds.labels("/b").observe_all(np.array([0.01]))
    for metrics, count in ((mine, 1), (other, 2)):
        metrics.in_flight.set(count)
    found = values(mine.text([mine.snapshot(), other.snapshot(), deaths(3)]))
    name = "mnist_http_request_seconds"
    assert found[f"{name}_count", ("route", "/a")] == 3
    assert found[f"{name}_bucket", ("le", "0.01"), ("route", "/a")] == 2
    assert found[f"{name}_bucket", ("le", "+Inf"), ("route", "/a")] == 3
    assert found[f"{name}_sum", ("route", "/b")] == 0.01
    assert found["mnist_http_requests_in_flight",] == 3
    assert found["mnist_worker_deaths_total",] == 3
    assert found.keys() == values(mine.text([])).keys() | values(other.text([])).keys()


def test_text_of_one_worker_equals_the_output_of_the_library():
    metrics = Metrics()
    metrics.requests.labels("/a", "GET", 200).inc()

    def lines(text):
        # Every collection reads new values of the process.
        return [line for line in text.splitlines() if not line.startswith(b"process_")]

    assert lines(metrics.text([])) == lines(metrics.text([metrics.snapshot()]))
