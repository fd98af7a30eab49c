"""A collector of traces for tests: it receives spans over HTTP, as OpenTelemetry's protocol (OTLP) says."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """The spans that have arrived."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.seen = 0
        self.may_respond = threading.Event()
        self.may_respond.set()
        self.url = ""

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Take the body of a request to ``/v1/traces`` and return the status of the response."""
        self.seen += 1
        if path != "/v1/traces" or headers["content-type"] != "application/x-protobuf":
            return 400
        self.may_respond.wait(60)
        if self.status == 200:
            content = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            for group in ExportTraceServiceRequest.FromString(content).resource_spans:
                self.resources.append(attributes(group.resource))
                self.headers.append(headers)
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return self.status

    def roots(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def children(self, root: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_span_id == root.span_id]


def attributes(of: Any) -> dict[str, Any]:
    """Return the attributes of a span or of a resource as Python values."""

    def value(field: Any) -> Any:
        kind = field.WhichOneof("value")
        return [value(item) for item in field.array_value.values] if kind == "array_value" else getattr(field, kind)

    return {attribute.key: value(attribute.value) for attribute in of.attributes}


@contextlib.contextmanager
def collector(redirect: Collector | None = None) -> Iterator[Collector]:
    """Run a collector on a free port of this machine. With ``redirect``, it sends its clients to that other one."""
    received = Collector()
    received.status = 307 if redirect else 200

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            self.send_response(received.take(self.path, headers, body))
            if redirect:
                self.send_header("location", f"{redirect.url}{self.path}")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        received.may_respond.set()
        server.shutdown()
        server.server_close()
        thread.join()
