"""The objects that handlers work with: the Service that all requests share, and the RequestContext of one request."""

from __future__ import annotations

import asyncio
import math
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from litestar import Request
from litestar.config.cors import CORSConfig

from serving.api.auth import Keys
from serving.api.background import RepositoryLock, on_own_thread
from serving.api.peers import ModelChange, Peers
from serving.contract import RejectionReason
from serving.errors import InputError, InputTooLargeError, OverloadedError, quoted
from serving.inference.admission import Admission, Held, limited_route
from serving.inference.decoder import Decoder
from serving.inference.pipeline import Pipeline
from serving.models.repository import Change, Repository
from serving.settings import Settings
from serving.telemetry.recorder import Recorder
from serving.telemetry.timing import Timing
from serving.telemetry.traces import Trace, Tracer

AnyRequest = Request[Any, Any, Any]

T = TypeVar("T")

# The key of the ASGI scope that holds the RequestContext.
SCOPE_KEY = "mnist.context"

# Limits of a query, in bytes and in parameters. The routes know five parameters.
MAX_QUERY = 4096
MAX_QUERY_PARAMETERS = 64


@dataclass
class Service:
    """The parts of one application, shared by all its requests."""

    settings: Settings
    repository: Repository
    recorder: Recorder
    keys: Keys
    admission: Admission
    held: Held
    pipeline: Pipeline
    decoder: Decoder
    cors: CORSConfig | None = None
    tracer: Tracer | None = None
    """None if no traces are sent."""
    draining: bool = False
    """True after SIGTERM: the service is no longer ready, but still responds."""
    peers: Peers = field(default_factory=Peers)
    """The other workers."""
    # Held while the repository changes and while the changes are recorded, so that both have the same order.
    _changing: RepositoryLock = field(default_factory=RepositoryLock, repr=False)
    _reporting: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def report(self, work: Callable[[], T]) -> T:
        """Return a report on the metrics, made on a thread, because it may read files. Make one report at a time."""
        async with self._reporting:
            return await on_own_thread(work)

    def scan(self) -> None:
        """Load new model versions, drop removed ones, and record these changes."""
        with self._changing:
            self._record(self.repository.scan())

    def load_model(self, name: str) -> None:
        """Load a model that was unloaded in every worker, and try its rejected versions again.

        Raises:
            ModelNotFoundError, ModelUnavailableError: no version of it can be loaded.
        """
        self.apply("load", name)
        try:
            self.peers.change("load", name)
        finally:
            self.repository.get(name)  # If this worker has no version either, its own reason says more.

    def unload_model(self, name: str) -> None:
        """Unload a model in every worker. Wait until no request uses it, for at most ``settings.grace`` seconds.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelUnavailableError: a worker has not confirmed it.
        """
        self.apply("unload", name)
        self.peers.change("unload", name)

    def apply(self, change: ModelChange, name: str) -> None:
        """Load or unload a model in this worker.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        models = [model for model in self.repository.models() if model.name == name]
        with self._changing:
            self._record(self.repository.load(name) if change == "load" else self.repository.unload(name))
        if change == "unload":
            for model in models:
                model.drain(self.settings.grace)

    def _record(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.recorder.model_changed(*change)
        self.recorder.scanned(is_readable=self.repository.is_readable)


@dataclass(slots=True, eq=False)
class RequestContext:
    """What the service keeps about one request, in addition to its ASGI scope."""

    service: Service
    raw_headers: Iterable[tuple[bytes, bytes]]
    arrival: float = field(default_factory=time.monotonic)
    """Time at which the whole request had arrived, in the time of ``time.monotonic``."""
    is_counted: bool = False
    """Whether the request counts against the limit of predictions in flight."""
    is_rejected: bool = False
    """Whether the request is a prediction beyond the limit."""
    is_complete: bool = True
    """Whether the whole request has arrived."""
    size: int = 0
    """Bytes of the body."""
    trace: Trace | None = None
    """The place of the request in its trace, if it is traced."""
    timing: Timing | None = None
    """The stages of a prediction."""
    _headers: dict[bytes, bytes] | None = None

    def arrived(self, method: str, path: str, size: int) -> None:
        """Set the time of arrival of the whole request. Count a prediction, or reject it if the limit is reached.

        Args:
            size: bytes of the body.
        """
        self.arrival = time.monotonic()
        self.is_complete, self.size = True, size
        if method == "POST" and limited_route(path):
            self.is_counted = self.service.admission.enter(size)
            self.is_rejected = not self.is_counted

    def finished(self) -> None:
        """Stop counting the prediction: its response is computed, or the client disconnected."""
        if self.is_counted:
            self.is_counted = False
            self.service.admission.leave(self.size)

    def judged(self, rejections: Iterable[RejectionReason | None]) -> None:
        """Keep for the trace why predictions are not accepted, if the request is traced."""
        if self.trace and self.timing:
            self.timing.judged(rejections)

    def check_admitted(self) -> None:
        """Raise OverloadedError if the request is beyond the limit of predictions in flight."""
        if self.is_rejected:
            raise OverloadedError

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, of the last one if several have this name.

        Litestar's ``request.headers`` takes ten times as long.
        """
        if self._headers is None:
            self._headers = dict(self.raw_headers)
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def deadline(self, timeout: object = None) -> float:
        """Return the time of ``time.monotonic`` after which the service stops working on the request.

        It is ``settings.work_timeout`` seconds after the arrival, or earlier if the client no longer wants a response.

        Args:
            timeout: microseconds from the arrival of the request; None and 0 mean no timeout. The header
                ``X-Request-Deadline`` gives the same as a point in time, in seconds since 1970.

        Raises:
            InputError: the timeout or the header is not a number of at least 0.
        """
        deadline = self.arrival + self.service.settings.work_timeout
        if timeout not in (None, 0, "", "0"):
            deadline = min(deadline, self.arrival + _number("timeout", timeout) / 1e6)
        moment = self.header(b"x-request-deadline")
        if moment is not None:
            deadline = min(deadline, time.monotonic() + _number("X-Request-Deadline", moment) - time.time())
        return deadline


