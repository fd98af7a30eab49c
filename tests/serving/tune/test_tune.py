"""mnist-serve tune finds the settings with the highest throughput within a p99, and says how it knows."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from serving.errors import TuneError
from serving.machine import Machine
from serving.settings import RELEASE
from serving.tune import load
from serving.tune.load import drive
from serving.tune.run import worker_counts
from serving.tune.search import MAX_IMAGES, MAX_PER_WORKER, Result, Search, Trial
from serving.tune.service import _wait_for_workers
from tests.support import BIN, PIXELS, service, until


def test_workers_follow_the_cores_and_the_memory():
    assert worker_counts(Machine(0.5, 1 << 40)) == [1]
    assert worker_counts(Machine(2, 1 << 40)) == [1, 2]
    assert worker_counts(Machine(5.5, 1 << 40)) == [1, 2, 4, 6]
    assert worker_counts(Machine(64, 1_000_000_000)) == [1, 2, 4, 6]


# The search, on a machine that is only a formula


class Formula:
    """A machine with some cores, on which an image takes a millisecond."""

    def __init__(self, cores=2, overload=1.0):
        self.cores, self.overload = cores, overload
        self.trials = []

    def measure(self, trial):
        self.trials.append(trial)
        speed = min(trial.workers, self.cores, trial.connections) * 1000 / trial.images
        in_flight = min(trial.connections, (trial.limit or math.inf) * trial.workers)
        rate = speed * min(1, in_flight / trial.workers / 2)
        p99 = max(1, in_flight / speed * 1000) / 1000 * (self.overload if trial.limit else 1)
        return Result(trial, rate, p99 / 2, p99)


def test_search_takes_the_fastest_workers_and_as_many_requests_as_the_p99_allows():
    found = Search(Formula().measure, 0.0101).run([1, 2, 4])
    # Four workers on two cores are not faster, and wait longer.
    assert (found.workers, found.limit, found.images) == (2, 10, 8)
    assert (found.steady.rate, found.is_whole) == (2000, True)
    assert found.overload.trial == Trial(2, 40, limit=10)


def test_search_lowers_the_limit_when_the_p99_does_not_hold_under_twice_the_load():
    found = Search(Formula(overload=1.5).measure, 0.0101).run([1, 2])
    assert found.limit == 5
    assert found.overload.p99 <= 0.0101
    with pytest.raises(
        TuneError, match=r"^--p99 10\.1ms: some settings stay within it, but none did under twice the load"
    ):
        Search(Formula(overload=10).measure, 0.0101).run([1, 2])


def test_search_names_the_lowest_p99_when_it_cannot_reach_the_one_that_is_asked_for():
    with pytest.raises(TuneError, match=r"--p99 0.5ms: no settings .* lowest p99 was 1ms, with --workers 1 and 1 in"):
        Search(Formula().measure, 0.0005).run([1, 2])


def test_search_has_bounds_without_a_p99_that_matters():
    machine = Formula()
    found = Search(machine.measure, 1e9).run([2])
    assert (found.limit, found.images) == (MAX_PER_WORKER, MAX_IMAGES)
    assert len(machine.trials) < 25


def test_search_ends_when_its_time_is_over_and_still_checks_what_it_found():
    machine = Formula()
    found = Search(machine.measure, 1.0, lambda: len(machine.trials) / 4).run([1, 2])
    assert (found.workers, found.images, len(machine.trials), found.is_whole) == (1, 2, 5, False)
    # A first measurement is made in any case.
    assert Search(machine.measure, 1.0, lambda: 1.0).run([1, 2]).images is None


# The load


def serve(*statuses, working=lambda: None):
    """Return the port of a server that responds to the first connection with these statuses, and then closes it.

    It calls ``working`` before each response.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        with listener, listener.accept()[0] as connection:
            for status in statuses:
                connection.recv(1 << 16)
                working()
                connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n12" % status)
                connection.sendall(b"345")
            connection.recv(1 << 16)

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("statuses", "message"),
    [((200, 429, 500), "responded with 500"), ((200,), "closed a connection")],
)
def test_load_reports_what_no_measurement_may_hide(statuses, message):
    with pytest.raises(TuneError, match=message):
        drive(serve(*statuses), b"x", 1, 60)


def test_load_counts_the_whole_time_of_a_response_that_takes_longer_than_the_measurement(monkeypatch):
    clock = SimpleNamespace(now=0.0, process_time=time.process_time)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(load, "time", clock)
    found = drive(serve(200, working=lambda: setattr(clock, "now", 1.0)), b"x", 1, seconds=0.1, warm_up=0.25)
    assert (found.latencies, found.seconds) == ([1.0], 0.75)


def test_measured_service_is_not_looked_for_through_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    content = b'mnist_model_loaded{model="mnist",version="1"} 2.0\n'

    def respond(listener):
        with listener, listener.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=respond, args=[listener], daemon=True).start()
    _wait_for_workers(listener.getsockname()[1], workers=2)


# The command


def test_command_measures_and_prints_a_command_line_that_works(run):
    done = run(
        "mnist-serve",
        "--model",
        "mnist",
        *("tune", "--p99", "20s", "--seconds", "3"),
        preexec_fn=lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]),
        env=os.environ | {"MNIST_PREDICT_KEYS": "secret", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("This process may use 1 core, ")
    rows = [line for line in lines if line.startswith("| 1 | ")]
    assert "limit" in rows[-1]
    assert any(line.startswith("Best within a p99 of 20s: ") for line in lines)
    command, *arguments = shlex.split(lines[-1])
    assert (command, arguments[:3]) == ("mnist-serve", ["--workers", "1", "--max-concurrency"])
    with service(*arguments) as (url, _):
        assert httpx.post(f"{url}/predict", content=bytes(784), headers=PIXELS).status_code == 200


@pytest.mark.parametrize("arguments", [("tune", "--model", "mnist"), ("--model", "mnist", "tune")])
def test_model_that_is_named_is_measured_although_it_is_the_default(run, tmp_path, arguments):
    shutil.copytree(RELEASE / "mnist", tmp_path / "letters")
    done = run("mnist-serve", *arguments, "--repository", str(tmp_path), "--seconds", "1")
    assert done.returncode == 1
    assert "no model 'mnist'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_the_measured_service_too(number):
    process = subprocess.Popen([BIN / "mnist-serve", "tune", "--p99", "20s"], stdout=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(children.read_text)
    [child] = children.read_text().split()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}[number]
    state = Path(f"/proc/{child}/stat")
    until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--p99", "5"], "'5': must be a time of more than 0, such as 5ms, 500us or 0.2s"),
        (["--p99", "0ms"], "'0ms': must be a time of more than 0"),
        (["--picture", "none.png"], "none.png' does not exist"),
        (["--picture", os.devnull, "--seconds", "1"], "the measured service responded with 400: "),
        (["--repository", "nowhere", "--seconds", "1"], "nowhere does not exist; publish a model there"),
    ],
)
def test_command_explains_a_mistake_in_one_line(run, arguments, message):
    done = run("mnist-serve", "tune", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
