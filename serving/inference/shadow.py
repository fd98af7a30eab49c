"""Shadow: after its response is sent, a request is repeated with another version of the model, and both are compared.

One thread of low priority repeats the requests, one after another, and uses a small share of the time of a core. So no
client waits for it, and a busy service repeats a part of the requests only.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time

import numpy as np

from serving.contract import Images, Reasons
from serving.errors import DeadlineExceededError, OverloadedError
from serving.inference.comparison import Comparison, answers, numbers
from serving.inference.decoder import Decoder
from serving.inference.findings import Findings, Key
from serving.inference.readings import choose
from serving.inference.threads import lower_priority

# The largest share of the time of a core for repeating requests.
SHARE = 0.05
# The longest pause after a request, in seconds.
MAX_PAUSE = 2.0
# The most requests that wait to be repeated, and the most bytes that they hold. Further requests are not repeated.
MAX_WAITING, MAX_WAITING_BYTES = 256, 4_000_000

log = logging.getLogger("serving")


class Shadow:
    """Repeats requests for one worker."""

    def __init__(self, findings: Findings, decoder: Decoder, work_timeout: float) -> None:
        self._findings, self._decoder, self._work_timeout = findings, decoder, work_timeout
        self._queue: queue.SimpleQueue[tuple[Comparison, asyncio.AbstractEventLoop] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = self._waiting_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # The versions whose failure is logged already.
        self._failing: set[Key] = set()

    def offer(self, comparison: Comparison) -> None:
        """Repeat a request if it was successful and if there is time. Call this when its response is sent."""
        if not comparison.is_complete:
            return
        size = comparison.size
        if self._waiting >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self._findings.skipped(comparison)
            return
        self._count(1, size)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()
        self._queue.put((comparison, asyncio.get_running_loop()))

    def stop(self) -> None:
        """Repeat no more requests."""
        self._stop.set()
        self._queue.put(None)

    def _count(self, requests: int, size: int) -> None:
        with self._lock:
            self._waiting += requests
            self._waiting_bytes += size

    # On the thread

    def _work(self) -> None:
        lower_priority()
        while (item := self._queue.get()) and not self._stop.is_set():
            before = time.thread_time()
            self._try(*item)
            self._count(-1, -item[0].size)
            del item  # It would keep its models in memory.
            self._stop.wait(min(MAX_PAUSE, (time.thread_time() - before) * (1 / SHARE - 1)))

    def _try(self, comparison: Comparison, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._repeat(comparison, loop)
        except (DeadlineExceededError, OverloadedError, TimeoutError):
            self._findings.skipped(comparison)
        except Exception:
            if comparison.key not in self._failing:
                self._failing.add(comparison.key)
                other = comparison.other
                log.exception("model %s version %s fails on a repeated request", other.name, other.version)
            self._findings.failed(comparison)

    def _repeat(self, comparison: Comparison, loop: asyncio.AbstractEventLoop) -> None:
        if comparison.reading is not None:
            mine, others, seconds = numbers(comparison, comparison.reading)
        else:
            images, reasons = self._images_of_other(comparison, loop)
            output, seconds = comparison.repeat(images)
            others = answers(comparison.other, images, output, reasons)
            mine = answers(comparison.model, comparison.images, comparison.output, comparison.reasons)
        if comparison.is_canary:
            self._findings.compared(comparison, others, mine, (seconds, comparison.seconds))
        else:
            self._findings.compared(comparison, mine, others, (comparison.seconds, seconds))

    def _images_of_other(self, comparison: Comparison, loop: asyncio.AbstractEventLoop) -> tuple[Images, Reasons]:
        """Return the images that the other version would have received, which may prepare pictures in another way."""
        other, digits = comparison.other, comparison.digits
        if not digits:
            return comparison.images, comparison.reasons
        how = other.bundle.manifest.prepare
        deadline = time.monotonic() + self._work_timeout
        if how != comparison.model.bundle.manifest.prepare:
            decoding = self._decoder.decode(comparison.pictures, deadline, how)
            digits = asyncio.run_coroutine_threadsafe(decoding, loop).result(self._work_timeout)
        digits = choose(other, digits, deadline)
        return np.stack([digit.image for digit in digits]), {i: digit.reason for i, digit in enumerate(digits)}
