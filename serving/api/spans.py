"""The span of an HTTP request, with the attributes of OpenTelemetry's semantic conventions for HTTP servers."""

from __future__ import annotations

from litestar.types import HTTPScope

from serving.api.targets import MAX_PATH
from serving.service.call import MAX_TEXT, Call
from serving.telemetry.notes import Attribute, Note, Trace
from serving.telemetry.recorder import METHODS


def request_note(
    call: Call,
    trace: Trace,
    scope: HTTPScope,
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
    method: str = scope["method"]
    attributes: dict[str, Attribute] = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "url.path": scope["path"][:MAX_PATH],
        "url.scheme": scope["scheme"],
        "http.response.status_code": status,
        "network.protocol.version": scope["http_version"],
    }
    name = method if method in METHODS else "HTTP"
    if method not in METHODS:
        attributes["http.request.method_original"] = method[:MAX_TEXT]
    if route != "unmatched":
        attributes["http.route"] = route
        name += f" {route}"
    if status >= 500:
        attributes["error.type"] = str(status)
    return call.note(trace, name, attributes, started, seconds, is_error=status >= 500)
