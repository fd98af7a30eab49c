"""The images and docker-compose.yml on a real engine. No request may fail while replicas start, stop or die."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.stack import COMPOSE, REPLICAS, Engine, Stack, until
from tests.support import ROOT, missing

# All of these tests share one stack, so pytest-xdist must run them in one process.
pytestmark = pytest.mark.xdist_group("containers")

PIXELS = {"content-type": "application/octet-stream"}
SEVEN = (ROOT / "tests" / "seven.png").read_bytes()
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
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
        status = engine.docker("exec", container, "cat", "/proc/1/status")
        assert re.search(r"CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"Seccomp:\s+2$", status, re.MULTILINE), "no filter of system calls"
        assert not re.search(r"^Uid:\s+0\b", status, re.MULTILINE)
    replica = stack.replicas()[0]
    # The engine's own profile allows this system call, ours does not.
    program = "import ctypes; print(ctypes.CDLL(None).inotify_init())"
    assert engine.docker("exec", replica, "python", "-c", program) == "-1"
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
