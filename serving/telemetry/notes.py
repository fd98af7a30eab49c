"""The note of a traced request, from which its spans are made, and the client's place in the trace."""

from __future__ import annotations

import re
from typing import NamedTuple

from serving.telemetry.timing import STAGES, Timing

# version-trace-parent-flags, https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

Attribute = str | int | bool | list[str]


class Parent(NamedTuple):
    """What the client's ``traceparent`` says: the span of the client, and whether its trace is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parent_of(traceparent: bytes) -> Parent | None:
    """Return the client's span, or None if the header is not a valid one."""
    found = TRACEPARENT.fullmatch(traceparent)
    if not found:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if more and version == b"00":  # Only later versions may have further fields.
        return None
    return Parent(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & 1))


class Trace(NamedTuple):
    """The place of a traced request in its trace."""

    trace_id: str
    span_id: str
    parent_id: str
    """The span of the client; empty if the trace begins here."""


class Note(NamedTuple):
    """One traced request that has ended."""

    trace: Trace
    state: str
    """The client's ``tracestate``."""
    name: str
    start: float
    """In the time of ``time.perf_counter``."""
    seconds: float
    attributes: dict[str, Attribute]
    is_error: bool
    timing: Timing | None
    """The stages of a prediction."""

    def spans(self) -> int:
        """Return the number of spans: one for the request, and one for each stage that has ended."""
        return 1 + (len(ended_stages(self.timing)) if self.timing else 0)


def ended_stages(timing: Timing) -> list[str]:
    return [stage for stage in STAGES if timing.seconds[stage]]
