"""The cores, the memory and the open files that this process may have: those of the machine, or fewer."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """What this process may use."""

    cores: float
    """The cores of its cpuset, or fewer if its containers have a quota (cpu.max)."""
    memory: int
    """Bytes: of the machine, or fewer if its containers have a limit (memory.max)."""

    def __str__(self) -> str:
        return f"{self.cores:g} {'core' if self.cores == 1 else 'cores'}, {self.memory / 1e9:.1f} GB of memory"


def this_machine(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> Machine:
    """Return what this process may use.

    Args:
        cgroups: where the file system of the control groups is mounted.
        own: the file that names the groups of this process.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in _folders(cgroups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory = min([memory, *(int(word) for word in _words(folder / name) if word.isdigit())])
    return Machine(usable_cores(cgroups, own), memory)


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Return the cores that this process may use. A container may have a part of a core."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:
        cores = float(os.cpu_count() or 1)
    for folder in _folders(cgroups, own, "cpu"):
        # Version 2 has one file with quota and period, version 1 has two files. "max" and -1 mean no quota.
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and all(word.isdigit() for word in words):
            cores = min(cores, int(words[0]) / int(words[1]))
    return cores


def allow_files(count: int) -> int:
    """Allow this process, and those that it starts, ``count`` open files if possible. Return how many they may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    with contextlib.suppress(OSError, ValueError):  # A sandbox may forbid it.
        soft = count if hard == resource.RLIM_INFINITY else min(hard, count)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _folders(cgroups: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups of this process that may limit it: its own, and those around it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has one hierarchy. Version 1 has one for each controller.
        top = cgroups / controller if controllers else cgroups
        folder = top / path.lstrip("/")
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent
        yield top


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
