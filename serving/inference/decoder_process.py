"""The process of a worker that decodes large pictures. It is killed when a picture takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from serving.contract import SYMBOL, Preparation
from serving.errors import (
    DeadlineExceededError,
    InputTooLargeError,
    OverloadedError,
    PictureError,
    ServiceError,
    ending_at_start,
)
from serving.inference.threads import to_its_end, turn
from serving.pictures.mnist_form import Digit
from serving.pictures.number_form import NumberPage
from serving.pictures.process import NUMBERS, READY, REQUEST, RESPONSE, TASKS, Task, parse
from serving.settings import PREFIX

# Seconds without a large picture after which the process ends and its memory is free.
IDLE_SECONDS = 30.0

# Seconds that the process has to start. On a busy machine it needs some.
START_SECONDS = 60.0

# The pictures of a request may use a core for this share of the time until its deadline. If they use more, they are too
# slow to decode. If they use less and still pass the deadline, they have waited for others and may succeed later.
CORE_SHARE = 0.8
# Seconds. A client that allows less has set its own deadline, and gets DeadlineExceededError when it passes.
SHORT = 1.0

# The shortest time that the process is given for a picture.
LEAST_SECONDS = 1e-3

# glibc returns freed memory beyond this many bytes to the system, and takes larger buffers from the system directly. By
# default it keeps up to 64 MB, and then the memory of a process depends on the pictures before. The system has to clear
# such memory for each picture: with less than this, decoding takes up to twice as long. The buffers of a drawing of
# 512x512 pixels have 3 MB.
KEPT_BYTES = 1 << 22
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
}

log = logging.getLogger("serving")


def too_late(seconds: float, core_seconds: float) -> ServiceError:
    """Return the error for a request whose deadline has passed.

    Args:
        seconds: the time that the request had for its pictures.
        core_seconds: the time that they kept a core busy.
    """
    has_waited = core_seconds < CORE_SHARE * seconds
    return OverloadedError() if has_waited and seconds >= SHORT else DeadlineExceededError()


class DecoderProcess:
    """Decodes one picture at a time in a process of its own. The process starts with the first picture."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._process: asyncio.Task[Process] | None = None
        """The start of the process, which is done when the process is ready."""
        self._killed: Process | None = None
        self._lock = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def session(self, deadline: float) -> AsyncIterator[Session]:
        """Wait until no other request uses the process, and keep it for one inside the ``async with`` statement.

        The requests take turns in the order in which they come. If their pictures took turns instead, several requests
        with many pictures would all pass their deadlines.

        Raises:
            DeadlineExceededError: the deadline, in the time of ``time.monotonic``, has passed already; or the pictures
                take more than ``CORE_SHARE`` of the time until the deadline; or that time was ``SHORT`` and passes.
            OverloadedError: the deadline passes. The request has waited for other requests, for the start of the
                process or for a core.
        """
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceededError
        try:
            async with turn(self._lock, deadline, TimeoutError):
                if self._idle:
                    self._idle.cancel()
                try:
                    yield Session(self._ask, deadline, CORE_SHARE * seconds)
                finally:
                    self._kill_later()
        except TimeoutError as error:
            raise too_late(seconds, 0.0) from error

    async def _ask(self, head: bytes, content: bytes, deadline: float) -> tuple[int, float, bytes]:
        async def ask() -> tuple[int, float, bytes]:
            async with asyncio.timeout(deadline - time.monotonic()):
                process = await self._started()
                try:
                    return await _exchange(process, head, content)
                except BaseException:
                    # The process has ended, or it may still send this response, which the next request would take for
                    # its own.
                    self._kill()
                    raise

        # If the caller is cancelled, killing the process would cost the next request the start of another.
        return await to_its_end(asyncio.create_task(ask()))

    async def close(self) -> None:
        """End the process."""
        if self._idle:
            self._idle.cancel()
        if self._process:
            with contextlib.suppress(OSError, RuntimeError, OverloadedError):
                process = await self._process
                self._kill()
                await process.wait()
                await cast("asyncio.StreamWriter", process.stdin).wait_closed()

    async def _started(self) -> Process:
        """Return the process. Start one if there is none or if it has ended."""
        start = self._process
        if start is None or (start.done() and (start.exception() or start.result().returncode is not None)):
            start = self._process = asyncio.create_task(self._start())
        # If the deadline passes now, the wait ends but the start goes on, because the next picture needs the process.
        return await asyncio.shield(start)

    async def _start(self) -> Process:
        # A killed process may still have much memory.
        if self._killed:
            await self._killed.wait()
        return await _start(self._max_pixels)

    def _kill_later(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._kill)

    def _kill(self) -> None:
        if self._process is None:
            return
        if not self._process.done():
            # The process still starts, and nobody waits for it.
            self._kill_later()
            return
        # The event loop learns of the end a little later. Until then the next picture must not use this process.
        start, self._process = self._process, None
        if not start.exception():
            self._killed = start.result()
            with contextlib.suppress(ProcessLookupError):
                self._killed.kill()


