"""Fixtures that several subjects share: the real MNIST, the commands, and the service in and out of process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

# Tests run side by side on few cores; more threads each only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """The conformance suite can be pointed at any server of the protocol."""
    parser.addoption("--base-url", help="test_open_inference.py asks this server instead of one of its own")
    parser.addoption("--model-name", default="mnist", help="the model it asks about there")


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def missing(what: str) -> NoReturn:
    """Something real is not to be had: a reason to skip on a user's machine, a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def run() -> Run:
    """Run one of the project's commands as a user would."""

    def run(command: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        line = [str(BIN / command), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, **options)

    return run


def font_file(name: str) -> Path:
    """A font that matplotlib brings along."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST with 5,000 images set aside for validation."""
    from training import data

    return data.load("mnist", validation=5000)


@pytest.fixture(scope="session")
def digits(mnist):
    """The 10,000 test images as numpy, uint8 ``[10000, 28, 28]``."""
    return mnist.test.images.numpy()


@pytest.fixture(scope="session")
def truth(mnist):
    """Their labels."""
    return mnist.test.labels.numpy()


def picture(image: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    """An array as the bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def application(**settings: Any) -> Iterator[Any]:
    """A client of an application with these settings, in this process."""
    from litestar.testing import TestClient

    from serving.app import create_app
    from serving.settings import Settings

    with TestClient(create_app(Settings(**settings)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client():
    """A client of the service as it comes."""
    with application() as client:
        yield client


@contextlib.contextmanager
def service(*arguments: object, **options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``mnist-serve`` as a real process on a free port: its address and the process."""
    line = [BIN / "mnist-serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert process.stdout is not None
    try:
        said = ""
        for text in process.stdout:
            said += text
            if text.startswith("http://"):
                yield text.split()[0], process
                return
        pytest.fail(f"mnist-serve ended with {process.wait()}: {said}{process.stderr and process.stderr.read()}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
