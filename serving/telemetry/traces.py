"""Traces: which requests are traced, and the notes of those that have ended.

A traced request costs the event loop one note. A thread of low priority makes the spans and sends them (otlp.py). If
the collector is away or slow, notes wait, up to a limit. Further ones are dropped and counted, and no request waits.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import re
import threading
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from serving.errors import SettingsError, without_password
from serving.settings import Settings
from serving.telemetry.notes import Note, Parent, Trace
from serving.telemetry.recorder import Recorder

# Seconds between two exports.
EXPORT_INTERVAL = 0.5
# Notes that are sent in one request to the collector, and notes that may wait. Each takes about 2 kB of memory.
BATCH, MAX_WAITING = 256, 4096

# Probes and scrapes come every few seconds. They are traced only if their client asks for it.
UNTRACED_PATH = re.compile(
    r"/metrics|/v2/health/.*|/v2/models/.*/ready|/inference\.GRPCInferenceService/(Server|Model)(Live|Ready)"
)

INSTALL = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
PROTOCOL = "http/protobuf"
ALL = 1 << 64

log = logging.getLogger("serving")


class Sender(Protocol):
    """What sends spans to a collector."""

    def send(self, notes: list[Note]) -> bool:
        """Send the spans of ``notes`` and return whether the collector has taken them."""

    def stop(self) -> None:
        """End a :meth:`send` that waits to try again."""


class Tracer:
    """Decides which requests are traced, and keeps their notes until they are sent.

    Args:
        share: the share of the requests without a ``traceparent`` that are traced, from 0 to 1.
    """

    def __init__(self, share: float, sender: Sender, recorder: Recorder) -> None:
        self._bound = round(share * ALL)
        self._sender = sender
        self._recorder = recorder
        self._notes: deque[Note] = deque()
        self._sending = threading.Lock()

    def begin(self, parent: Parent | None, path: str) -> Trace | None:
        """Return the place of a new request in its trace, or None if it is not traced.

        The client decides about its own traces. Of the other requests, the trace ID decides, as in OpenTelemetry's
        sampler ``traceidratio``.
        """
        if parent:
            return Trace(parent.trace_id, _new_id(), parent.span_id) if parent.is_sampled else None
        if not self._bound or UNTRACED_PATH.fullmatch(path):
            return None
        number = random.getrandbits(128)
        return Trace(f"{number:032x}", _new_id(), "") if number % ALL < self._bound else None

    def end(self, note: Note) -> None:
        """Keep the note of a request until it is sent, or drop it if too many wait."""
        if len(self._notes) >= MAX_WAITING:
            self._recorder.traced(note.spans(), is_sent=False)
        else:
            self._notes.append(note)

    def export(self) -> None:
        """Send all notes, and return when the collector has taken them or the first ones cannot be sent.

        This takes up to the timeout of the exporter, so it needs a thread of its own.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            is_sent = True
            while is_sent and (notes := [self._notes.popleft() for _ in range(min(BATCH, len(self._notes)))]):
                is_sent = False
                try:
                    is_sent = self._sender.send(notes)
                finally:
                    self._recorder.traced(sum(note.spans() for note in notes), is_sent=is_sent)
        finally:
            self._sending.release()

    def stop(self) -> None:
        """Give up an export that is under way."""
        self._sender.stop()


def _new_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"


# From the settings


def tracer_of(settings: Settings, recorder: Recorder, environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """Return the tracer of a service, or None if no endpoint is set. Without one, nothing of OpenTelemetry is imported.

    Raises:
        SettingsError: ``--otlp-endpoint`` is set, and traces cannot be sent. If the endpoint comes from a variable of
            OpenTelemetry, which may be meant for other programs, a warning is logged instead.
    """
    endpoint = endpoint_of(settings, environment)
    if not endpoint:
        return None
    if problem := _problem(environment):
        if settings.otlp_endpoint:
            raise SettingsError(f"--otlp-endpoint {without_password(settings.otlp_endpoint)}: {problem}")
        log.warning("no traces are sent to %s: %s", without_password(endpoint), problem)
        return None
    from serving.telemetry.otlp import Exporter

    return Tracer(share_of(settings, environment), Exporter(endpoint), recorder)


def endpoint_of(settings: Settings, environment: Mapping[str, str]) -> str:
    """Return the URL that spans are sent to, or an empty text if none is set or the variables turn traces off."""
    if settings.otlp_endpoint:
        return _url_of_traces(settings.otlp_endpoint)
    exporters = (environment.get("OTEL_TRACES_EXPORTER") or "otlp").replace(" ", "").split(",")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or "otlp" not in exporters:
        return ""
    if url := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return url
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return _url_of_traces(base) if base else ""


def _url_of_traces(base: str) -> str:
    """Return the URL for traces of the collector at ``base``, which may name it already."""
    path = "/v1/traces"
    return base.rstrip("/").removesuffix(path) + path


def share_of(settings: Settings, environment: Mapping[str, str]) -> float:
    """Return the share of the requests without a ``traceparent`` that are traced."""
    if settings.trace_sample:
        return float(settings.trace_sample)
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "") if sampler == "traceidratio" else ""
    if sampler == "always_off":
        return 0.0
    try:
        return min(1.0, max(0.0, float(text or 1)))
    except ValueError:
        log.warning("OTEL_TRACES_SAMPLER_ARG=%s: must be a number from 0 to 1; every request is traced", text)
        return 1.0


def _problem(environment: Mapping[str, str]) -> str:
    """Return why no spans can be sent, or an empty text."""
    if not _has_exporter():
        return f"needs the packages of OpenTelemetry; install them with: {INSTALL}"
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name = next((name for name in names if environment.get(name)), "")
    if name and environment[name] != PROTOCOL:
        return f"{name}={environment[name]}: must be {PROTOCOL}, for which collectors listen on port 4318"
    return ""


def _has_exporter() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
