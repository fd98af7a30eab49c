"""A container engine, and the services of docker-compose.yml on it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import PIXELS, ROOT, missing

PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}
SEVEN = (ROOT / "tests" / "seven.png").read_bytes()
INFER = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}]}
# Predictions of each kind: path, headers and body.
REQUESTS = (
    ("/predict", PIXELS, bytes(784)),
    ("/predict", PNG, SEVEN),
    ("/v2/models/mnist/infer", JSON, json.dumps(INFER).encode()),
)
# The load balancer holds at most 64 kB, so it cannot send this one again if a replica dies.
LARGE = ("/predict", PIXELS, bytes(784 * 100))

REPLICAS = 3
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def until(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until ``condition`` returns a true value, and return that value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(httpx.TransportError):
            value = condition()
            if value:
                return value
        threading.Event().wait(0.2)
    pytest.fail(f"the condition was not met within {seconds} s")


class Engine:
    """The container engine, used through a client that builds with BuildKit if one is installed."""

    def __init__(self) -> None:
        clients = [Path(folder, "docker") for folder in os.get_exec_path() if Path(folder, "docker").exists()]
        if not clients or self.attempt([clients[0], "info"]).returncode:
            missing("a container engine")
        with_buildkit = [
            client
            for client in clients
            if self.attempt([client, "build", "--help"], env=os.environ | {"DOCKER_BUILDKIT": "1"}).returncode == 0
        ]
        self.buildkit = bool(with_buildkit)
        client = (with_buildkit or clients)[0]
        self.environment = os.environ | {
            "PATH": f"{client.parent}{os.pathsep}{os.environ['PATH']}",
            "DOCKER_BUILDKIT": str(int(self.buildkit)),
            "COMPOSE_DOCKER_CLI_BUILD": "1",
            # On a busy machine the engine may respond slowly.
            "COMPOSE_HTTP_TIMEOUT": "300",
        }

    def attempt(self, command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail, and return its outcome."""
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, **options)

    def run(self, *command: object, env: dict[str, str] | None = None) -> str:
        """Run a command that must succeed, and return its output."""
        done = self.attempt(list(command), env=self.environment | (env or {}))
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def docker(self, *arguments: object) -> str:
        return self.run("docker", *arguments)

    def inspect(self, what: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", what))[0]

    def require(self, image: str) -> None:
        """Skip the test, or fail in CI, if the image is not here and cannot be pulled."""
        for command in ("image", "inspect"), ("pull",):
            if self.attempt(["docker", *command, image], env=self.environment).returncode == 0:
                return
        missing(f"the image {image}, local or from a registry (PYTHON_VERSION and DEBIAN_RELEASE choose another one)")


class Stack:
    """The services of docker-compose.yml, as a separate compose project."""

    def __init__(self, engine: Engine, **settings: str) -> None:
        self.engine = engine
        self.name = f"mnist-test-{os.getpid()}"
        ports = dict.fromkeys(("MNIST_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"), "0")
        self.settings = {"COMPOSE_PROJECT_NAME": self.name, "MNIST_TAG": self.name, **ports, **settings}
        new = engine.attempt(["docker", "compose", "version"], env=engine.environment).returncode == 0
        self.command = ["docker", "compose"] if new else ["docker-compose"]

    def compose(self, *arguments: object) -> str:
        profiles = ("--profile", "pipeline", "--profile", "monitoring")
        return self.engine.run(*self.command, *profiles, *arguments, env=self.settings)

    def replicas(self) -> list[str]:
        return self.compose("ps", "-q", "serving").split()

    def healthy(self) -> list[str]:
        """Return the replicas if all of them are healthy, and an empty list otherwise."""
        replicas = self.replicas()
        states = [self.engine.inspect(replica)["State"] for replica in replicas]
        return replicas if all(state.get("Health", {}).get("Status") == "healthy" for state in states) else []

    def reload(self) -> None:
        """Let HAProxy read its files again, as the documentation says."""
        self.compose("exec", "-T", "haproxy", "sh", "-c", "kill -USR2 1")

    def address(self, service: str, port: int) -> str:
        return f"http://{self.compose('port', service, port)}"

    def metrics(self, replica: str) -> str:
        """Return the metrics of one replica. The request runs in its container, because HAProxy blocks this route."""
        program = (
            "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics', timeout=9).read().decode())"
        )
        return self.engine.docker("exec", replica, "python", "-c", program)

    def in_models(self, program: str, *arguments: object) -> None:
        """Run a Python program in a container that can write to the model volume."""
        volume = ("--volume", f"{self.name}_models:/models")
        image = f"mnist-service:{self.name}"
        self.engine.docker("run", "--rm", *volume, "--entrypoint", "python", image, "-c", program, *arguments)


@contextlib.contextmanager
def constant_load(
    url: str, verify: ssl.SSLContext | bool = True, key: str = "none", large: bool = True
) -> Iterator[Counter[Any]]:
    """Send predictions without pause from four clients, two of which open a new connection for each request.

    A service without keys ignores the key. Yields a counter of status codes, errors and model versions.

    Args:
        large: whether one request in four is larger than what the load balancer can send again.
    """
    stop, counts = threading.Event(), Counter()
    key_header = {"authorization": f"Bearer {key}"}

    def ask(kept: httpx.Client | None) -> None:
        for path, headers, body in itertools.cycle([*REQUESTS, LARGE] if large else REQUESTS):
            if stop.is_set():
                return
            try:
                with contextlib.nullcontext(kept) if kept else httpx.Client(verify=verify) as client:
                    response = client.post(f"{url}{path}", content=body, headers=headers | key_header, timeout=30)
                counts[response.status_code] += 1
                if response.status_code == 200:
                    content = response.json()
                    counts["version", content.get("model_version") or content["model"]["version"]] += 1
            except httpx.HTTPError as error:
                counts[repr(error)] += 1
                # Nobody listens while the engine is restarted.
                stop.wait(0.05)

    with contextlib.ExitStack() as clients:
        kept = [clients.enter_context(httpx.Client(verify=verify)) for _ in range(2)]
        threads = [threading.Thread(target=ask, args=[client]) for client in (*kept, None, None)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: counts.total() > 50)
            yield counts
            seen = counts.total()
            until(lambda: counts.total() > seen + 50)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def outcomes(counts: Counter[Any]) -> set[Any]:
    return {outcome for outcome in counts if not isinstance(outcome, tuple)}
