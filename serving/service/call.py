"""One call of the service, over HTTP or gRPC: its headers, its place among the predictions in flight, its deadline."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.contract import RejectionReason
from serving.errors import InputError, OverloadedError, quoted
from serving.inference.comparison import Comparison
from serving.models.model import Model
from serving.service.service import Service
from serving.telemetry.notes import Attribute, Note, Trace, parent_of
from serving.telemetry.timing import Timing
from serving.telemetry.traces import Tracer

Headers = Iterable[tuple[bytes, bytes]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
# Characters of a text of the client in an attribute, and of the longest tracestate that is passed on. The standard asks
# for 512.
MAX_TEXT, MAX_STATE = 256, 512


@dataclass(slots=True, eq=False)
class Call:
    """What the service keeps about one call."""

    service: Service
    raw_headers: Headers
    """The headers of HTTP, or the metadata of gRPC. The names are in lower case."""
    arrival: float = field(default_factory=time.monotonic)
    """Time at which the whole request had arrived, in the time of ``time.monotonic``."""
    is_counted: bool = False
    """Whether the call counts against the limit of predictions in flight."""
    is_rejected: bool = False
    """Whether the call is a prediction beyond the limit."""
    is_complete: bool = True
    """Whether the whole request has arrived."""
    size: int = 0
    """Bytes of the body or message."""
    trace: Trace | None = None
    """The place of the call in its trace, if it is traced."""
    timing: Timing | None = None
    """The stages of a prediction."""
    request_id: str = ""
    """The id that :func:`identify` returned."""
    comparison: Comparison | None = None
    """What another version needs to repeat the call; None if none does."""
    _headers: dict[bytes, bytes] | None = None

    def enter(self) -> None:
        """Count a prediction whose request has ``size`` bytes, or reject it if the limit is reached."""
        self.is_counted = self.service.admission.enter(self.size)
        self.is_rejected = not self.is_counted

    def finished(self) -> None:
        """Stop counting the prediction: its response is computed, or the client disconnected."""
        if self.is_counted:
            self.is_counted = False
            self.service.admission.leave(self.size)

    def judged(self, rejections: Iterable[RejectionReason | None]) -> None:
        """Keep for the trace why predictions are not accepted, if the call is traced."""
        if self.trace and self.timing:
            self.timing.judged(rejections)

    def check_admitted(self) -> None:
        """Raise OverloadedError if the call is beyond the limit of predictions in flight."""
        if self.is_rejected:
            raise OverloadedError

    def route(self, name: str, version: str | None) -> Model:
        """Return the version of a model that responds to the call: ``version``, or the one that its rollout gives.

        Raises:
            ModelNotFoundError, ModelUnavailableError: it is not loaded.
        """
        service, rollouts = self.service, self.service.rollouts
        pair = service.repository.pair(name) if rollouts and version is None else None
        if pair is None or rollouts is None:
            return service.repository.get(name, version)
        model, self.comparison = rollouts.route(pair, self.header(rollouts.header) or self.request_id)
        if self.comparison:
            self.comparison.request_id = self.request_id
        return model

    def compare(self) -> None:
        """Let another version repeat the call if it was chosen for that. Call this when the response is sent."""
        if self.comparison and self.service.rollouts:
            self.service.rollouts.shadow.offer(self.comparison)
            self.comparison = None

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, of the last one if several have this name.

        Litestar's ``request.headers`` takes ten times as long.
        """
        if self._headers is None:
            self._headers = dict(self.raw_headers)
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def deadline(self, timeout: object = None) -> float:
        """Return the time of ``time.monotonic`` after which the service stops working on the call.

        It is ``settings.work_timeout`` seconds after the arrival, or earlier if the client no longer wants a response.

        Args:
            timeout: microseconds from the arrival of the request; None and 0 mean no timeout. The header
                ``X-Request-Deadline`` gives the same as a point in time, in seconds since 1970.

        Raises:
            InputError: the timeout or the header is not a number of at least 0.
        """
        deadline = self.arrival + self.service.settings.work_timeout
        if timeout not in (None, "") and (microseconds := _number("timeout", timeout)):
            deadline = min(deadline, self.arrival + microseconds / 1e6)
        moment = self.header(b"x-request-deadline")
        if moment is not None:
            deadline = min(deadline, time.monotonic() + _number("X-Request-Deadline", moment) - time.time())
        return deadline

    def note(
        self,
        trace: Trace,
        name: str,
        attributes: dict[str, Attribute],
        started: float,
        seconds: float,
        *,
        is_error: bool,
    ) -> Note:
        """Return the note of this call, which is traced and has ended.

        Args:
            name: the name of the span.
            attributes: those of HTTP or gRPC. This method adds the others.
            started: in the time of ``time.perf_counter``.
        """
        attributes["mnist.request.id"] = self.request_id
        if agent := self.header(b"user-agent"):
            attributes["user_agent.original"] = agent[:MAX_TEXT]
        state = self.header(b"tracestate") if trace.parent_id else None
        state = state if state and len(state) <= MAX_STATE else ""
        return Note(trace, state, name, started, seconds, attributes, is_error, self.timing)


def identify(
    headers: Headers, tracer: Tracer | None = None, path: str = ""
) -> tuple[dict[str, str], bytes, Trace | None]:
    """Return the log fields of a call, its id, and its place in a trace if it is traced.

    The id is that of ``X-Request-ID``, else that of the trace, else a new one.
    """
    request_id, parent = b"", None
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request_id = value
        elif name == b"traceparent":
            parent = parent_of(value) or parent
    trace = tracer.begin(parent, path) if tracer else None
    known = trace or parent
    # An id must be unique, not secret. Random bytes from the system would take a tenth of the model's time.
    request_id = request_id or (known.trace_id.encode() if known else b"%016x" % random.getrandbits(64))
    fields = {"request_id": request_id.decode()}
    if known:
        fields["trace_id"] = known.trace_id
    return fields, request_id, trace


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        # float() would also accept underscores and the digits of other scripts.
        if isinstance(value, str) and ("_" in value or not value.isascii()):
            raise ValueError
        number = float(value)
        if not 0 <= number < math.inf:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} {quoted(value)}: must be a number of at least 0") from error
    return number
