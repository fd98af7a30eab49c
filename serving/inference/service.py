"""What every handler needs: settings, models, metrics, keys; how much work is taken at once, and where it is done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving.api.auth import Keys
from serving.api.http import AnyRequest
from serving.inference.batching import Batches
from serving.models.repository import Repository
from serving.settings import Settings
from serving.telemetry.metrics import Metrics

# A larger body is decoded on a thread, so that it does not keep others' digits waiting; for less, the change of
# thread would cost as much as the work.
INLINE_BYTES = 16_384

# So many large pieces of work at once in a worker; their threads give way to single digits.
THREADS = 2
NICE = 10
# Seconds until such a thread hands the interpreter to the event loop; Python's own 5 ms are ten single digits.
SWITCH = 0.0005

T = TypeVar("T")


class Gate:
    """Bounds the predictions that wait or are under way, by counting requests as they come off the socket."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    def is_full(self, path: str) -> bool:
        """Whether a request to ``path`` is to be refused. Only predictions are counted."""
        return self._taken >= self._limit and self._counts(path)

    def arrived(self, scope: MutableMapping[str, Any]) -> None:
        """A whole request is there: take it, or mark it refused, if others came while it was being sent."""
        scope["mnist.arrival"] = time.monotonic()
        if not self._counts(scope["path"]):
            return
        if self._taken >= self._limit:
            scope["mnist.refused"] = True
        else:
            scope["mnist.taken"] = True
            self._taken += 1

    @staticmethod
    def _counts(path: str) -> bool:
        path = path.rstrip("/")
        return path == "/predict" or (path.startswith("/v2/models/") and path.endswith("/infer"))

    def left(self, scope: MutableMapping[str, Any]) -> None:
        """The request is answered, or its client gone."""
        if scope.pop("mnist.taken", False):
            self._taken -= 1


@dataclass
class Service:
    """One application's parts."""

    settings: Settings
    repository: Repository
    metrics: Metrics
    keys: Keys
    gate: Gate
    batches: Batches
    draining: bool = False
    """SIGTERM has come: not ready any more, still answering."""
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, "large", initializer=_be_nice)
    )

    async def do(self, work: Callable[[], T], *, large: bool) -> T:
        """Do ``work`` here, or on a thread if it is large."""
        if not large:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _be_nice() -> None:
    sys.setswitchinterval(SWITCH)
    # On Linux niceness is a thread's own. Elsewhere it would be the process's.
    with contextlib.suppress(OSError, AttributeError):
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def service_of(request: AnyRequest) -> Service:
    """The parts of the application that answers ``request``."""
    service: Service = request.scope["mnist.service"]  # type: ignore[typeddict-item]
    return service
