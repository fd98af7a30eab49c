"""Helpers for several test files: the commands, a client of the application, and the service as a process."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# The content type of raw pixels.
PIXELS = {"content-type": "application/octet-stream"}


# What the line of mnist-serve with its addresses begins with.
ADDRESSES = ("http://", "https://", "unix:")


def missing(what: str) -> NoReturn:
    """Skip the test, or the tests of a module, because ``what`` is missing on this machine. In CI they fail instead."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}", allow_module_level=True)


def font_file(name: str) -> Path:
    """Return the path of a font that is installed with matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def picture(image: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    """Return an array as the bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Give up the rights of root, who may read everything, inside the block."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def mode_0(folder: Path) -> Iterator[None]:
    """Take all rights from a folder, and give up those of root, inside the block."""
    mode = folder.stat().st_mode
    folder.chmod(0)
    try:
        with unprivileged():
            yield
    finally:
        folder.chmod(mode)


@contextlib.contextmanager
def application(**settings: Any) -> Iterator[Any]:
    """Yield a client of an application with these settings, in this process."""
    from litestar.testing import TestClient

    from serving.api.app import create_app
    from serving.settings import Settings

    app = create_app(Settings(**settings))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def service(*arguments: object, **options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``mnist-serve`` as a process on a free port. Yield its first address and the process."""
    with started(*arguments, **options) as (addresses, process):
        yield addresses["http"], process


@contextlib.contextmanager
def started(*arguments: object, **options: Any) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    """Run ``mnist-serve`` as a process on free ports. Yield its addresses by protocol, and the process.

    The first address over HTTP is a URL. The address over gRPC, which there is with ``--grpc-port 0``, is a host and a
    port.
    """
    line = [BIN / "mnist-serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert process.stdout is not None
    try:
        output = ""
        for text in process.stdout:
            output += text
            if text.startswith(ADDRESSES):
                grpc = re.search(r"^grpcs?://(\S+)", output, re.MULTILINE)
                yield {"http": text.split()[0], "grpc": grpc[1] if grpc else ""}, process
                return
        pytest.fail(f"mnist-serve ended with {process.wait()}: {output}{process.stderr and process.stderr.read()}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def new_environment(folder: Path, *requirements: object) -> subprocess.CompletedProcess[str]:
    """Make an environment in ``folder`` and install into it. Return the result of pip, which may have failed.

    The pip of this Python does the work, and compiles nothing: a test imports only few of the installed files.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder, "--disable-pip-version-check", "install", "--quiet"]
    line = [*pip, "--no-compile", *requirements]
    return subprocess.run(list(map(str, line)), capture_output=True, text=True)


def until(condition):
    """Wait until ``condition()`` is true, for example because of another process. Fail after two minutes."""
    event = threading.Event()
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        if condition():
            return
        event.wait(0.01)
    pytest.fail("did not happen within 120 s")
