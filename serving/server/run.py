"""Run the application under uvicorn, in this process or in several workers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn
from litestar import Litestar
from uvicorn.supervisors import Multiprocess, multiprocess

from serving.api.app import create_app
from serving.server.limits import LimitedProtocol
from serving.server.memory import settle
from serving.server.server import Server
from serving.settings import Settings
from serving.telemetry import logs

# uvicorn's supervisor makes the server of each worker by this name.
multiprocess.Server = Server  # type: ignore[attr-defined]

# Connections that the kernel holds until a worker accepts them.
BACKLOG = 2048
# Seconds until a thread hands the interpreter lock to the event loop. Python's default is 5 ms, the time of ten
# predictions for a single image.
SWITCH_INTERVAL = 0.0005
# Seconds after which a worker that does not respond to its supervisor is replaced.
HEALTHCHECK_TIMEOUT = 30


def run(settings: Settings, listener: socket.socket, app: Litestar) -> None:
    """Serve until SIGTERM or SIGINT, with as many workers as ``settings`` say.

    Args:
        app: the application, if there is a single worker, which is this process. Several workers each create their own.
    """
    if settings.workers == 1:
        _run_here(settings, listener, app)
    else:
        _run_workers(settings, listener)


def _run_here(settings: Settings, listener: socket.socket, app: Litestar) -> None:
    server = Server(configuration(settings, app))
    tune()
    # uvicorn finishes the requests in flight and then raises the signal again, for this handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    server.run(sockets=[listener])


def _run_workers(settings: Settings, listener: socket.socket) -> None:
    with tempfile.TemporaryDirectory(prefix="mnist-serve-") as folder:
        runtime = Path(folder)
        for part in ("metrics", "unloaded"):
            (runtime / part).mkdir()
        # prometheus_client reads this variable when it is imported. Each worker is a new process and imports it again.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(runtime / "metrics")
        worker = partial(make_worker, settings, runtime / "unloaded", os.getpid())
        supervisor = Multiprocess(configuration(settings, worker), [listener])
        # uvicorn's own signal handlers would stop the supervisor up to half a second later.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.should_exit.set())
        supervisor.run()


def configuration(settings: Settings, app: Litestar | Callable[[], Litestar]) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, or for a picklable function that makes one in a worker."""
    return uvicorn.Config(
        app,
        factory=not isinstance(app, Litestar),
        workers=settings.workers,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        # On a lower level uvicorn logs every malformed request, so a client could fill the disk.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.grace,
        timeout_worker_healthcheck=HEALTHCHECK_TIMEOUT,
        backlog=BACKLOG,
    )


def make_worker(settings: Settings, unloaded: Path, supervisor: int) -> Litestar:
    """Create the application of one of several workers, in a new process.

    Args:
        unloaded: folder with an empty file for each unloaded model, shared by all workers.
        supervisor: the process id of the supervisor.
    """
    logs.configure(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    app = create_app(settings, unloaded)
    tune()
    return app


def tune() -> None:
    """Tune this process: its memory and the time that a thread may run. Call this once, when the model is loaded."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    settle()


def _end_with(supervisor: int) -> None:
    """Stop this worker when its supervisor has ended, because nothing else would stop it then."""
    while os.getppid() == supervisor:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
