"""Attacks over real connections: the service does not fail, good requests get right responses, budgets are checked."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time

import httpx
import pytest

from benchmarks import footprint, watched
from benchmarks.abuse import MEMORY, Result, good_requests_beside
from benchmarks.attacks import ATTACKS, described, run_random
from benchmarks.bystanders import Bystander
from benchmarks.clients import Outcome, is_fault
from tests.support import service, until


def under(url, attacking):
    """Run an attack beside good requests, and return what the service did."""

    async def phase():
        return await good_requests_beside(httpx.URL(url).port, asyncio.ensure_future(attacking))

    return asyncio.run(phase())


def check_afterwards(url, process):
    assert process.poll() is None
    assert httpx.get(f"{url}/v2/health/ready", timeout=60).status_code == 200
    # Only this request is in flight.
    until(lambda: "mnist_http_requests_in_flight 1.0" in httpx.get(f"{url}/metrics", timeout=60).text)


@pytest.mark.parametrize("seed", [1, 2])
def test_service_survives_random_requests(seed, tmp_path):
    with service("--feedback", tmp_path) as (url, process):
        outcome, good = under(url, run_random(httpx.URL(url).port, 1500, seed))
        assert list(described(outcome.failures)) == []
        assert not any(each.wrong for each in good)
        assert all(each.right for each in good)
        # Requests that are all valid would prove nothing: the service must have rejected many with a reason.
        assert outcome.statuses["400"] > 500
        check_afterwards(url, process)
        assert 'status="5' not in httpx.get(f"{url}/metrics", timeout=60).text


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    with service("--feedback", tmp_path_factory.mktemp("feedback")) as (url, process):
        yield url, process


# The other attacks take long, or need a machine for themselves.
@pytest.mark.parametrize(
    "name",
    [
        *("boundaries and headers in forms", "small chunks", "slow senders", "connections that are reset"),
        *("half-closed connections", "300 connections at once", "upgrades", "heads over the limit"),
        *("bodies over the limit", "pipelined requests", "corrections"),
    ],
)
def test_service_survives_the_attack(name, attacked, monkeypatch):
    # On a busy machine a megabyte of tiny chunks may take long.
    monkeypatch.setattr("benchmarks.clients.PATIENCE", 60.0)
    url, process = attacked
    attack = dataclasses.replace(ATTACKS[name], connections=min(50, ATTACKS[name].connections))
    outcome, good = under(url, attack.run(httpx.URL(url).port, attack.prepared(), 0.5))
    assert list(described(outcome.failures)) == []
    assert not any(each.wrong for each in good)
    assert all(each.right for each in good)
    check_afterwards(url, process)


# The measurements


def good(**members):
    return dataclasses.replace(Bystander("pixels", b"", bool, right=1), **members)


def result(**members):
    usual = {"memory": 1, "memory_after": 1, "blocked": 0, "late": 0, "busy": 0, "alive": True, "where": ""}
    return Result(**{"name": "x", "outcome": Outcome(), "good": [good()], **usual, **members})


@pytest.mark.parametrize(
    ("members", "budget"),
    [
        ({"memory": MEMORY + 1}, "memory"),
        ({"blocked": 0.06}, "event loop"),
        ({"busy": 7}, "work"),
        ({"outcome": Outcome(seconds={"x": 7})}, "work"),
        ({"outcome": Outcome(failures=[("x", "500", b"")])}, "responses"),
        ({"good": [good(longest=1.1)]}, "good requests late"),
        ({"good": [good(), good(wrong=[("200", b"")])]}, "good requests wrong"),
        ({"good": [good(right=0)]}, "good requests wrong"),
        ({"alive": False}, "died"),
    ],
)
def test_broken_budget_is_named(members, budget):
    assert result().broken() == []
    assert result(**members).broken() == [budget]
    assert result(**members).row().endswith(f"| {budget} |")


def test_fault_is_a_5xx_other_than_busy_too_late_and_disk_full():
    assert [status for status in ("200", "429", "500", "502", "503", "504", "507", "closed") if is_fault(status)] == [
        "500",
        "502",
    ]


def work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_watchdog_measures_the_longest_step_and_tells_where_it_was(tmp_path):
    file = tmp_path / "watch"
    file.write_bytes(bytes(16))

    async def block():
        watched.Watchdog(file).start()
        await asyncio.sleep(0.05)
        watched.reset(file)
        work(0.3)
        await asyncio.sleep(0.05)

    asyncio.run(block())
    late, blocked = watched.read(file)
    assert 0.1 < blocked <= late
    assert "in work" in file.with_suffix(".where").read_text()


def test_many_short_steps_do_not_count_as_a_long_one(tmp_path):
    file = tmp_path / "watch"
    file.write_bytes(bytes(16))

    async def step():
        work(0.01)

    async def crowd():
        watched.Watchdog(file).start()
        await asyncio.sleep(0.05)
        watched.reset(file)
        await asyncio.gather(*(step() for _ in range(40)))
        await asyncio.sleep(0.05)

    asyncio.run(crowd())
    late, blocked = watched.read(file)
    assert blocked < late / 2


HOLDER = """
import sys, tempfile, time
held = b"x" * 50_000_000
file = tempfile.TemporaryFile()
file.write(held[:20_000_000])
file.flush()
time.sleep(60)
"""


def test_footprint_counts_memory_temporary_files_and_child_processes():
    with subprocess.Popen([sys.executable, "-c", HOLDER]) as process:
        try:
            assert process.pid in footprint.family(os.getpid())
            with footprint.Footprint(process.pid) as held:
                until(lambda: held.files == 20 and held.largest > 70)
        finally:
            process.kill()