class Session:
    """The use of the process by one request, whose pictures are decoded one after another.

    Args:
        ask: sends a picture to the process and returns its response, or raises TimeoutError at the deadline.
        deadline: in the time of ``time.monotonic``.
        core_seconds: the seconds of a core that all pictures may take together.
    """

    def __init__(
        self,
        ask: Callable[[bytes, bytes, float], Awaitable[tuple[int, float, bytes]]],
        deadline: float,
        core_seconds: float,
    ) -> None:
        self._ask = ask
        self._deadline = deadline
        self._core_seconds = core_seconds

    async def decode(self, content: bytes, how: Preparation = SYMBOL) -> Digit:
        """Return the digit in a picture file, as :func:`serving.pictures.prepare.prepare` does.

        Raises: as :meth:`read_numbers`.
        """
        return cast("Digit", await self._decode(content, how))

    async def read_numbers(self, content: bytes) -> NumberPage:
        """Return the lines in a picture file, as :func:`serving.pictures.number_form.to_number_page` does.

        Raises:
            PictureError: the picture is damaged, or it made the decoder crash.
            InputTooLargeError: a limit is exceeded.
        """
        return cast("NumberPage", await self._decode(content, NUMBERS))

    async def _decode(self, content: bytes, task: Task) -> Digit | NumberPage:
        # A timer of 0 seconds would never end.
        seconds = max(LEAST_SECONDS, self._deadline - time.monotonic())
        head = REQUEST.pack(seconds, max(LEAST_SECONDS, self._core_seconds), TASKS.index(task), len(content))
        kind, self._core_seconds, result = await self._ask(head, content, self._deadline)
        return parse(kind, result)


async def _start(max_pixels: int) -> Process:
    # Decoders read untrusted bytes, so the process does not get the keys in the service's settings.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    process = await asyncio.create_subprocess_exec(
        # -P: no file of the current folder can take the place of a module.
        *(sys.executable, "-P", "-m", "serving.pictures.process", str(max_pixels)),
        stdin=PIPE,
        stdout=PIPE,
        # Ctrl-C in a terminal is for the service, which ends this process when it has finished.
        start_new_session=True,
        env=environment | ENVIRONMENT,
    )
    # A picture may be half written when the process ends. asyncio before Python 3.11.4 logs an error about that, unless
    # somebody asks how the pipe was closed.
    closed = asyncio.ensure_future(cast("asyncio.StreamWriter", process.stdin).wait_closed())
    closed.add_done_callback(lambda done: done.cancelled() or done.exception())
    output = cast("asyncio.StreamReader", process.stdout)
    try:
        ready = await asyncio.wait_for(output.read(len(READY)), START_SECONDS)
    except TimeoutError as error:
        process.kill()
        log.error("the process that decodes pictures did not start within %g s", START_SECONDS)
        raise OverloadedError("this picture cannot be decoded at the moment; try again later") from error
    if ready != READY:
        status = await process.wait()
        reason = f"the process that decodes pictures {ending_at_start(status)}"
        if status == -signal.SIGKILL:
            log.warning(reason)
            raise OverloadedError("there is no memory for decoding this picture at the moment; try again later")
        raise RuntimeError(reason)
    return process


async def _exchange(process: Process, head: bytes, content: bytes) -> tuple[int, float, bytes]:
    """Send a picture to the process, and return the three parts of its response.

    Raises:
        PictureError, InputTooLargeError, DeadlineExceededError, TimeoutError: the process has ended.
    """
    requests = cast("asyncio.StreamWriter", process.stdin)
    responses = cast("asyncio.StreamReader", process.stdout)
    try:
        requests.write(head)
        requests.write(content)
        await requests.drain()
        kind, core_seconds, size = RESPONSE.unpack(await responses.readexactly(RESPONSE.size))
        return kind, core_seconds, await responses.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        status = await process.wait()
        if status == -signal.SIGPROF:
            raise DeadlineExceededError from error
        if status == -signal.SIGALRM:
            raise TimeoutError from error
        log.warning(
            "a picture of %d bytes ended the process that decodes pictures with status %d", len(content), status
        )
        if status == -signal.SIGKILL:  # The kernel kills a process when memory is short.
            raise InputTooLargeError("decoding the picture takes too much memory; send a smaller picture") from error
        raise PictureError("the picture is damaged: its decoder has crashed") from error
