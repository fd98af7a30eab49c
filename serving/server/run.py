"""The HTTP server under the application: uvicorn, with bounds on what a client may hold open, and workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

import uvicorn
from litestar import Litestar
from litestar.types import HTTPScope
from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess

from serving.api.app import create_app
from serving.api.middleware import refusal
from serving.inference.service import Service
from serving.server.memory import settle
from serving.settings import Settings, variable
from serving.telemetry import logs

# Tell a worker where the state is that all workers of a service share, and who is to outlive it.
RUNTIME = "MNIST_RUNTIME"
SUPERVISOR = "MNIST_SUPERVISOR"

HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Refused:
    """Stands where uvicorn has a request's cycle; its body goes nowhere."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


class Cycle(RequestResponseCycle):
    """A request and its answer; one that is there whole goes out in one write.

    ASGI has a server wait with the head until there is a body. uvicorn writes each by itself, and searches each
    header for what may not be in one, which together takes longer than a small model.
    """

    _start: HTTPResponseStartEvent | None = None

    async def send(self, message: ASGISendEvent) -> None:
        """Keep the head until the body is there."""
        if message["type"] == "http.response.start" and not self.response_started:
            # A second one is that of the 500 after a failure between head and body.
            self._start = message
            return
        start, self._start = self._start, None
        if start:
            if message["type"] == "http.response.body" and self._sent_whole(start, message):
                return
            await super().send(start)
        await super().send(message)

    def _sent_whole(self, start: HTTPResponseStartEvent, message: HTTPResponseBodyEvent) -> bool:
        """Send the answer unless there is anything out of the ordinary, which uvicorn knows how to deal with."""
        headers = [*self.default_headers, *start["headers"]]
        body = message["body"]
        head = b"\r\n".join([b"%b: %b" % header for header in headers])
        if (
            not self.keep_alive
            or self.disconnected
            or self.response_started
            or self.flow.write_paused
            or self.scope["method"] == "HEAD"
            or message.get("more_body")
            or (b"content-length", b"%d" % len(body)) not in headers
            or (b"connection", b"close") in headers
            or head.count(b"\n") != len(headers) - 1
        ):
            return False
        self.waiting_for_100_continue = False
        self.response_started = self.response_complete = True
        self.transport.write(b"".join((STATUS_LINE[start["status"]], head, b"\r\n\r\n", body)))
        self.message_event.set()
        self.on_response()
        return True


