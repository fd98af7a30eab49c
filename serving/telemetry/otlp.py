"""Make spans from notes, and send them to a collector (OTLP over HTTP). The only file that imports OpenTelemetry.

The exporter is OpenTelemetry's own, so its variables hold: OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION,
_CERTIFICATE and others, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES. Spans are made as ReadableSpan and not with a
tracer of the library, because they have ended already. tests/serving/telemetry/test_traces.py reads what is sent.
"""

from __future__ import annotations

import importlib.metadata
import logging
import random
import time
import uuid
from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from serving.errors import without_password
from serving.telemetry.notes import Attribute, Note, ended_stages
from serving.telemetry.timing import Timing

SAMPLED = TraceFlags(TraceFlags.SAMPLED)

log = logging.getLogger("serving")


class Exporter:
    """Sends spans to the collector at ``endpoint``. It logs one line when that fails, and one when it works again."""

    def __init__(self, endpoint: str) -> None:
        version = importlib.metadata.version("mnist-service")
        mine = {"service.name": "mnist-service", "service.version": version, "service.instance.id": str(uuid.uuid4())}
        # The variables of OpenTelemetry win.
        self._resource = Resource(mine).merge(OTELResourceDetector().detect())
        self._scope = InstrumentationScope("serving", version)
        self._endpoint = without_password(endpoint)
        self._exporter = OTLPSpanExporter(endpoint)
        self._failure = _FirstLine()
        self._is_failing = False
        library = logging.getLogger("opentelemetry")
        # The library would log each attempt of the exporter, and what clients send. Only the first line of a failure is
        # kept, and becomes part of our own log line.
        library.handlers, library.propagate = [self._failure], False

    def send(self, notes: list[Note]) -> bool:
        """Send the spans of ``notes`` and return whether the collector has taken them."""
        epoch = time.time_ns() - time.perf_counter_ns()
        spans = [span for note in notes for span in self._spans(note, epoch)]
        self._failure.text = ""
        is_sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        if is_sent and self._is_failing:
            log.info("traces reach %s again", self._endpoint)
        elif not is_sent and not self._is_failing:
            log.warning(
                "traces do not reach %s: %s Spans are dropped and counted until they do.",
                self._endpoint,
                without_password(self._failure.text),
            )
        self._is_failing = not is_sent
        return is_sent

    def stop(self) -> None:
        """End a :meth:`send` that waits to try again."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _spans(self, note: Note, epoch: int) -> Iterator[ReadableSpan]:
        """Yield the spans of one request. ``epoch``: the nanoseconds since 1970 at which time.perf_counter was 0."""
        trace, timing = note.trace, note.timing
        state = TraceState.from_header([note.state]) if note.state else None
        trace_id = int(trace.trace_id, 16)

        def context(span_id: int, *, is_remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, span_id, is_remote, SAMPLED, state)

        def span(
            name: str,
            own: SpanContext,
            parent: SpanContext | None,
            start: float,
            seconds: float,
            attributes: dict[str, Attribute],
            kind: SpanKind = SpanKind.INTERNAL,
            status: Status = Status(),  # noqa: B008 (immutable)
        ) -> ReadableSpan:
            return ReadableSpan(
                name,
                own,
                parent,
                self._resource,
                attributes,
                kind=kind,
                status=status,
                start_time=epoch + round(start * 1e9),
                end_time=epoch + round((start + seconds) * 1e9),
                instrumentation_scope=self._scope,
            )

        own = context(int(trace.span_id, 16))
        parent = context(int(trace.parent_id, 16), is_remote=True) if trace.parent_id else None
        attributes = note.attributes | (_model_attributes(timing) if timing else {})
        status = Status(StatusCode.ERROR) if note.is_error else Status()
        yield span(note.name, own, parent, note.start, note.seconds, attributes, SpanKind.SERVER, status)
        if timing is None:
            return
        start = timing.started
        for stage in ended_stages(timing):
            of_stage: dict[str, Attribute] = {"mnist.run.images": timing.batch} if stage == "infer" else {}
            yield span(stage, context(random.getrandbits(64) or 1), own, start, timing.seconds[stage], of_stage)
            start += timing.seconds[stage]


def _model_attributes(timing: Timing) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    if timing.model:
        attributes |= {"mnist.model.name": timing.model[0], "mnist.model.version": timing.model[1]}
        attributes["mnist.images"] = timing.images
    if timing.reasons is not None:
        attributes["mnist.accepted"] = not timing.reasons
        if timing.reasons:
            attributes["mnist.reasons"] = sorted(timing.reasons)
    return attributes


class _FirstLine(logging.Handler):
    """Keeps the first line that is logged after ``text`` was emptied."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = self.text or record.getMessage()
