"""The local engine: processes of this machine recognise the chunks."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from serving.batch.inputs import Input
from serving.batch.job import Job
from serving.batch.rows import Rows
from serving.errors import ServiceError, WorkerError, ending_at_start

# Seconds for the end of a process after the end of its connection.
END_SECONDS = 1.0
# Chunks that wait or are finished for each worker, while an earlier chunk takes long.
CHUNKS_PER_WORKER = 8

CRASHED = "the picture is damaged: its decoder has crashed"
# The kernel kills a process when memory is short, and then nothing is known about the picture.
KILLED = "the process that recognised the picture was killed; perhaps memory was short"


def predict(job: Job, chunks: Iterable[list[Input]], workers: int) -> Generator[Rows]:
    """Yield the rows of each chunk, in the order of the chunks.

    Raises:
        BundleError: the model cannot be loaded or verified.
        WorkerError: a process cannot start.
    """
    chunks = iter(chunks)
    first = list(islice(chunks, workers))
    workers = len(first)  # There may be fewer chunks.
    if workers < 2:
        from serving.batch.predictor import Predictor

        # One chunk takes less time than the start of a process.
        yield from map(Predictor(job), chain(first, chunks))
        return
    with _Workers(job, workers) as pool, ThreadPoolExecutor(workers) as threads:
        running: deque[Future[Rows]] = deque()
        try:
            for chunk in chain(first, chunks):
                running.append(threads.submit(pool.predict, chunk))
                if len(running) >= CHUNKS_PER_WORKER * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for each in running:
                each.cancel()
            pool.close()


class _Workers:
    """Processes that recognise chunks. Threads share them; each thread waits for one process."""

    def __init__(self, job: Job, number: int) -> None:
        self._job, self._number = job, number
        self._closing = False
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: list[_Worker] = []

    def __enter__(self) -> _Workers:
        try:
            for _ in range(self._number):
                self._all.append(_Worker(self._job))
            for worker in self._all:
                worker.wait_until_ready()
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, chunk: list[Input]) -> Rows:
        worker = self._idle.get()
        try:
            worker.wait_until_ready()
            return worker.predict(chunk)
        except (EOFError, ConnectionError):
            if self._closing:
                raise
            is_killed = worker.status() == -signal.SIGKILL
            worker = self._replace(worker)
        finally:
            # A worker that cannot start goes back too: another thread may wait for one, and then gets the same error.
            self._idle.put(worker)
        # A picture has ended the process. The others of its chunk are recognised one by one.
        if len(chunk) == 1:
            return self.predict([Input(chunk[0].name, KILLED if is_killed else CRASHED)])
        parts = [self.predict([each]) for each in chunk]
        return Rows(
            [row for part in parts for row in part.encoded],
            sum(part.unreadable for part in parts),
            next((part.first_error for part in parts if part.first_error), ""),
            sum(part.accepted for part in parts),
        )

    def _replace(self, worker: _Worker) -> _Worker:
        worker.kill()
        new = _Worker(self._job)
        self._all[self._all.index(worker)] = new
        return new

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._closing = True
        for worker in self._all:
            worker.kill()


class _Worker:
    """A process that recognises one chunk at a time. It ends when this process ends, even if that is killed.

    Raises:
        WorkerError: the system has no process, memory or file left for it.
    """

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._is_ready = False
        try:
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(job, theirs), daemon=True)
            with _without_interrupts():
                self._process.start()
        except OSError as error:
            raise WorkerError(f"a worker process cannot start: {error.strerror}; use fewer --workers") from error
        # The end of the process closes the connection only if no other process has this end of it.
        theirs.close()

    def wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            failure = self._connection.recv()
        except EOFError as error:
            self._process.join()
            ended = ending_at_start(self._process.exitcode or 0, "; use fewer --workers")
            raise WorkerError(f"a worker process {ended}") from error
        if failure:
            raise failure
        self._is_ready = True

    def predict(self, chunk: list[Input]) -> Rows:
        self._connection.send(chunk)
        rows: Rows = self._connection.recv()
        return rows

    def status(self) -> int | None:
        """Return the exit status of a process that has closed its connection, None if it does not end."""
        self._process.join(END_SECONDS)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _work(job: Job, connection: Connection) -> None:
    """Recognise chunks in a process of its own, until the other end of the connection is closed."""
    # NumPy would start a thread for each core, although nothing here multiplies large matrices.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with suppress(EOFError, ConnectionError):
        try:
            from serving.batch.predictor import Predictor

            predictor = Predictor(job)
        except ServiceError as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            connection.send(predictor(connection.recv()))


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT for processes that start inside the ``with`` statement.

    Ctrl-C in a terminal is for their parent, which ends them.
    """
    # The first process starts the resource tracker, which would unblock SIGINT.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
