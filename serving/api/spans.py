"""The span of an HTTP request, with the attributes of OpenTelemetry's semantic conventions for HTTP servers."""

from __future__ import annotations

from litestar.types import HTTPScope

from serving.api.context import RequestContext
from serving.api.targets import MAX_PATH
from serving.telemetry.recorder import METHODS
from serving.telemetry.traces import Attribute, Note

# Characters of a header in an attribute, and of the longest tracestate that is passed on. The standard asks for 512.
MAX_TEXT, MAX_STATE = 256, 512


def request_note(
    context: RequestContext,
    scope: HTTPScope,
    request_id: bytes,
    route: str,
    status: int,
    started: float,
    seconds: float,
) -> Note:
    """Return the note of a traced request that has ended.

    Args:
        route: the declared route, or ``unmatched``.
        started: in the time of ``time.perf_counter``.
    """
    assert context.trace is not None  # noqa: S101 (for mypy)
    method: str = scope["method"]
    attributes: dict[str, Attribute] = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "url.path": scope["path"][:MAX_PATH],
        "url.scheme": scope["scheme"],
        "http.response.status_code": status,
        "network.protocol.version": scope["http_version"],
        "mnist.request.id": request_id.decode(),
    }
    name = method if method in METHODS else "HTTP"
    if method not in METHODS:
        attributes["http.request.method_original"] = method[:MAX_TEXT]
    if route != "unmatched":
        attributes["http.route"] = route
        name += f" {route}"
    if agent := context.header(b"user-agent"):
        attributes["user_agent.original"] = agent[:MAX_TEXT]
    if status >= 500:
        attributes["error.type"] = str(status)
    state = context.header(b"tracestate") if context.trace.parent_id else None
    state = state if state and len(state) <= MAX_STATE else ""
    return Note(context.trace, state, name, started, seconds, attributes, status >= 500, context.timing)
