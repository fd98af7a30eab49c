"""Series of the process itself and of its container: versions, start, CPU time, memory, and out-of-memory kills."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

BUILD, MEMORY_KILLS = "mnist_build_info", "mnist_memory_kills"

# Where the kernel counts the processes of a container that it killed: in version 2 and in version 1 of cgroups.
MEMORY_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def register(registry: CollectorRegistry) -> None:
    """Add the series to a registry. They are read from the kernel whenever they are collected."""
    ProcessCollector(registry=registry)
    registry.register(_Container())


class _Container(Collector):
    def __init__(self) -> None:
        versions = {name: importlib.metadata.version(package) for name, package in _PACKAGES.items()}
        self._build = GaugeMetricFamily(BUILD, "1, with the versions as labels.", labels=[*versions, "python"])
        self._build.add_metric([*versions.values(), platform.python_version()], 1)

    def collect(self) -> Iterable[Metric]:
        text = "Processes of this container that the kernel killed because memory was short."
        return [self._build, GaugeMetricFamily(MEMORY_KILLS, text, value=memory_kills())]


_PACKAGES = {"version": "mnist-service", "onnxruntime": "onnxruntime"}


def memory_kills(files: Iterable[Path] = MEMORY_EVENTS) -> int:
    """Return how many processes of this container were killed because memory was short; 0 if nobody counts them."""
    for file in files:
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
