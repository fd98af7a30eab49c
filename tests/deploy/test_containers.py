"""The images and docker-compose.yml on a real engine; every request is counted while replicas come, go and die."""

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

# One stack for all of these tests, and so one worker.
pytestmark = pytest.mark.xdist_group("containers")

REPLICAS = 3
PIXELS = {"content-type": "application/octet-stream"}
SEVEN = (ROOT / "tests" / "seven.png").read_bytes()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
MEGABYTE = 1_000_000

# A copy of version 1 as another one, whole or broken, put in place by a rename as mnist-export does.
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
    """Wait for something that a container does; its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(httpx.TransportError):
            value = condition()
            if value:
                return value
        threading.Event().wait(0.2)
    pytest.fail(f"did not happen within {seconds} s")


class Engine:
    """The container engine, by a client of it that builds with BuildKit if there is one."""

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
            # An engine on a busy machine may take its time.
            "COMPOSE_HTTP_TIMEOUT": "300",
        }

    def _run(self, command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, **options)

    def run(self, *command: object, env: dict[str, str] | None = None) -> str:
        """The output of a command that must succeed."""
        done = self._run(list(command), env=self.environment | (env or {}))
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def docker(self, *arguments: object) -> str:
        return self.run("docker", *arguments)

    def inspect(self, what: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", what))[0]

    def require(self, image: str) -> None:
        """The image is here or can be pulled."""
        for command in ("image", "inspect"), ("pull",):
            if self._run(["docker", *command, image], env=self.environment).returncode == 0:
                return
        missing(f"the image {image}, here or in a registry (PYTHON_VERSION and DEBIAN_RELEASE choose another Python)")


class Stack:
    """The services of docker-compose.yml as a project of our own."""

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
        """The replicas, once all are healthy."""
        replicas = self.replicas()
        states = [self.engine.inspect(replica)["State"] for replica in replicas]
        return replicas if all(state.get("Health", {}).get("Status") == "healthy" for state in states) else []

    def address(self, service: str, port: int) -> str:
        return f"http://{self.compose('port', service, port)}"

    def metrics(self, replica: str) -> str:
        """What a replica tells Prometheus; only from inside can it be asked."""
        program = (
            "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics', timeout=9).read().decode())"
        )
        return self.engine.docker("exec", replica, "python", "-c", program)

    def in_models(self, program: str, *arguments: object) -> None:
        """Run a program that changes the volume of the models."""
        volume = ("--volume", f"{self.name}_models:/models")
        image = f"mnist-service:{self.name}"
        self.engine.docker("run", "--rm", *volume, "--entrypoint", "python", image, "-c", program, *arguments)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def base(engine) -> str:
    """The Python that the images stand on."""
    chosen = {
        name: os.environ.get(name) or re.search(rf"\${{{name}:-(.*?)}}", COMPOSE)[1]
        for name in ("PYTHON_VERSION", "DEBIAN_RELEASE")
    }
    image = f"python:{chosen['PYTHON_VERSION']}-slim-{chosen['DEBIAN_RELEASE']}"
    engine.require(image)
    return image


@pytest.fixture(scope="module")
def data(mnist) -> Path:
    """A folder with MNIST."""
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
        # Shown by pytest if something failed.
        print(stack.compose("logs", "--tail", "100", "haproxy", "serving"))
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")
        for image in stack.name, f"{stack.name}-model", f"{stack.name}-pipeline":
            engine._run(["docker", "image", "rm", f"mnist-service:{image}"])


@pytest.fixture
def url(stack) -> str:
    """The address of the edge, with every replica ready."""
    until(stack.healthy)
    url = stack.address("haproxy", 8000)
    until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
    return url


@contextlib.contextmanager
def constant_load(url: str) -> Iterator[Counter[Any]]:
    """Clients that ask without pause, half of them on a new connection each time; how often they got what."""
    stop, answers = threading.Event(), Counter()

    def ask(kept: httpx.Client | None) -> None:
        while not stop.is_set():
            try:
                answer = (kept or httpx).post(f"{url}/predict", content=bytes(784), headers=PIXELS, timeout=30)
                answers[answer.status_code] += 1
                if answer.status_code == 200:
                    answers["version", answer.json()["model"]["version"]] += 1
            except httpx.HTTPError as error:
                answers[repr(error)] += 1

    with contextlib.ExitStack() as clients:
        kept = [clients.enter_context(httpx.Client()) for _ in range(2)]
        threads = [threading.Thread(target=ask, args=[client]) for client in (*kept, None, None)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: answers.total() > 50)
            yield answers
            seen = answers.total()
            until(lambda: answers.total() > seen + 50)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def outcomes(answers: Counter[Any]) -> set[Any]:
    return {answer for answer in answers if not isinstance(answer, tuple)}


# The image.


def test_serving_image_is_small_and_holds_no_tools(stack, engine, base):
    image = f"mnist-service:{stack.name}"
    assert engine.inspect(image)["Size"] - engine.inspect(base)["Size"] <= 250 * MEGABYTE
    program = "from importlib.util import find_spec; print([n for n in ('torch', 'pip', 'onnx') if find_spec(n)])"
    assert engine.docker("run", "--rm", "--entrypoint", "python", image, "-c", program) == "[]"
    assert (
        engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", "command -v gcc cc make || echo none") == "none"
    )
    assert engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", "ls -A /tmp; ls /build 2>&1 | wc -l") == "1"


def test_image_says_what_it_is(stack, engine):
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
    """The layers of the serving image built from ``context``."""
    if not engine.buildkit:
        missing("BuildKit: the classic builder would build the pipeline as well")
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


def test_change_of_code_keeps_the_dependencies(stack, engine, base, tmp_path):
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


def test_answers_at_the_edge(url):
    answer = httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"})
    assert answer.json()["predictions"][0]["digit"] == 7


def test_edge_refuses_what_is_too_large_and_what_belongs_to_one_replica(url):
    refused = [
        (413, httpx.post(f"{url}/predict", content=bytes(8_000_001), headers=PIXELS)),
        (403, httpx.get(f"{url}/metrics")),
        (403, httpx.post(f"{url}/v2/repository/models/mnist/unload")),
    ]
    for status, answer in refused:
        assert answer.status_code == answer.json()["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


def test_replicas_can_do_nothing_but_serve(stack, url, engine):
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
    with constant_load(url) as answers:
        engine.run(ROOT / "deploy" / "roll", env=stack.settings)
    after = stack.healthy()
    assert len(after) == REPLICAS
    assert not set(before) & set(after)
    assert outcomes(answers) == {200}


def test_death_of_a_replica_loses_no_request(stack, url, engine):
    victim = stack.replicas()[0]
    process = engine.inspect(victim)["State"]["Pid"]
    with constant_load(url) as answers:
        # As the kernel does when memory is short; the engine does not know of it beforehand.
        os.kill(process, signal.SIGKILL)
        until(lambda: engine.inspect(victim)["RestartCount"] and engine.inspect(victim)["State"]["Running"])
        until(stack.healthy)
    assert outcomes(answers) == {200}
    assert engine.inspect(victim)["State"]["Pid"] != process


def test_bad_bundle_is_refused_while_the_old_one_serves(stack, url):
    with constant_load(url) as answers:
        stack.in_models(PUBLISH, 900, "broken")
        try:
            refusal = 'mnist_model_rejected_total{model="mnist",version="900"} 1.0'
            until(lambda: all(refusal in stack.metrics(replica) for replica in stack.replicas()))
            entries = {entry["version"]: entry for entry in httpx.post(f"{url}/v2/repository/index").json()}
            stack.in_models(PUBLISH, 901, "whole")
            until(lambda: answers["version", "901"])
        finally:
            for version in 900, 901:
                stack.in_models(REMOVE, version)
    assert entries["900"]["state"] == "UNAVAILABLE"
    assert "model.onnx" in entries["900"]["reason"]
    assert outcomes(answers) == {200}
    assert not answers["version", "900"]


def test_pipeline_ends_in_a_served_model(stack, url, engine):
    with constant_load(url) as answers:
        stack.compose("up", "--detach", "--no-build", "train", "export")
        export = stack.compose("ps", "-q", "export")
        until(lambda: engine.inspect(export)["State"]["Status"] == "exited")
        log = engine.docker("logs", export)
        assert engine.inspect(export)["State"]["ExitCode"] == 0, log
        version = re.search(r"Published\s+/models/mnist/(\d+)", log)[1]
        until(lambda: answers["version", version])
    assert outcomes(answers) == {200}
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
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=30).json()
        return answer.get("data", {}).get("result", [])

    def firing() -> set[str]:
        alerts = httpx.get(f"{prometheus}/api/v1/alerts", timeout=30).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    until(lambda: len(query('up{job="serving"} == 1')) == REPLICAS)
    until(lambda: query('up{job="haproxy"} == 1'))
    until(lambda: query("sum(mnist_predictions_total) > 0"))
    # What the dashboard asks of HAProxy is there; tests/test_deploy.py sees to what it asks of the service.
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
