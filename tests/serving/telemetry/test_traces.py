"""Traced requests reach a collector with their stages, and a collector that is away costs no request anything."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import socket
import subprocess

import httpx
import numpy as np
import pytest

from serving.errors import SettingsError
from serving.settings import Settings
from serving.telemetry import traces
from serving.telemetry.notes import Note, Trace, parent_of
from serving.telemetry.recorder import Recorder
from serving.telemetry.timing import STAGES
from serving.telemetry.traces import MAX_WAITING, Tracer, endpoint_of, share_of
from tests.support import PIXELS, application, missing, service, until

if importlib.util.find_spec("opentelemetry") is None:
    missing("the packages of OpenTelemetry: make setup")
from tests.serving.telemetry.collector import attributes, collector

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = ({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-{flags}"} for flags in ("01", "00"))
PICTURE = np.full((28, 28), 9, np.uint8).tobytes()


def traced(send, redirect=None, **settings):
    """Return the collector after ``send(client)`` and the end of the service, and what ``send`` returned."""
    with collector(redirect) as received:
        with application(otlp_endpoint=received.url, **settings) as client:
            result = send(client)
        return received, result


def test_prediction_is_a_span_below_the_clients_with_its_stages_as_children():
    headers = PIXELS | SAMPLED | {"tracestate": "vendor=1", "x-request-id": "order-7", "user-agent": "test"}
    received, response = traced(lambda client: client.post("/predict", content=PICTURE, headers=headers))
    [root] = received.roots()
    assert (root.name, root.trace_id.hex(), root.parent_span_id.hex()) == ("POST /predict", TRACE_ID, SPAN_ID)
    assert root.trace_state == "vendor=1"
    found = attributes(root)
    [prediction] = response.json()["predictions"]
    assert found.pop("mnist.accepted") is prediction["accepted"] is False
    assert found.pop("mnist.reasons") == [prediction["reason"]]
    assert found == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "user_agent.original": "test",
        "mnist.request.id": "order-7",
        "mnist.model.name": "mnist",
        "mnist.model.version": "1",
        "mnist.images": 1,
    }
    stages = received.children(root)
    assert [stage.name for stage in stages] == list(STAGES)
    assert attributes(stages[2]) == {"mnist.run.images": 1}
    times = [time for stage in stages for time in (stage.start_time_unix_nano, stage.end_time_unix_nano)]
    assert times == sorted(times)
    assert root.start_time_unix_nano <= times[0]
    assert times[-1] <= root.end_time_unix_nano
    shown = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    for stage in stages:
        milliseconds = (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e6
        assert milliseconds == pytest.approx(float(shown[stage.name]), abs=0.001)


def test_spans_of_every_way_to_predict_name_the_model_and_whether_it_accepts(digits):
    def send(client):
        tensor = {"name": "images", "shape": [2, 28, 28], "datatype": "UINT8", "data": digits[:2].ravel().tolist()}
        number = tensor | {"shape": [1, 28, 56], "data": np.hstack([*digits[:2]]).ravel().tolist()}
        infer = "/v2/models/mnist/infer"
        client.post(infer, json={"inputs": [tensor]})
        client.post(infer, json={"inputs": [number], "parameters": {"mode": "number"}})
        client.post("/predict", content=digits[:400].tobytes(), headers=PIXELS)

    received, _ = traced(send)
    tensor, number, large = (attributes(root) for root in received.roots())
    assert all(found["mnist.model.name"] == "mnist" and "mnist.accepted" in found for found in (tensor, number, large))
    assert (tensor["mnist.images"], tensor["mnist.accepted"], large["mnist.images"]) == (2, True, 400)
    assert tensor["http.route"] == "/v2/models/{name}/infer"


def test_client_decides_about_its_own_traces_and_the_share_about_others():
    def send(client):
        return [
            client.post("/predict", content=PICTURE, headers=PIXELS | more)
            for more in (UNSAMPLED, {}, {"traceparent": "00-nonsense"}, SAMPLED)
        ]

    everything, responses = traced(send)
    # A trace that begins here has the id of the request, which the client sees.
    begun = [root.trace_id.hex() for root in everything.roots()]
    assert begun == [response.headers["x-request-id"] for response in responses[1:]]
    assert begun[-1] == TRACE_ID
    nothing, _ = traced(send, trace_sample="0")
    assert [root.trace_id.hex() for root in nothing.roots()] == [TRACE_ID]


def test_span_of_opentelemetrys_own_client_is_the_parent():
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers = dict(PIXELS)
    with TracerProvider().get_tracer("client").start_as_current_span("call") as span:
        TraceContextTextMapPropagator().inject(headers)
    received, _ = traced(lambda client: client.post("/predict", content=PICTURE, headers=headers), trace_sample="0")
    [root] = received.roots()
    context = span.get_span_context()
    assert root.trace_id == context.trace_id.to_bytes(16, "big")
    assert root.parent_span_id == context.span_id.to_bytes(8, "big")


def test_probes_and_scrapes_are_traced_only_for_their_client():
    def send(client):
        for path in ("/v2/health/ready", "/v2/health/live", "/metrics", "/v2/models/mnist/ready"):
            client.get(path)
        client.get("/v2/health/live", headers=SAMPLED)
        client.get("/v2/models/mnist")

    received, _ = traced(send)
    assert [root.name for root in received.roots()] == ["GET /v2/health/live", "GET /v2/models/{name}"]


def test_errors_have_spans_too():
    def send(client):
        client.post("/predict", content=b"x", headers=PIXELS)
        client.get("/nowhere")
        client.request("BREW", "/predict")
        client.post("/predict?timeout=0.001", content=PICTURE, headers=PIXELS)
        for state in ("=,;broken", "a=" + 600 * "b"):
            client.get("/v2", headers=SAMPLED | {"tracestate": state})

    received, _ = traced(send)
    rows = [
        (
            root.name,
            attributes(root)["http.response.status_code"],
            root.status.code,
            [stage.name for stage in received.children(root)],
        )
        for root in received.roots()
    ]
    assert rows == [
        ("POST /predict", 400, 0, []),
        ("GET", 404, 0, []),
        ("HTTP", 405, 0, []),
        ("POST /predict", 504, 2, ["decode", "queue"]),
        *2 * [("GET /v2", 200, 0, [])],
    ]
    assert [root.trace_state for root in received.roots()[4:]] == ["", ""]
    brewed, late = (attributes(root) for root in received.roots()[2:4])
    assert (brewed["http.request.method"], brewed["http.request.method_original"]) == ("_OTHER", "BREW")
    assert (late["error.type"], late["mnist.model.name"]) == ("504", "mnist")


# A collector that is away


def counted(client):
    text = client.get("/metrics").text
    return {outcome: int(count) for outcome, count in re.findall(r'spans_total{outcome="(\w+)"} (\d+)', text)}


def test_collector_that_rejects_is_named_once_and_its_spans_are_counted(caplog):
    with (
        collector() as received,
        # The log must not have the password.
        application(otlp_endpoint=received.url.replace("://", "://user:secret@")) as client,
    ):
        received.status = 400
        tracer = client.app.state.service.tracer
        for _ in range(2):
            assert client.post("/predict", content=PICTURE, headers=PIXELS).status_code == 200
            tracer.export()
        assert sum(counted(client).values()) == counted(client)["dropped"] == 10
        received.status = 200
        client.post("/predict", content=PICTURE, headers=PIXELS)
        tracer.export()
        assert counted(client) == {"sent": 5, "dropped": 10}
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith(f"traces do not reach {received.url}/v1/traces: Failed to export spans batch code: 400")
    assert len(received.spans) == 5


def test_collector_that_hangs_delays_no_request_and_not_the_end():
    with collector() as received:
        received.may_respond.clear()
        with application(otlp_endpoint=received.url) as client:
            client.post("/predict", content=PICTURE, headers=PIXELS)
            # The export that has begun waits in the collector meanwhile.
            for _ in range(20):
                assert client.post("/predict", content=PICTURE, headers=PIXELS).status_code == 200
            assert counted(client)["sent"] == 0
        # The application has ended, although the collector has not responded yet.
        assert not received.spans


def test_notes_beyond_the_limit_are_dropped_and_counted():
    class Sender:
        def send(self, notes):
            self.sent = notes
            return False

        def stop(self):
            pass

    recorder, sender = Recorder(), Sender()
    tracer = Tracer(1.0, sender, recorder)
    for number in range(MAX_WAITING + 3):
        tracer.end(Note(Trace("1", str(number), ""), "", "GET", 0.0, 0.0, {}, False, None))
    assert b'mnist_trace_spans_total{outcome="dropped"} 3.0' in recorder.text()
    tracer.export()
    assert sender.sent[0].trace.span_id == "0"  # What came first is kept, and a failed batch is not tried for ever.
    assert f'{{outcome="dropped"}} {3 + traces.BATCH}.0' in recorder.text().decode()


def test_spans_count_as_dropped_if_sending_fails():
    class Sender:
        def send(self, notes):
            raise RuntimeError

        def stop(self):
            pass

    recorder = Recorder()
    tracer = Tracer(1.0, Sender(), recorder)
    for _ in range(2):
        tracer.end(Note(Trace("1", "1", ""), "", "GET", 0.0, 0.0, {}, False, None))
        with pytest.raises(RuntimeError):
            tracer.export()
    assert b'mnist_trace_spans_total{outcome="dropped"} 2.0' in recorder.text()


def test_collector_that_redirects_gets_no_headers_to_another_place(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    with collector() as other:
        received, _ = traced(lambda client: client.get("/v2", headers=SAMPLED), redirect=other)
    assert received.seen
    assert other.seen == 0


# Exemplars

OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}


def test_exemplar_links_the_bucket_of_a_traced_request_to_its_trace():
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    with collector() as received, application(otlp_endpoint=received.url, trace_sample="0") as client:
        client.post("/predict", content=PICTURE, headers=PIXELS | SAMPLED)
        client.post("/predict", content=PICTURE, headers=PIXELS)
        response = client.get("/metrics", headers=OPENMETRICS)
        plain = client.get("/metrics")
        tracer = client.app.state.service.tracer
        tracer.export()
        [root] = received.roots()
    assert response.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    [(sample, exemplar)] = [
        (sample, sample.exemplar)
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.exemplar
    ]
    assert (sample.name, sample.labels["route"]) == ("mnist_http_request_seconds_bucket", "/predict")
    assert exemplar.labels == {"trace_id": TRACE_ID, "span_id": root.span_id.hex()}
    seconds = (root.end_time_unix_nano - root.start_time_unix_nano) / 1e9
    assert exemplar.value == pytest.approx(seconds, abs=1e-6)
    assert exemplar.value <= float(sample.labels["le"])
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert TRACE_ID not in plain.text


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("application/openmetrics-text", True),
        ("text/plain;q=0.3, Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8; q=0.6, */*;q=0.2", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.1,text/plain", False),
        ("application/openmetrics-text;q=much", False),
        ("text/html,*/*", False),
        ("", False),
    ],
)
def test_openmetrics_is_for_scrapers_that_prefer_it(client, accept, is_openmetrics):
    response = client.get("/metrics", headers={"accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics" if is_openmetrics else "text/plain")
    assert response.text.endswith("# EOF\n") is is_openmetrics


# The settings


def test_service_takes_the_variables_of_opentelemetry_and_sends_the_last_spans_at_its_end():
    with collector() as received:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url + "/",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=seven",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_SERVICE_NAME": "digits",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        arguments = ("--workers", 2, "--drain", 0)
        with service(*arguments, env=os.environ | variables) as (url, process):
            for _ in range(3):
                assert httpx.post(f"{url}/predict", content=PICTURE, headers=PIXELS).status_code == 200
            process.terminate()
            assert process.wait(30) == 0
        assert len(received.roots()) == 3
        assert (
            received.resources[0].items()
            >= {
                "service.name": "digits",
                "deployment.environment.name": "test",
            }.items()
        )
        assert {headers["x-tenant"] for headers in received.headers} == {"seven"}


@pytest.mark.parametrize(
    ("given", "variables", "endpoint"),
    [
        ("", {}, ""),
        ("http://a:4318", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318"}, "http://a:4318/v1/traces"),
        ("http://a:4318/v1/traces", {}, "http://a:4318/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://b/otlp/"}, "https://b/otlp/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://b/own"}, "https://b/own"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b", "OTEL_SDK_DISABLED": "true"}, ""),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_endpoint_comes_from_the_flag_or_a_variable(given, variables, endpoint):
    assert endpoint_of(Settings(otlp_endpoint=given), variables) == endpoint


def test_share_comes_from_the_flag_or_a_variable():
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    assert share_of(Settings(), {}) == 1
    assert share_of(Settings(), ratio) == 0.25
    assert share_of(Settings(trace_sample="0.5"), ratio) == 0.5
    assert share_of(Settings(), {"OTEL_TRACES_SAMPLER": "always_off"}) == 0


def test_share_is_kept():
    tracer = Tracer(0.25, None, Recorder())
    traced = sum(tracer.begin(None, "/predict") is not None for _ in range(4000))
    assert 800 < traced < 1200


@pytest.mark.parametrize("flags", ["ff", "01"])
def test_traceparent_follows_the_specification(flags):
    for valid in (f"00-{TRACE_ID}-{SPAN_ID}-{flags}", f"01-{TRACE_ID}-{SPAN_ID}-{flags}-more"):
        assert parent_of(valid.encode()) == (TRACE_ID, SPAN_ID, True)
    for invalid in (
        f"ff-{TRACE_ID}-{SPAN_ID}-{flags}",
        f"00-{TRACE_ID}-{SPAN_ID}-{flags}-more",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-{flags}",
        f"00-{'0' * 32}-{SPAN_ID}-{flags}",
        f"00-{TRACE_ID}-{'0' * 16}-{flags}",
    ):
        assert parent_of(invalid.encode()) is None


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector", "http://", "http://c:x", "http://[::1"])
def test_endpoint_must_be_a_url(url):
    with pytest.raises(SettingsError, match=re.escape(f"--otlp-endpoint {url}: must be a URL")):
        Settings(otlp_endpoint=url)
    with pytest.raises(SettingsError, match=r"^--otlp-endpoint ftp://collector: must be a URL"):
        Settings(otlp_endpoint="ftp://user:secret@collector")
    with pytest.raises(SettingsError, match="--trace-sample 2: must be from 0 to 1"):
        Settings(trace_sample="2")


def test_missing_packages_and_other_protocols_are_named_with_the_way_out(monkeypatch, caplog):
    variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:secret@b:4317"}
    flag = Settings(otlp_endpoint="http://user:secret@a:4317")
    reason = r"^--otlp-endpoint http://a:4317: OTEL_EXPORTER_OTLP_PROTOCOL=grpc: must be http/protobuf"
    with pytest.raises(SettingsError, match=reason):
        traces.tracer_of(flag, Recorder(), variables)
    # The variables may be meant for other programs, so they do not keep the service from starting.
    assert traces.tracer_of(Settings(), Recorder(), variables) is None
    assert "no traces are sent to http://b:4317/v1/traces: OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in caplog.text
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"):
        traces.tracer_of(flag, Recorder(), {})


# Prometheus


def test_prometheus_stores_the_exemplars_that_it_scrapes(tmp_path):
    prometheus = shutil.which("prometheus") or missing("prometheus")
    with collector() as received, service("--workers", 2, "--otlp-endpoint", received.url) as (url, _):
        httpx.post(f"{url}/predict", content=PICTURE, headers=PIXELS | SAMPLED)
        config = tmp_path / "prometheus.yml"
        target = url.removeprefix("http://")
        config.write_text(
            "scrape_configs: [{job_name: serving, scrape_interval: 100ms, scrape_timeout: 100ms, "
            f"static_configs: [{{targets: ['{target}']}}]}}]"
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        options = ("--enable-feature=exemplar-storage", "--log.level=error", f"--web.listen-address={address}")
        files = (f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}")
        process = subprocess.Popen([prometheus, *options, *files])
        query = {"query": "mnist_http_request_seconds_bucket", "start": 0, "end": 1e11}
        found = []

        def has_stored():
            with contextlib.suppress(httpx.TransportError):
                response = httpx.get(f"http://{address}/api/v1/query_exemplars", params=query)
                # Until Prometheus is ready, it responds with 503 and a text.
                found[:] = response.json()["data"] if response.status_code == 200 else []
            return found

        try:
            until(has_stored)
        finally:
            process.kill()
            process.wait()
    [series] = found
    assert series["seriesLabels"]["route"] == "/predict"
    assert series["exemplars"][0]["labels"]["trace_id"] == TRACE_ID


def test_metrics_as_openmetrics_have_the_same_series(client):
    client.post("/predict", content=PICTURE, headers=PIXELS)
    found = [
        set(re.findall(r"^([a-z_]+)[ {]", client.get("/metrics", headers=headers).text, re.MULTILINE))
        for headers in ({}, OPENMETRICS)
    ]
    # In OpenMetrics a histogram of values below 0 has neither a sum nor a count.
    assert found[1] == found[0] - {"mnist_novelty_count"}
