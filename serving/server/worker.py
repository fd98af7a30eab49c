"""One of several workers: a process that serves, and follows the messages of the supervisor.

The supervisor starts ``python -m serving.server.worker CHANNEL LISTENER...`` with inherited sockets, and writes the
settings to standard input.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn

from serving.api.app import create_app
from serving.errors import ModelNotFoundError, ModelUnavailableError, ServiceError, SettingsError
from serving.server import handover
from serving.server.channel import Channel, line
from serving.server.run import EXTRA_SECONDS, description, exit_soon, make_server, tune
from serving.service.peers import ModelChange, Peers
from serving.service.service import Service
from serving.telemetry import logs
from serving.telemetry.samples import Snapshot, empty

# Seconds between two reports to the supervisor. A scrape of another worker shows the last report.
REPORT_INTERVAL = 0.5
# Seconds to wait for the metrics of the other workers; then those of the last scrape are used.
PEERS_TIMEOUT = 2

log = logging.getLogger("serving")


def main() -> None:
    """Serve until the supervisor sends ``stop``, or until the supervisor has ended."""
    channel, *listeners = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    for inherited in (channel, *listeners):
        inherited.set_inheritable(False)
    settings, unloaded = handover.read()
    logs.configure(settings.log_level, settings.log_format)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # The supervisor stops the workers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    watched = os.dup(channel.fileno())
    threading.Thread(target=_end_with_supervisor, args=(watched, settings.grace), daemon=True).start()
    try:
        app = create_app(settings, unloaded)
        server = make_server(settings, app)
    except Exception as error:
        channel.sendall(line(*_failed(error)))
        sys.exit(1)
    tune()
    # uvicorn replaces these handlers while it serves. It raises the signal again when it has finished.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        text = "" if settings.model in unloaded else description(app)
        try:
            runner.run(_serve(server, app.state.service, text, channel, listeners))
        except ServiceError:  # The supervisor has the reason.
            sys.exit(1)
        exit_soon()


async def _serve(
    server: uvicorn.Server, service: Service, text: str, channel: socket.socket, listeners: list[socket.socket]
) -> None:
    supervised = Supervised(service, await Channel.over(channel))
    serving = asyncio.create_task(server.serve(sockets=listeners))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.01)
    following = asyncio.create_task(supervised.follow())
    if server.started:
        supervised.channel.send("ready", text)
    elif failure := serving.exception():
        supervised.channel.send(*_failed(failure))
    while not serving.done():
        await asyncio.wait({serving}, timeout=REPORT_INTERVAL)
        await supervised.report()
    following.cancel()
    await supervised.channel.close()
    await serving


def _failed(error: BaseException) -> tuple[str, str, bool]:
    """Return the message that tells the supervisor why this worker cannot start."""
    text = str(error) if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
    return "failed", " ".join(text.split()), isinstance(error, SettingsError)


class Supervised(Peers):
    """The service of this worker, connected with the supervisor and so with the other workers."""

    def __init__(self, service: Service, channel: Channel) -> None:
        self.channel = channel
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._questions: dict[int, asyncio.Future[Any]] = {}
        # Changes have a single thread, so that they keep their order. A slow change does not delay reports.
        self._changing = ThreadPoolExecutor(1, "model-changes")
        self._reporting = ThreadPoolExecutor(1, "report")
        # Not the thread of changes: a promotion by --promote-after waits until that thread has followed it.
        self._comparing = ThreadPoolExecutor(1, "rollouts")
        self._others = empty()
        service.peers = self

    async def follow(self) -> None:
        """Handle the messages of the supervisor."""
        async for message in self.channel.messages():
            match message:
                case ["stop", number]:
                    self._service.draining = True
                    signal.raise_signal(number)
                case ["change", number, change, name]:
                    self._changing.submit(self._apply, number, change, name)
                case ["sample", number, name]:
                    self._comparing.submit(self._sample, number, name)
                case ["changed" | "peers" | "gathered", number, answer]:
                    if (question := self._questions.pop(number, None)) and not question.done():
                        question.set_result(answer)

    async def report(self) -> Snapshot:
        """Send the metrics of this worker, and return them. This also tells the supervisor that the event loop runs."""
        snapshot = await self._loop.run_in_executor(self._reporting, self._service.recorder.snapshot)
        if not self.channel.is_congested():
            self.channel.send("report", snapshot)
        return snapshot

    # Peers

    async def snapshots(self) -> list[Snapshot]:
        mine = await self.report()
        try:
            self._others = await asyncio.wait_for(self._ask("peers"), PEERS_TIMEOUT)
        except TimeoutError:
            log.warning(
                "the supervisor does not respond: the metrics of the other workers are those of the last scrape"
            )
        return [mine, self._others]

    def change(self, change: ModelChange, name: str) -> None:
        error = asyncio.run_coroutine_threadsafe(self._ask("change", change, name), self._loop).result()
        if error is not None:
            done = "promoted or dropped" if change == "rollout" else f"{change}ed"
            raise ModelUnavailableError(f"model {name!r} is not {done} in every worker: {error}; try again")

    def disagreements(self, name: str) -> list[dict[str, Any]]:
        found = asyncio.run_coroutine_threadsafe(self._ask("disagreements", name), self._loop).result()
        return list(found)

    async def _ask(self, kind: str, *values: object) -> Any:
        number = next(self._numbers)
        self._questions[number] = answer = self._loop.create_future()
        try:
            self.channel.send(kind, number, *values)
            return await answer
        finally:
            self._questions.pop(number, None)

    def _apply(self, number: int, change: ModelChange, name: str) -> None:
        error = None
        try:
            self._service.apply(change, name)
            if change == "load":
                self._service.repository.get(name)
        except ModelNotFoundError:
            pass  # To unload a missing model is no error. A failed load is reported by the worker that got the request.
        except Exception as failure:
            error = str(failure)
            log.warning("cannot %s model %s: %s", change, name, error)
        self._loop.call_soon_threadsafe(self.channel.send, "applied", number, error)

    def _sample(self, number: int, name: str) -> None:
        sample: list[dict[str, Any]] = []
        try:
            self._service.flush_rollouts()
            sample = self._service.checked_rollouts().sample(name)
        except Exception as failure:
            log.warning("cannot report the rollout of model %s: %s", name, failure)
        self._loop.call_soon_threadsafe(self.channel.send, "sampled", number, sample)


def _end_with_supervisor(channel: int, grace: int) -> None:
    """Wait on a thread until the supervisor has ended, and then end this worker. Nothing else would end it."""
    poll = select.poll()
    poll.register(channel, 0)
    poll.poll()  # Returns when the other end is closed.
    log.error("the supervisor has ended: this worker ends too")
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(grace + EXTRA_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
