"""Fixtures that several subjects share: the real MNIST, the commands, and a client of the service."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support import BIN, Run, application

# Tests run side by side on few cores. More threads in each process would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The conformance suite can be pointed at any server of the protocol."""
    parser.addoption("--base-url", help="test_open_inference.py asks this server instead of one of its own")
    parser.addoption("--model-name", default="mnist", help="the model it asks about there")


@pytest.fixture(scope="session")
def run() -> Run:
    """Run one of the project's commands as a user would."""

    def run(command: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        line = [str(BIN / command), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, **options)

    return run


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST with 5,000 images set aside for validation."""
    from training.data.digits import load

    return load("mnist", validation=5000)


@pytest.fixture(scope="session")
def digits(mnist):
    """The 10,000 test images as numpy, uint8 ``[10000, 28, 28]``."""
    return mnist.test.images.numpy()


@pytest.fixture(scope="session")
def truth(mnist):
    """Their labels."""
    return mnist.test.labels.numpy()


@pytest.fixture(scope="module")
def client():
    """A client of the service as it comes."""
    with application() as client:
        yield client
