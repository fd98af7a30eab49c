"""Fixtures for the tests that need a container engine. They share one stack of containers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.stack import COMPOSE, REPLICAS, Engine, Stack, until


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="session")
def base(engine) -> str:
    """The name of the base image."""
    chosen = {
        name: os.environ.get(name) or re.search(rf"\${{{name}:-(.*?)}}", COMPOSE)[1]
        for name in ("PYTHON_VERSION", "DEBIAN_RELEASE")
    }
    image = f"python:{chosen['PYTHON_VERSION']}-slim-{chosen['DEBIAN_RELEASE']}"
    engine.require(image)
    return image


@pytest.fixture(scope="session")
def data(mnist) -> Path:
    """The folder with MNIST."""
    from training.data.cache import default_cache

    return Path(os.environ.get("MNIST_DATA") or default_cache() / "mnist").absolute()


@pytest.fixture(scope="session")
def stack(engine, base, data) -> Iterator[Stack]:
    """Three replicas behind HAProxy."""
    engine.require(re.search(r"haproxy:\S+", COMPOSE)[0])
    options = "--model mlp --epochs 1 --subset 5000"
    settings = {"MNIST_TRAIN_OPTIONS": options, "MNIST_EXPORT_OPTIONS": "--min-accuracy 0.5"}
    stack = Stack(engine, MNIST_REPLICAS=str(REPLICAS), MNIST_DATA=str(data), **settings)
    try:
        stack.compose("build", "packaged-model", "serving", "train")
        stack.compose("up", "--detach", "--no-build", "haproxy")
        until(stack.healthy)
        yield stack
        # pytest shows this if a test failed.
        print(stack.compose("logs", "--tail", "100", "haproxy", "serving"))
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")
        for image in stack.name, f"{stack.name}-model", f"{stack.name}-pipeline":
            engine.attempt(["docker", "image", "rm", f"mnist-service:{image}"])


@pytest.fixture
def url(stack) -> str:
    """The address of HAProxy, when every replica is ready."""
    until(stack.healthy)
    url = stack.address("haproxy", 8000)
    until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
    return url
