"""The engine on Ray Data: the machines of a cluster recognise the chunks. Only here ray is used, an optional package.

Each machine needs this package, and finds the pictures and the model under the same names as this machine.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from serving.batch.inputs import Input
from serving.batch.job import Job
from serving.batch.rows import Rows
from serving.errors import WorkerError, last_line
from serving.models.repository import load

# Chunks in one data set. Ray keeps all names of a data set in memory.
SECTION = 4096
CONNECT_SECONDS = 5.0
START_TRIES = 3
# The exit status of a program that SIGTERM has ended.
TERMINATED = 128 + signal.SIGTERM


def predict(job: Job, chunks: Iterable[list[Input]], address: str | None) -> Generator[Rows]:
    """Yield the rows of each chunk, in the order of the chunks.

    Args:
        address: of a cluster. None starts one on this machine, which ends with the last chunk.

    Raises:
        BundleError: the model cannot be loaded or verified.
        WorkerError: the cluster cannot be reached, or a process of it failed.
    """
    check_address(address)
    # Load the model here first: if it cannot be loaded, no cluster starts.
    load(job.repository, job.model, job.version)
    # By default Ray reports usage over the network.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import ray.data

    # Ray's own lines about its work would stand between ours. Its errors become exceptions.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job = replace(job, repository=job.repository.absolute())
    try:
        _connect(ray, address)
        # At SIGTERM, Ray would print its stack, abort, and leave processes of its cluster behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        yield from _run(ray, job, iter(chunks))
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise WorkerError(f"Ray failed: {last_line(error)}") from error
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        ray.init(address, **options)
        return
    # Ray gives its processes 30 s to start, and has no setting for that. A busy machine may need longer.
    for left in reversed(range(START_TRIES)):
        try:
            ray.init("local", **options)
            return
        except Exception as error:  # Ray raises no narrower class
            ray.shutdown()
            if not left:
                raise WorkerError(f"Ray cannot start on this machine: {last_line(error)}") from error


def _run(ray: Any, job: Job, chunks: Iterator[list[Input]]) -> Iterator[Rows]:
    class Actor:
        """The predictor in a process of Ray, which gets the job with this class."""

        def __init__(self) -> None:
            os.environ["OPENBLAS_NUM_THREADS"] = "1"
            from serving.batch.predictor import Predictor

            self._predict = Predictor(job)

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            inputs = zip(row["names"], row["errors"], strict=True)
            return self._predict([Input(os.fsdecode(name), error or None) for name, error in inputs])._asdict()

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, int(ray.cluster_resources().get("CPU", 1))))
    while section := list(islice(chunks, SECTION)):
        data = ray.data.from_items([_packed(chunk) for chunk in section]).map(Actor, compute=pool)
        for rows in data.iter_rows():
            yield Rows(list(rows["encoded"]), rows["unreadable"], rows["first_error"], rows["accepted"])


def _packed(chunk: list[Input]) -> dict[str, Any]:
    """Return a chunk as a row of a data set. Its names are bytes, because Ray takes only names that are UTF-8."""
    return {"names": [os.fsencode(each.name) for each in chunk], "errors": [each.error or "" for each in chunk]}


def check_address(address: str | None) -> None:
    """Check that a program listens on an address HOST:PORT. Ray would try for two minutes.

    Raises:
        WorkerError: it does not.
    """
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address or "")
    if not found:
        return
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise WorkerError(f"--ray-address {address}: no cluster can be reached there ({error})") from error
