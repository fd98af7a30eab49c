"""What a process may use of its machine, alone and in a container."""

from __future__ import annotations

import os

import pytest

from serving.batch.run import default_workers
from serving.machine import Machine, this_machine


def groups(folder, own, **files):
    """Write the files of control groups, and return the arguments of this_machine()."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_max", ".max").replace("_cfs", ".cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return folder, folder / "own"


def test_quota_and_memory_of_the_container_count(tmp_path):
    whole = this_machine(tmp_path, tmp_path / "missing")
    assert whole.cores == len(os.sched_getaffinity(0))
    limited = groups(tmp_path, "0::/pod/box\n", cpu_max="max 100000", pod__cpu_max="50000 100000")
    (tmp_path / "pod" / "box").mkdir()
    (tmp_path / "pod" / "box" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "pod" / "memory.max").write_text("500000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    # The group around the own one limits too. A quota beyond the cores of the cpuset changes nothing.
    assert this_machine(*limited) == Machine(0.5, 500_000_000)
    assert str(this_machine(*limited)) == "0.5 cores, 0.5 GB of memory"


def test_limits_of_version_1_count(tmp_path):
    for path, text in {
        "cpu/docker/cpu.cfs_quota_us": "25000",
        "cpu/docker/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "-1",
        "memory/memory.limit_in_bytes": "100000000",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert this_machine(*groups(tmp_path, "4:cpu:/docker\n5:memory:/docker\n")) == Machine(0.25, 100_000_000)


@pytest.mark.parametrize(("cores", "workers"), [(0.5, 1), (2.5, 2), (8.0, 8)])
def test_batches_start_one_process_for_each_whole_core(monkeypatch, cores, workers):
    monkeypatch.setattr("serving.batch.run.usable_cores", lambda: cores)
    assert default_workers() == workers
