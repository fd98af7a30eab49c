"""One call: identify, receive, run its method, time and count it, and turn an exception into a status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from serving.errors import OverloadedError, ServiceError
from serving.grpc.infer import model_infer
from serving.grpc.messages import REQUESTS, SERVICE, parsed
from serving.grpc.methods import METHODS, Method
from serving.grpc.receiving import Receiving
from serving.grpc.sending import Sending
from serving.grpc.spans import call_note
from serving.grpc.status import HTTP_STATUSES, code_of
from serving.service.call import Call, identify
from serving.service.service import Service
from serving.telemetry.logs import request_fields
from serving.telemetry.timing import Timing

log = logging.getLogger("serving")
access_log = logging.getLogger("serving.access")

Behaviour = Callable[["GrpcCall"], Awaitable[bytes]]


@dataclass(slots=True, eq=False)
class GrpcCall(Call):
    """A call over gRPC."""

    context: Any = None
    """The context of grpc.aio."""

    def deadline(self, timeout: object = None) -> float:
        """Return the same as for other calls, or the deadline of gRPC if that is earlier."""
        deadline = Call.deadline(self, timeout)
        remaining = self.context.time_remaining()
        return deadline if remaining is None else min(deadline, time.monotonic() + remaining)


class Calls:
    """The methods of the protocol, for one worker."""

    def __init__(self, service: Service, receiving: Receiving, sending: Sending) -> None:
        self._service, self._receiving, self._sending = service, receiving, sending

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method for gRPC.

        To gRPC, each method takes a stream of requests. A client that sends a single request sends the same bytes. With
        a stream, the service reads the message itself, after it has checked the key, and no longer than it wants to.
        """
        behaviours = {name: self._simple(name, method) for name, method in METHODS.items()}
        behaviours["ModelInfer"] = self._infer
        return {name: grpc.stream_unary_rpc_method_handler(self._observed(name, do)) for name, do in behaviours.items()}

    def _simple(self, name: str, method: Method) -> Behaviour:
        async def respond(call: GrpcCall) -> bytes:
            message = await self._receiving.small(call.context)
            response = await method(call, parsed(REQUESTS[name], message))
            content: bytes = response.SerializeToString()
            return content

        return respond

    async def _infer(self, call: GrpcCall) -> bytes:
        self._service.keys.check_prediction(call)
        message = await self._receiving.message(call.context)
        timing = call.timing = Timing()
        call.arrival, call.size = time.monotonic(), len(message)
        call.enter()
        call.check_admitted()
        with self._service.held.hold(call.size):
            content = await model_infer(call, message, timing)
        name, value = timing.header()
        call.context.set_trailing_metadata((*call.context.trailing_metadata(), (name.decode(), value.decode())))
        return content

    def _observed(self, name: str, behaviour: Behaviour) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Return the function for gRPC that calls ``behaviour``, and identifies, times, counts and logs the call."""
        service, recorder, tracer = self._service, self._service.recorder, self._service.tracer
        path = f"/{SERVICE}/{name}"

        async def respond(_: Any, context: Any) -> bytes:
            started = time.perf_counter()
            call = GrpcCall(service, [_header(*item) for item in context.invocation_metadata()], context=context)
            fields, request_id, call.trace = identify(call.raw_headers, tracer, path)
            call.request_id = fields["request_id"]
            context.set_trailing_metadata((("x-request-id", request_id.decode()),))
            token = request_fields.set(fields)
            recorder.in_flight += 1
            code = grpc.StatusCode.OK
            try:
                check_metadata(call, service.settings.max_head)
                content = await behaviour(call)
                self._sending.begin(context, len(content))
                return content
            except asyncio.CancelledError:
                # gRPC cancels the call at its deadline, and when the client does not want the response any more.
                is_late = context.time_remaining() == 0
                code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
                raise
            except ServiceError as error:
                code = code_of(error)
                return await self._sending.rejection(context, error)
            except Exception as error:
                code = grpc.StatusCode.INTERNAL
                log.error("%s failed", path, exc_info=error)
                return await self._sending.status(
                    context, code, "the service failed on this request; its log gives the reason"
                )
            finally:
                call.finished()
                # gRPC sends the response after this function has returned.
                asyncio.get_running_loop().call_soon(call.compare)
                recorder.in_flight -= 1
                seconds = time.perf_counter() - started
                recorder.request(path, "POST", HTTP_STATUSES[code], seconds)
                if tracer and (trace := call.trace):
                    tracer.end(call_note(call, trace, path, code, started, seconds))
                    recorder.exemplar(path, HTTP_STATUSES[code], seconds, trace.trace_id, trace.span_id)
                if service.settings.access_log:
                    milliseconds = round(seconds * 1000, 3)
                    more = {"method": "gRPC", "path": path, "status": code.name, "milliseconds": milliseconds}
                    access_log.info("request", extra={"fields": more})
                request_fields.reset(token)

        return respond


def check_metadata(call: Call, limit: int) -> None:
    """Check the size of the metadata, for which gRPC has no limit until the client acknowledges its settings.

    Raises:
        OverloadedError: the metadata has more than ``limit`` bytes. gRPC gives it the same status.
    """
    size = sum(len(name) + len(value) for name, value in call.raw_headers)
    if size > limit:
        call.raw_headers = ()  # Its memory must not stay until the client has read the response.
        raise OverloadedError(f"the metadata has {size} bytes: must be at most {limit}")


def _header(name: str, value: str | bytes) -> tuple[bytes, bytes]:
    return name.encode(), value if isinstance(value, bytes) else value.encode()
