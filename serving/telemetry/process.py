"""Series of the process itself and of its container: versions, start, CPU time, memory, and out-of-memory kills."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

BUILD, MEMORY_KILLS = "mnist_build_info", "mnist_memory_kills"

# Where the kernel counts the processes of a container that it killed: in version 2 and in version 1 of cgroups.
MEMORY_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))

# The packages whose versions are labels, by the name of the label.
PACKAGES = {"version": "mnist-service", "onnxruntime": "onnxruntime"}


def register(registry: CollectorRegistry) -> None:
    """Add the series to a registry. Those that change are read from the kernel whenever they are collected."""
    ProcessCollector(registry=registry)
    versions = {name: importlib.metadata.version(package) for name, package in PACKAGES.items()}
    build = Gauge(BUILD, "1, with the versions as labels.", [*versions, "python"], registry=registry)
    build.labels(*versions.values(), platform.python_version()).set(1)
    text = "Processes of this container that the kernel killed because memory was short."
    Gauge(MEMORY_KILLS, text, registry=registry).set_function(memory_kills)


def memory_kills(files: Iterable[Path] = MEMORY_EVENTS) -> int:
    """Return how many processes of this container were killed because memory was short; 0 if nobody counts them."""
    for file in files:
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
