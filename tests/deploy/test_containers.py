"""The images and docker-compose.yml on a real engine. No request may fail while replicas start, stop or die."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import ROOT, missing

# All of these tests share one stack, so pytest-xdist must run them in one process.
pytestmark = pytest.mark.xdist_group("containers")

REPLICAS = 3
PIXELS = {"content-type": "application/octet-stream"}
SEVEN = (ROOT / "tests" / "seven.png").read_bytes()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
MEGABYTE = 1_000_000

# Publish a copy of version 1 as another version, "intact" or "broken". As in mnist-export, a rename publishes it.
PUBLISH = """
import json, pathlib, shutil, sys
version, broken = int(sys.argv[1]), sys.argv[2] == "broken"
models = pathlib.Path("/models/mnist")
staging = shutil.copytree(models / "1", models / ".staging")
manifest = json.loads((staging / "manifest.json").read_text())
(staging / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
if broken:
    (staging / "model.onnx").write_bytes(b"rubbish")
staging.rename(models / str(version))
"""
REMOVE = "import shutil, sys; shutil.rmtree(f'/models/mnist/{sys.argv[1]}')"


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
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
        if not clients or self._run([clients[0], "info"]).returncode:
            missing("a container engine")
        with_buildkit = [
            client
            for client in clients
            if self._run([client, "build", "--help"], env=os.environ | {"DOCKER_BUILDKIT": "1"}).returncode == 0
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

    def _run(self, command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, **options)

    def run(self, *command: object, env: dict[str, str] | None = None) -> str:
        """Run a command that must succeed, and return its output."""
        done = self._run(list(command), env=self.environment | (env or {}))
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def docker(self, *arguments: object) -> str:
        return self.run("docker", *arguments)

    def inspect(self, what: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", what))[0]

    def require(self, image: str) -> None:
        """Skip the test, or fail in CI, if the image is not here and cannot be pulled."""
        for command in ("image", "inspect"), ("pull",):
            if self._run(["docker", *command, image], env=self.environment).returncode == 0:
                return
        missing(f"the image {image}, local or from a registry (PYTHON_VERSION and DEBIAN_RELEASE choose another one)")


class Stack:
    """The services of docker-compose.yml, as a separate compose project."""

    def __init__(self, engine: Engine, **settings: str) -> None:
        self.engine = engine
        self.name = f"mnist-test-{os.getpid()}"
        ports = dict.fromkeys(("MNIST_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"), "0")
        self.settings = {"COMPOSE_PROJECT_NAME": self.name, "MNIST_TAG": self.name, **ports, **settings}
        new = engine._run(["docker", "compose", "version"], env=engine.environment).returncode == 0
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


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def base(engine) -> str:
    """The name of the base image."""
    chosen = {
        name: os.environ.get(name) or re.search(rf"\${{{name}:-(.*?)}}", COMPOSE)[1]
        for name in ("PYTHON_VERSION", "DEBIAN_RELEASE")
    }
    image = f"python:{chosen['PYTHON_VERSION']}-slim-{chosen['DEBIAN_RELEASE']}"
    engine.require(image)
    return image


@pytest.fixture(scope="module")
def data(mnist) -> Path:
    """The folder with MNIST."""
    from training.data.sources import default_cache

    return Path(os.environ.get("MNIST_DATA") or default_cache() / "mnist").absolute()


@pytest.fixture(scope="module")
def stack(engine, base, data) -> Iterator[Stack]:
    """Three replicas behind HAProxy."""
    engine.require(re.search(r"haproxy:\S+", COMPOSE)[0])
    options = "--model mlp --epochs 1 --subset 5000"
    stack = Stack(engine, MNIST_REPLICAS=str(REPLICAS), MNIST_DATA=str(data), MNIST_TRAIN_OPTIONS=options)
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
            engine._run(["docker", "image", "rm", f"mnist-service:{image}"])


@pytest.fixture
def url(stack) -> str:
    """The address of HAProxy, when every replica is ready."""
    until(stack.healthy)
    url = stack.address("haproxy", 8000)
    until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
    return url


@contextlib.contextmanager
def constant_load(url: str) -> Iterator[Counter[Any]]:
    """Send predictions without pause from four clients, two of which open a new connection for each request.

    Yields a counter of status codes, errors and model versions.
    """
    stop, counts = threading.Event(), Counter()

    def ask(kept: httpx.Client | None) -> None:
        while not stop.is_set():
            try:
                response = (kept or httpx).post(f"{url}/predict", content=bytes(784), headers=PIXELS, timeout=30)
                counts[response.status_code] += 1
                if response.status_code == 200:
                    counts["version", response.json()["model"]["version"]] += 1
            except httpx.HTTPError as error:
                counts[repr(error)] += 1

    with contextlib.ExitStack() as clients:
        kept = [clients.enter_context(httpx.Client()) for _ in range(2)]
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


# The image.


def test_serving_image_is_small_and_has_no_build_tools(stack, engine, base):
    image = f"mnist-service:{stack.name}"
    assert engine.inspect(image)["Size"] - engine.inspect(base)["Size"] <= 250 * MEGABYTE
    program = "from importlib.util import find_spec; print([n for n in ('torch', 'pip', 'onnx') if find_spec(n)])"
    assert engine.docker("run", "--rm", "--entrypoint", "python", image, "-c", program) == "[]"
    assert (
        engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", "command -v gcc cc make || echo none") == "none"
    )
    assert engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", "ls -A /tmp; ls /build 2>&1 | wc -l") == "1"


def test_image_labels_and_entrypoint_match_the_project(stack, engine):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for image in stack.name, f"{stack.name}-pipeline":
        config = engine.inspect(f"mnist-service:{image}")["Config"]
        labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
        assert labels["title"] == project["name"]
        assert labels["version"] == project["version"]
        assert labels["licenses"] == project["license"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert engine.inspect(f"mnist-service:{stack.name}")["Config"]["Entrypoint"] == ["mnist-serve"]


def layers(engine: Engine, image: str) -> list[str]:
    return engine.inspect(image)["RootFS"]["Layers"]


def build(stack: Stack, engine: Engine, context: Path, *options: str) -> list[str]:
    """Build the serving image from ``context`` and return its layers."""
    if not engine.buildkit:
        missing("BuildKit (the classic builder would build the pipeline too)")
    image = f"mnist-service:{stack.name}-again"
    given = os.environ.keys() & {"PYTHON_VERSION", "DEBIAN_RELEASE"}
    chosen = [f"--build-arg={name}={os.environ[name]}" for name in given]
    engine.docker("build", "--quiet", "--target", "serving", "--tag", image, *chosen, *options, context)
    try:
        return layers(engine, image)
    finally:
        engine.docker("image", "rm", image)


def test_same_source_gives_the_same_layers(stack, engine):
    assert build(stack, engine, ROOT, "--no-cache") == layers(engine, f"mnist-service:{stack.name}")


def test_change_of_code_keeps_the_layer_of_dependencies(stack, engine, base, tmp_path):
    for entry in (ROOT / ".dockerignore").read_text().splitlines():
        if entry.startswith("!"):
            place = tmp_path / entry[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if entry.endswith("/") else shutil.copy
            copy(ROOT / entry[1:], place)
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    with (tmp_path / "serving" / "cli.py").open("a") as file:
        file.write("# another line\n")
    before, after = layers(engine, f"mnist-service:{stack.name}"), build(stack, engine, tmp_path)
    own = len(layers(engine, base))
    assert after[: own + 1] == before[: own + 1]
    assert after[own + 1] != before[own + 1]


# The service.


def test_haproxy_passes_on_a_prediction(url):
    response = httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"})
    assert response.json()["predictions"][0]["digit"] == 7


def test_haproxy_rejects_large_bodies_and_routes_of_a_single_replica(url):
    rejected = [
        (413, httpx.post(f"{url}/predict", content=bytes(8_000_001), headers=PIXELS)),
        (403, httpx.get(f"{url}/metrics")),
        (403, httpx.post(f"{url}/v2/repository/models/mnist/unload")),
    ]
    for status, response in rejected:
        assert response.status_code == response.json()["status"] == status
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]


def test_containers_have_no_privileges_and_cannot_write(stack, url, engine):
    for container in [*stack.replicas(), stack.compose("ps", "-q", "haproxy")]:
        host = engine.inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert [cap.upper() for cap in host["CapDrop"]] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
        status = engine.docker("exec", container, "cat", "/proc/1/status")
        assert re.search(r"CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert not re.search(r"^Uid:\s+0\b", status, re.MULTILINE)
    replica = stack.replicas()[0]
    for place in "/", "/opt/venv", "/models", "/models/mnist/1":
        written = engine._run(["docker", "exec", replica, "touch", f"{place}/file"])
        assert "Read-only file system" in written.stderr
    networks = engine.inspect(replica)["NetworkSettings"]["Networks"]
    assert [engine.inspect(network["NetworkID"])["Internal"] for network in networks.values()] == [True]


def test_rolling_replacement_loses_no_request(stack, url, engine):
    before = stack.replicas()
    with constant_load(url) as counts:
        engine.run(ROOT / "deploy" / "roll", env=stack.settings)
    after = stack.healthy()
    assert len(after) == REPLICAS
    assert not set(before) & set(after)
    assert outcomes(counts) == {200}


def test_death_of_a_replica_loses_no_request(stack, url, engine):
    victim = stack.replicas()[0]
    process = engine.inspect(victim)["State"]["Pid"]
    with constant_load(url) as counts:
        # The kernel kills a process in this way when memory is short, without notice to the engine.
        os.kill(process, signal.SIGKILL)
        until(lambda: engine.inspect(victim)["RestartCount"] and engine.inspect(victim)["State"]["Running"])
        until(stack.healthy)
    assert outcomes(counts) == {200}
    assert engine.inspect(victim)["State"]["Pid"] != process


def test_broken_bundle_is_rejected_while_the_old_version_serves(stack, url):
    with constant_load(url) as counts:
        stack.in_models(PUBLISH, 900, "broken")
        try:
            rejection = 'mnist_model_rejected_total{model="mnist",version="900"} 1.0'
            until(lambda: all(rejection in stack.metrics(replica) for replica in stack.replicas()))
            entries = {entry["version"]: entry for entry in httpx.post(f"{url}/v2/repository/index").json()}
            stack.in_models(PUBLISH, 901, "intact")
            until(lambda: counts["version", "901"])
        finally:
            for version in 900, 901:
                stack.in_models(REMOVE, version)
    assert entries["900"]["state"] == "UNAVAILABLE"
    assert "model.onnx" in entries["900"]["reason"]
    assert outcomes(counts) == {200}
    assert not counts["version", "900"]


def test_pipeline_publishes_a_model_that_is_served(stack, url, engine):
    with constant_load(url) as counts:
        stack.compose("up", "--detach", "--no-build", "train", "export")
        export = stack.compose("ps", "-q", "export")
        until(lambda: engine.inspect(export)["State"]["Status"] == "exited")
        log = engine.docker("logs", export)
        assert engine.inspect(export)["State"]["ExitCode"] == 0, log
        version = re.search(r"Published\s+/models/mnist/(\d+)", log)[1]
        until(lambda: counts["version", version])
    assert outcomes(counts) == {200}
    loaded = f'mnist_model_loaded{{model="mnist",version="{version}"}} 1.0'
    assert all(loaded in stack.metrics(replica) for replica in stack.replicas())
    manifest = httpx.get(f"{url}/v2/models/mnist/versions/{version}").json()
    assert manifest["name"] == "mnist"


def test_prometheus_scrapes_every_replica_and_the_alert_fires_when_all_are_down(stack, url, engine):
    engine.require(re.search(r"prom/prometheus:\S+", COMPOSE)[0])
    httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"})
    stack.compose("up", "--detach", "--no-build", "prometheus")
    prometheus = stack.address("prometheus", 9090)

    def query(expression: str) -> list[Any]:
        response = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=30).json()
        return response.get("data", {}).get("result", [])

    def firing() -> set[str]:
        alerts = httpx.get(f"{prometheus}/api/v1/alerts", timeout=30).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    until(lambda: len(query('up{job="serving"} == 1')) == REPLICAS)
    until(lambda: query('up{job="haproxy"} == 1'))
    until(lambda: query("sum(mnist_predictions_total) > 0"))
    # HAProxy exports every metric that the dashboard queries. test_deploy.py checks the metrics of the service.
    dashboard = (ROOT / "deploy" / "grafana" / "dashboards" / "mnist-service.json").read_text()
    names = set(re.findall(r"\bhaproxy_\w+", dashboard))
    assert names
    for name in names:
        assert query(name), name
    assert "MnistDown" not in firing()
    replicas = stack.replicas()
    stack.compose("stop", "serving")
    assert [engine.inspect(replica)["State"]["ExitCode"] for replica in replicas] == [0] * REPLICAS
    nobody = httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"}, timeout=30)
    assert nobody.status_code == nobody.json()["status"] == 503
    until(lambda: "MnistDown" in firing())
    stack.compose("start", "serving")
    until(lambda: "MnistDown" not in firing())
