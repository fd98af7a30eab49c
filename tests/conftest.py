"""Fixtures for all tests: the real MNIST, the commands, and a client of the service."""

from __future__ import annotations

import functools
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import certifi
import pytest

from tests.support import BIN, Run, application

# Several test processes run in parallel on few cores. More threads in each process would only slow them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_create_context = functools.cache(ssl.create_default_context)


def _context(*arguments: Any, **options: Any) -> ssl.SSLContext:
    """Return one shared context to all who want just the certificates of the public authorities."""
    places = {"cafile": (certifi.where(), os.environ.get("SSL_CERT_FILE")), "capath": (os.environ.get("SSL_CERT_DIR"),)}
    if not arguments and any(options in [{name: path} for path in paths] for name, paths in places.items()):
        return _create_context(**options)
    return _create_context.__wrapped__(*arguments, **options)


# httpx reads all these certificates for every client, even for plain HTTP. This takes 40 ms, and a request takes 1 ms.
# Tests that poll a service would mostly read certificates.
ssl.create_default_context = _context


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options to run the conformance suite against another server of the protocol."""
    parser.addoption("--base-url", help="test_open_inference.py tests this server and starts none")
    parser.addoption("--model-name", default="mnist", help="the model that test_open_inference.py uses on that server")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """With ``--dist loadfile``, run all files of tests/deploy in one process, because they share one container engine.

    ``--dist loadgroup`` would be the usual way. With pytest 9.2, pytest-xdist 3.8 does not keep groups together.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrEngine(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::")[0])
            return str(file.parent if file.parent.name == "deploy" else file)

    return ByFileOrEngine(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def run() -> Run:
    """Run one of the project's commands as a user would."""

    def run(command: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        line = [str(BIN / command), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, **options)

    return run


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST with a validation set of 5,000 images."""
    from training.data.digits import load

    return load("mnist", validation=5000)


@pytest.fixture(scope="session")
def digits(mnist):
    """The 10,000 test images as numpy, uint8 ``[10000, 28, 28]``."""
    return mnist.test.images.numpy()


@pytest.fixture(scope="session")
def truth(mnist):
    """The labels of the 10,000 test images as numpy."""
    return mnist.test.labels.numpy()


@pytest.fixture(scope="module")
def client():
    """A client of the service with its default settings."""
    with application() as client:
        yield client


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate authority, whose certificates and keys are files."""
    from tests.authority import Authority

    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def in_the_way(tmp_path_factory, monkeypatch):
    """Make a folder the current one whose files have the names of modules, and fail when they are imported."""
    folder = tmp_path_factory.mktemp("of the user")
    for name in ("random", "copy", "pip", "training", "export"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('this is no module {name}')\n")
    monkeypatch.chdir(folder)
