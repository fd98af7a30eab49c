"""Run the application under uvicorn in this process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

import uvicorn
from litestar import Litestar

from serving.models.results import stated_accuracy
from serving.server.address import BACKLOG
from serving.server.limits import LimitedProtocol
from serving.server.memory import settle
from serving.server.server import Server
from serving.settings import Settings
from serving.tls import Credentials

# Seconds until a thread hands the interpreter lock to the event loop. Python's default is 5 ms, the time of ten
# predictions for a single image.
SWITCH_INTERVAL = 0.0005
# The process ends at the latest this many seconds after the last response.
EXTRA_SECONDS = 2


def run(server: Server, listeners: list[socket.socket]) -> None:
    """Serve in this process until SIGTERM or SIGINT."""
    tune()
    # uvicorn finishes the requests in flight and then raises the signal again, for this handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, exit_soon)
    server.run(sockets=listeners)


def exit_soon(*_: object) -> None:
    """End this process when it has responded to all requests. Do not wait long for threads that still work."""
    backstop = threading.Timer(EXTRA_SECONDS, os._exit, (0,))
    backstop.daemon = True
    backstop.start()
    sys.exit(0)


def make_server(settings: Settings, app: Litestar) -> Server:
    """Return the server of one process.

    Raises:
        SettingsError: the certificate cannot be used.
    """
    return Server(configuration(settings, app), Credentials.of(settings))


def configuration(settings: Settings, app: Litestar) -> uvicorn.Config:
    """Return uvicorn's configuration for an application."""
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        # At a lower level uvicorn logs every malformed request, so a client could fill the disk.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.grace,
        backlog=BACKLOG,
    )


def tune() -> None:
    """Tune this process: its memory and the time that a thread may run. Call this once, when the model is loaded."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    settle()


def description(app: Litestar) -> str:
    """Return a line that describes the default model."""
    service = app.state.service
    model = service.repository.get(service.settings.model)
    accuracy = stated_accuracy(model.bundle.manifest.result.get("test", {}))
    return f"{model.name} version {model.version}: accuracy {accuracy}, {model.precision}, verified on this CPU"
