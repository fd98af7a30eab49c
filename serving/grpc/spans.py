"""The span of a call over gRPC, with the attributes of OpenTelemetry's semantic conventions for gRPC servers."""

from __future__ import annotations

import grpc

from serving.service.call import Call
from serving.telemetry.notes import Attribute, Note, Trace

# The codes that are faults of a server. The conventions count the others as faults of the client.
FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


def call_note(call: Call, trace: Trace, path: str, code: grpc.StatusCode, started: float, seconds: float) -> Note:
    """Return the note of a traced call that has ended.

    Args:
        path: the method, such as ``/inference.GRPCInferenceService/ModelInfer``.
        started: in the time of ``time.perf_counter``.
    """
    method = path.removeprefix("/")
    attributes: dict[str, Attribute] = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": code.name,
    }
    if code in FAULTS:
        attributes["error.type"] = code.name
    return call.note(trace, method, attributes, started, seconds, is_error=code in FAULTS)
