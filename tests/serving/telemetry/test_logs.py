"""A response carries its timings and its request id, and the log lines carry the same id."""

from __future__ import annotations

import io
import json
import logging
import re
import socket

import httpx
import pytest

from serving.settings import Settings
from serving.telemetry.logs import JsonLines, TextLines, configure, request_fields
from tests.support import PIXELS, service

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_server_timing_has_the_four_stages(client, digits):
    responses = [
        client.post("/predict", content=digits[:40].tobytes(), headers=PIXELS),
        client.post("/v2/models/mnist/infer", content=bytes(784), headers={"inference-header-content-length": "0"}),
    ]
    for response in responses:
        stages = re.findall(r"(\w+);dur=(\d+\.\d{3})", response.headers["server-timing"])
        assert [name for name, _ in stages] == ["decode", "queue", "infer", "encode"]
        assert float(dict(stages)["infer"]) > 0


def test_request_id_comes_from_the_caller_or_its_trace_or_is_new(client):
    def request_id(**headers):
        return client.get("/v2", headers=headers).headers["x-request-id"]

    assert request_id(**{"x-request-id": "order-7"}) == "order-7"
    assert request_id(traceparent=TRACE) == TRACE.split("-")[1]
    assert request_id(**{"x-request-id": "order-7", "traceparent": TRACE}) == "order-7"
    new = {request_id() for _ in range(5)}
    assert len(new) == 5
    for invalid in ("a b", "x" * 200, '"><script>'):
        assert request_id(**{"x-request-id": invalid}) != invalid
    for invalid in ("rubbish", TRACE.replace("00-", "ff-", 1), f"00-{'0' * 32}-b7ad6b7169203331-01"):
        assert request_id(traceparent=invalid) not in invalid


def log_of(*arguments):
    """Return what the service writes to standard error during two requests."""
    with service(*arguments) as (url, process):
        httpx.get(f"{url}/v2", headers={"x-request-id": "order-7", "traceparent": TRACE})
        httpx.get(f"{url}/nowhere")
        process.terminate()
        _, log = process.communicate(timeout=30)
    return log


def test_log_is_json_and_has_no_line_for_a_request_by_default():
    lines = [json.loads(line) for line in log_of().splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "loaded model mnist version 1"),
        ("info", "stopping: the service is no longer ready, and accepts requests for 1 s more"),
    ]


def test_service_with_workers_says_once_that_it_stops():
    assert log_of("--workers", 2).count("stopping: the service is no longer ready") == 1


def test_access_log_has_a_line_for_each_request():
    lines = [json.loads(line) for line in log_of("--access-log").splitlines()]
    first, second = (line for line in lines if line["message"] == "request")
    assert first["request_id"] == "order-7"
    assert first["trace_id"] == TRACE.split("-")[1]
    assert (first["method"], first["path"], first["status"]) == ("GET", "/v2", 200)
    assert second["status"] == 404


@pytest.mark.parametrize(("is_terminal", "awaited"), [(True, "info hello"), (False, '"message":"hello"')])
def test_log_is_text_on_a_terminal_only(monkeypatch, is_terminal, awaited):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    for logger in (root, logging.getLogger("serving")):
        monkeypatch.setattr(logger, "level", logger.level)
    configure("info", Settings().log_format)
    logging.getLogger("serving").info("hello")
    assert awaited in stream.getvalue()


def test_log_can_be_text():
    assert "info loaded model mnist version 1" in log_of("--log-format", "text")


def test_fault_is_in_the_log_but_not_in_the_response(client, monkeypatch, caplog):
    from serving.api import predict

    def fail(*_, **__):
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(predict, "encode", fail)
    response = client.post("/predict", content=bytes(784), headers=PIXELS)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "a secret detail" in caplog.text


FORGED = "12:00:00 info request path=/forged"
BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x7f", "\x9b"]
# They move the cursor, change colours, hide text or turn its direction.
TRICKS = ["\x1b[2J", "\x08", "\u202e", "\u200b", "\ufeff", "\ud800", "\U000e0041"]


def record_with(text, *, field="path", error=None):
    """Return a log record with text of a client in its message, in a field and in an exception."""
    information = None
    if error is not None:
        try:
            raise error
        except Exception as caught:
            information = (type(caught), caught, caught.__traceback__)
    record = logging.LogRecord("serving", logging.INFO, "file", 1, "GET %s failed", (text,), information)
    record.fields = {field: text, "status": 200}
    return record


@pytest.mark.parametrize("trick", [*BREAKS, *TRICKS], ids=ascii)
@pytest.mark.parametrize("form", [TextLines, JsonLines])
def test_text_of_a_client_cannot_forge_a_line(form, trick):
    line = form().format(record_with(f"/a{trick}{FORGED}"))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert line.isascii() or form is TextLines
    if form is JsonLines:
        decoded = json.loads(line)
        assert decoded["path"] == f"/a{trick}{FORGED}"
        assert decoded["message"] == f"GET /a{trick}{FORGED} failed"


@pytest.mark.parametrize("trick", [*BREAKS, *TRICKS], ids=ascii)
@pytest.mark.parametrize("form", [TextLines, JsonLines])
def test_message_of_an_exception_cannot_forge_a_line(form, trick):
    error = ValueError(f"wrong{trick}{FORGED}")
    lines = form().format(record_with("/a", error=error)).splitlines()
    assert all(line.isprintable() for line in lines)
    if form is JsonLines:
        assert len(lines) == 1
        assert "forged" in json.loads(lines[0])["exception"]
    else:
        # A line of the log begins with its time, a line of a traceback with spaces.
        assert [line for line in lines if not line.startswith("  ")] == lines[:1]
        assert "forged" in lines[-1]


@pytest.mark.parametrize("path", ["/a status=500", '/a" status=500', "/a=b", ""])
def test_value_cannot_forge_another_field(path):
    line = TextLines().format(record_with(path))
    assert re.search(r' failed path="[^"\\]*(\\.[^"\\]*)*" status=200$', line)


def test_readable_text_stays_readable():
    assert (
        TextLines()
        .format(record_with("/z\u00e4hler/1"))
        .endswith("GET /z\u00e4hler/1 failed path=/z\u00e4hler/1 status=200")
    )


def test_value_of_any_type_is_written():
    record = record_with("/a", field="more")
    record.fields = {"path": re.compile("x"), "number": 1.5, "nothing": None}
    assert json.loads(JsonLines().format(record))["nothing"] is None
    assert "number=1.5" in TextLines().format(record)


def test_fields_of_a_request_cannot_forge_a_line():
    token = request_fields.set({"request_id": "a\nb"})
    try:
        assert len(TextLines().format(record_with("/a")).splitlines()) == 1
    finally:
        request_fields.reset(token)


@pytest.mark.parametrize("form", ["text", "json"])
def test_request_with_control_characters_is_one_line_of_the_access_log(form):
    paths = [
        "/a%0a12:00:00%20info%20forged",
        "/a%0d%0aforged",
        "/%1b[2Jforged",
        "/%e2%80%a8forged",
        "/forged%20status=200",
    ]
    with service("--access-log", "--log-format", form) as (url, process):
        for path in paths:
            address = httpx.URL(url)
            with socket.create_connection((address.host, address.port), timeout=60) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
                assert connection.recv(12) == b"HTTP/1.1 404"
        process.terminate()
        _, log = process.communicate(timeout=30)
    lines = [line for line in log.splitlines() if "forged" in line]
    assert len(lines) == len(paths)
    for line in lines:
        if form == "json":
            assert json.loads(line)["status"] == 404
        else:
            assert re.match(r"[\d:]{8} info request .*path=.* status=404", line)