class Protocol(HttpToolsProtocol):
    """A connection that must bring each request whole in time, and whose requests are counted as they come.

    Requests are counted here and not in the application, because a busy event loop takes them all off
    their sockets before it begins with the first: only here is it known how many wait.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._service: Service = self.config.loaded_app.state.service
        self._slow: asyncio.TimerHandle | None = None
        self._head_ended = False
        self._size = 0
        self._ended = True
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects; it must say what it wants, and there must not be too many of it."""
        super().connection_made(transport)
        if len(self.connections) > self._service.settings.max_connections:
            transport.abort()
        else:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came: requests, whole or in part, or what is none."""
        super().data_received(data)
        if not self._ended:
            self._size += len(data)
            settings = self._service.settings
            # The application bounds the body itself, but never sees what chunks and trailers add to it.
            if self._size > settings.max_head + (4 * settings.max_body if self._head_ended else 0):
                self._refuse_size()
        # A request that came whole, as nearly all do, needs no timer. Line breaks between two requests begin
        # none, but have ended the wait for the next.
        answered = self.cycle is None or self.cycle.response_complete
        # After an answer the connection has uvicorn's time to idle.
        idle = self.timeout_keep_alive_task is not None
        if self._slow is None and not idle and (answered or not self._ended):
            self._expect()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._ended = self._head_ended = False
        self._size = 0

    def on_headers_complete(self) -> None:
        """Its headers are there; if too many requests wait, it is refused before anything is set up for it."""
        self._head_ended = True
        self._refused = False
        idle = self.cycle is None or self.cycle.response_complete
        path = self.url.partition(b"?")[0].decode("latin-1")
        if idle and self.parser.get_method() == b"POST" and self._service.gate.is_full(path):
            self._refused = True
            self.cycle = Refused()  # type: ignore[assignment]
            if self.expect_100_continue:
                # It waits to hear whether its body is wanted; whether it would send it after this, nobody knows.
                self._refuse(b"connection: close\r\n")
                self.transport.close()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is there, body and all."""
        super().on_message_complete()
        self._ended = True
        self._expect_nothing()
        if self._refused:
            if self.transport.is_closing():
                return
            self._refuse()
            self.on_response_complete()
            if not self.parser.should_keep_alive():
                self.transport.close()
            return
        # A pipelined request waits for its turn on its own connection, may never have it, and is counted when it has.
        if not self.pipeline and not self.cycle.response_complete:
            self._service.gate.arrived(cast("MutableMapping[str, Any]", self.scope))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # uvicorn has no other place to say of which class a cycle is.
        cycle.__class__ = Cycle
        if not cycle.more_body:
            self._service.gate.arrived(cast("MutableMapping[str, Any]", cycle.scope))
        super()._start_asgi_task(cycle, app)

    def _refuse(self, header: bytes = b"") -> None:
        self.scope |= {"method": self.parser.get_method().decode("ascii"), "path": self.url.decode("latin-1")}
        self.transport.write(refusal(self._service, cast("HTTPScope", self.scope), header))

    def _refuse_size(self) -> None:
        if not self.transport.is_closing():
            if not self._head_ended:
                self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()

    def _expect(self) -> None:
        self._slow = self.loop.call_later(self._service.settings.request_timeout, self._too_slow)

    def _expect_nothing(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def run(settings: Settings, listener: socket.socket, app: Litestar) -> None:
    """Serve until SIGTERM or SIGINT, with as many workers as ``settings`` say.

    Args:
        app: what a single worker serves, in this process; several make their own, after they were started.
    """
    if settings.workers == 1:
        server = uvicorn.Server(configuration(settings, app))
        settle()
        # uvicorn finishes the requests under way, then sends itself the signal again.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        server.run(sockets=[listener])
        return
    with tempfile.TemporaryDirectory(prefix="mnist-serve-") as runtime:
        for part in ("metrics", "unloaded"):
            (Path(runtime) / part).mkdir()
        # How workers learn their settings: they are fresh processes, started by spawn.
        os.environ |= {variable(name): str(value) for name, value in vars(settings).items()}
        os.environ |= {RUNTIME: runtime, SUPERVISOR: str(os.getpid()), "PROMETHEUS_MULTIPROC_DIR": f"{runtime}/metrics"}
        supervisor = Multiprocess(configuration(settings, "serving.server.run:worker"), [listener])
        # The supervisor's own handlers would be looked at twice a second only.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.should_exit.set())
        supervisor.run()


def configuration(settings: Settings, app: Litestar | str) -> uvicorn.Config:
    """How uvicorn runs ``app``, or what makes it."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        http=Protocol,
        ws="none",
        log_config=None,
        # Below this it tells of every malformed request, and whoever sends those fills the disk.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.grace,
        # A worker that does not answer for so long is replaced.
        timeout_worker_healthcheck=30,
        backlog=2048,
    )


def worker() -> Litestar:
    """The application of one of several workers, with the settings of the environment."""
    settings = Settings.from_environment()
    logs.configure(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with, args=(int(os.environ[SUPERVISOR]),), daemon=True).start()
    app = create_app(settings, Path(os.environ[RUNTIME]) / "unloaded")
    settle()
    return app


def _end_with(supervisor: int) -> None:
    """Stop when the supervisor is gone: without it nobody would ever stop this worker."""
    while os.getppid() == supervisor:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
