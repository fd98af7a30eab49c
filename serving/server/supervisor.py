"""The supervisor: it starts the workers, replaces workers that die, and passes messages between them.

It keeps what must outlive a worker: the names of the unloaded models, and the counters of workers that have ended. It
loads no model, so it needs little memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.errors import SettingsError, WorkerError, ending, ending_at_start
from serving.server import handover
from serving.server.channel import Channel
from serving.settings import Settings
from serving.telemetry.logs import STOPPING
from serving.telemetry.samples import (
    NOW,
    BinCounts,
    Snapshot,
    deaths,
    empty,
    forgotten,
    lasting,
    total,
    total_bins,
    without_unknown,
)
from serving.telemetry.windows import Windows

# Seconds after which a worker whose event loop does not respond is replaced.
RESPONSE_TIMEOUT = 30
# The service ends when a worker could not start this many times in a row.
MAX_FAILED_STARTS = 5
# A worker that ran for less than this many seconds is replaced after a delay, which doubles each time.
SHORT_LIFE = 60
MAX_DELAY = 30
# At shutdown a worker is killed when it needs this many seconds more than the settings allow.
EXTRA_SECONDS = 4
# Seconds to wait for the samples of disagreements of the workers.
SAMPLE_TIMEOUT = 2

log = logging.getLogger("serving")


@dataclass(eq=False)
class Worker:
    """A running worker."""

    process: Process
    channel: Channel
    is_ready: bool = False
    failure: Exception | None = None
    """Why it could not start."""
    snapshot: Snapshot = field(default_factory=empty)
    """Its last report."""
    silence: int = 0
    """Seconds since its last message. Time in which the supervisor itself was stopped (SIGSTOP) does not count."""
    asked: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    """By number, the changes and questions that it has not answered yet."""

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # It has ended already.
            self.process.kill()


class Supervisor:
    """Runs ``settings.workers`` workers that share the listening sockets.

    Args:
        announce: called with the description of the model when the first worker is ready.
    """

    def __init__(self, settings: Settings, listeners: list[socket.socket], announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._announce = announce
        self._announced = asyncio.Event()
        self._workers: list[Worker] = []
        self._unloaded: set[str] = set()
        self._past = empty()
        """The counters of all workers that have ended."""
        self._windows = Windows()
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            SettingsError, WorkerError: a worker cannot start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        watching = asyncio.create_task(self._watch())
        # The first worker starts alone. If it cannot start, there is one message instead of one from each worker.
        slots = [asyncio.create_task(self._keep_one_running())]
        await asyncio.wait({*slots, asyncio.create_task(self._announced.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if self._announced.is_set():
            slots += [asyncio.create_task(self._keep_one_running()) for _ in range(self._settings.workers - 1)]
        await asyncio.gather(*slots)
        watching.cancel()
        if self._failure:
            raise self._failure

    # The life of the workers

    async def _keep_one_running(self) -> None:
        """Start a worker, and replace it whenever it has died, until the service stops."""
        loop = asyncio.get_running_loop()
        failed_starts = short_lives = 0
        while not self._stopping.is_set():
            started = loop.time()
            was_ready, failure = await self._run_worker()
            if self._stopping.is_set():
                return
            self._past = total([self._past, deaths(1)])
            failed_starts = 0 if was_ready else failed_starts + 1
            if failed_starts and (not self._announced.is_set() or failed_starts == MAX_FAILED_STARTS):
                self._failure = failure
                self._stop(signal.SIGTERM)
                return
            log.error("%s; another worker starts", failure)
            short_lives = short_lives + 1 if loop.time() - started < SHORT_LIFE else 0
            delay = min(2 ** (short_lives - 2), MAX_DELAY) if short_lives > 1 else 0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_worker(self) -> tuple[bool, Exception]:
        """Run one worker until it has ended. Return whether it was ready, and why it ended."""
        try:
            worker = await self._start()
        except OSError as error:
            return False, WorkerError(f"cannot start a worker: {error}")
        reading = asyncio.create_task(self._follow(worker))
        if self._stopping.is_set():
            worker.kill()
        status = await worker.process.wait()
        # The last messages of the worker may still be on their way.
        await asyncio.wait({reading}, timeout=1)
        reading.cancel()
        worker.channel.abort()
        self._workers.remove(worker)
        self._past = total([self._past, lasting(worker.snapshot)])
        for asked in worker.asked.values():
            asked.set_result(None)  # The next worker starts with the models that are loaded now.
        end = ending(status) if worker.is_ready else ending_at_start(status)
        return worker.is_ready, worker.failure or WorkerError(f"worker {worker.process.pid} {end}")

    async def _start(self) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = [end.fileno() for end in (theirs, *self._listeners)]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "serving.server.worker", *map(str, inherited)),
                stdin=PIPE,
                pass_fds=(*inherited, *handover.descriptors(self._settings)),
                # The working directory may be gone when a worker starts, and then relative paths would not be found.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # Ctrl-C in a terminal reaches the supervisor only, which then stops the workers.
                process_group=0,
            )
        worker = Worker(process, await Channel.over(ours))
        self._workers.append(worker)
        if process.stdin:
            process.stdin.write(handover.written(self._settings, self._unloaded))
            process.stdin.close()
        return worker

    async def _watch(self) -> None:
        """Move the windows of the metrics, and kill workers whose event loop does not respond."""
        while True:
            await asyncio.sleep(1)
            self._windows.note(self._bins)
            for worker in self._workers:
                worker.silence += worker.is_ready
                if worker.silence > RESPONSE_TIMEOUT:
                    log.error("worker %d has not responded for %d s", worker.process.pid, RESPONSE_TIMEOUT)
                    worker.kill()

    def _stop(self, number: int) -> None:
        """Stop the workers: after the drain time if ``number`` is SIGTERM, otherwise at once."""
        if self._stopping.is_set():
            if number == signal.SIGINT:
                self._kill()
            return
        self._stopping.set()
        drain = self._settings.drain if number == signal.SIGTERM else 0
        if number == signal.SIGTERM and not self._failure:
            log.info(STOPPING, drain)
        for worker in self._workers:
            if worker.is_ready:
                worker.channel.send("stop", number)
            else:
                worker.kill()
        loop = asyncio.get_running_loop()
        loop.call_later(drain, self._close_listeners)
        loop.call_later(drain + self._settings.grace + EXTRA_SECONDS, self._kill)

    def _close_listeners(self) -> None:
        # The workers close theirs now. A socket that stays open here would go on to queue connections of new clients.
        for listener in self._listeners:
            listener.close()

    def _kill(self) -> None:
        for worker in self._workers:
            log.error("worker %d did not stop in time and is killed", worker.process.pid)
            worker.kill()

    # Messages

    async def _follow(self, worker: Worker) -> None:
        async for message in worker.channel.messages():
            worker.silence = 0
            self._handle(worker, message)

    def _handle(self, worker: Worker, message: list[Any]) -> None:
        match message:
            case ["failed", text, usage]:
                worker.failure = SettingsError(text) if usage else WorkerError(text)
            case ["ready", description]:
                worker.is_ready = True
                if not self._announced.is_set():
                    self._announced.set()
                    self._announce(description)
            case ["report", snapshot]:
                self._note(worker, snapshot)
            case ["peers", number]:
                others = [other.snapshot for other in self._workers if other is not worker]
                beginnings: Snapshot = {**empty(), "bins": self._windows.beginnings()}
                worker.channel.send("peers", number, total([self._past, *others, beginnings]))
            case ["change", number, change, name]:
                self._start_task(self._change(worker, number, change, name))
            case ["disagreements", number, name]:
                self._start_task(self._gather(worker, number, name))
            case ["applied" | "sampled", number, answer]:
                if asked := worker.asked.pop(number, None):
                    asked.set_result(answer)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task, and keep it until it has ended: the event loop itself may forget it before."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(self, worker: Worker, snapshot: Snapshot) -> None:
        """Keep the report of a worker. A version stays until all workers have forgotten it, so that no sum falls."""
        past = forgotten(worker.snapshot, snapshot)
        worker.snapshot = snapshot
        if past["counters"] or past["bins"][NOW]:
            self._past = without_unknown(total([self._past, past]), [other.snapshot for other in self._workers])
            self._windows.keep(self._bins().keys())

    def _bins(self) -> BinCounts:
        """Return the predictions in bins of all workers, also of those that have ended."""
        return total_bins([self._past, *(worker.snapshot for worker in self._workers)]).get(NOW, {})

    async def _change(self, asker: Worker, request: int, change: str, name: str) -> None:
        """Make a change to a model in every worker, and tell ``asker`` when all have confirmed it."""
        if change == "load":
            self._unloaded.discard(name)
        elif change == "unload":
            self._unloaded.add(name)
        timeout = self._settings.grace + EXTRA_SECONDS
        answers = await self._ask(self._workers, timeout, "it has not confirmed", "change", change, name)
        errors = [f"worker {worker.process.pid}: {error}" for worker, error in answers.items() if error is not None]
        asker.channel.send("changed", request, "; ".join(errors) or None)

    async def _gather(self, asker: Worker, request: int, name: str) -> None:
        """Send ``asker`` the samples of disagreements about a model of all other workers."""
        others = [worker for worker in self._workers if worker is not asker and worker.is_ready]
        answers = await self._ask(others, SAMPLE_TIMEOUT, [], "sample", name)
        asker.channel.send("gathered", request, [found for sample in answers.values() for found in sample or ()])

    async def _ask(
        self, workers: Sequence[Worker], timeout: float, missing: object, kind: str, *values: object
    ) -> dict[Worker, Any]:
        """Send a message to ``workers`` and return the answer of each; ``missing`` if it does not answer in time."""
        # Send the message to all workers before the first await, so that all workers see all changes in the same order.
        number = next(self._numbers)
        answers: dict[Worker, asyncio.Future[Any]] = {}
        for worker in workers:
            worker.asked[number] = answers[worker] = asyncio.get_running_loop().create_future()
            worker.channel.send(kind, number, *values)
        if answers:
            await asyncio.wait(answers.values(), timeout=timeout)
        for worker in answers:
            worker.asked.pop(number, None)
        return {worker: answer.result() if answer.done() else missing for worker, answer in answers.items()}