def context_of(request: AnyRequest) -> RequestContext:
    """Return the context of ``request``."""
    return cast("RequestContext", request.scope[SCOPE_KEY])  # type: ignore[literal-required]


async def read_body(request: AnyRequest, limit: int) -> bytes:
    """Return the whole body of ``request``. Litestar's ``request.body()`` takes three times as long.

    Raises:
        InputTooLargeError: the body has more than ``limit`` bytes, by its Content-Length or by count.
        InputError: the client disconnected.
    """
    context = context_of(request)
    if int(context.header(b"content-length") or 0) > limit:
        raise InputTooLargeError(_over_limit(limit))
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise InputError("the client disconnected before its request was complete")
        chunks.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise InputTooLargeError(_over_limit(limit))
        more = message["more_body"]
    return b"".join(chunks)


def query_of(request: AnyRequest) -> dict[str, str]:
    """Return the parameters of the query by name. Of a name that is given twice, the first one counts.

    Litestar's ``request.query_params`` keeps the last thousand queries in a cache, however long they are.

    Raises:
        InputError: the query is too long or has too many parameters.
    """
    query = request.scope["query_string"]
    if not query:
        return {}
    if len(query) > MAX_QUERY:
        raise InputError(f"the query has {len(query)} bytes: must have at most {MAX_QUERY}")
    try:
        pairs = urllib.parse.parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_PARAMETERS
        )
    except ValueError as error:
        raise InputError(f"the query has too many parameters: must be at most {MAX_QUERY_PARAMETERS}") from error
    return dict(reversed(pairs))


def _over_limit(limit: int) -> str:
    return f"the body is over the limit of {limit} bytes"


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        number = float(value.replace("_", "x") if isinstance(value, str) else value)  # float() ignores "_"
        if not 0 <= number < math.inf:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} {quoted(value)}: must be a number of at least 0") from error
    return number
