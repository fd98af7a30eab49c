"""docker-compose.yml on a real engine. No request may fail while replicas start, stop or die."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.stack import COMPOSE, REPLICAS, SEVEN, constant_load, outcomes, until
from tests.deploy.test_deploy import STARTING
from tests.support import PIXELS, ROOT

# All of these tests share one stack, so pytest-xdist must run them in one process.
pytestmark = pytest.mark.xdist_group("containers")

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


def test_unreadable_files_and_wrong_numbers_of_replicas_get_a_message_that_names_the_way_out(stack, engine, tmp_path):
    first = yaml.safe_load(COMPOSE)["services"]["packaged-model"]
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "deploy").chmod(0o700)
    line = [
        "docker",
        "run",
        "--rm",
        "--volume",
        f"{tmp_path}/deploy:/deploy:ro",
        *(f"--env={name}={value}" for name, value in STARTING.items()),
        "--entrypoint",
        first["entrypoint"][0],
    ]
    line += [f"mnist-service:{stack.name}", *first["entrypoint"][1:]]
    done = engine.attempt(line)
    assert (done.returncode, done.stderr.strip().endswith("Run: chmod -R go+rX deploy")) == (1, True)
    engine.run("chmod", "-R", "go+rX", tmp_path / "deploy")
    assert engine.attempt(line).returncode == 0
    for number in "0", "33", "two":
        done = engine.attempt([each.replace("MNIST_REPLICAS=32", f"MNIST_REPLICAS={number}") for each in line])
        assert (done.returncode, "MNIST_REPLICAS: must be from 1 to 32" in done.stderr) == (1, True)


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
    # The engine's default profile allows this system call. The service's profile does not.
    program = "import ctypes; print(ctypes.CDLL(None).inotify_init())"
    assert engine.docker("exec", replica, "python", "-c", program) == "-1"
    for place in "/", "/opt/venv", "/models", "/models/mnist/1":
        written = engine.attempt(["docker", "exec", replica, "touch", f"{place}/file"])
        assert "Read-only file system" in written.stderr
    networks = engine.inspect(replica)["NetworkSettings"]["Networks"]
    assert [engine.inspect(network["NetworkID"])["Internal"] for network in networks.values()] == [True]


def test_rolls_to_other_code_keys_and_a_rollout_and_back_over_https_lose_no_request(
    stack, url, engine, authority, tmp_path
):
    for name in "predict", "admin":
        (tmp_path / f"{name}.keys").write_text(f"# of the test\n\n{name}-key-of-the-test  # of nobody\n")
    for file, name in zip(authority.issue("stack"), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(file, tmp_path / name)
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o755)
    settings = stack.settings | {
        "PREDICT_KEYS_FILE": str(tmp_path / "predict.keys"),
        "ADMIN_KEYS_FILE": str(tmp_path / "admin.keys"),
        "MNIST_TLS_FOLDER": str(tmp_path),
        "MNIST_TLS_PORT": "0",
    }
    key = "predict-key-of-the-test"
    before, image = stack.replicas(), f"mnist-service:{stack.name}"

    # Another image, other settings, and two more files, as after a change of the code and of .env.
    more = {"COMPOSE_FILE": "docker-compose.yml:deploy/compose.keys.yml:deploy/compose.rollout.yml"}
    engine.docker("tag", image, f"{image}-old")
    try:
        program = f'FROM {image}\nLABEL changed="yes"\n'
        engine.run("sh", "-c", f"printf '{program}' | docker build --quiet --tag {image} -")
        with constant_load(url, key=key) as counts:
            # Compose starts a stopped replica again, instead of making a new one.
            engine.docker("stop", before[0])
            engine.run(ROOT / "deploy" / "roll", env=settings | more | {"MNIST_MAX_BATCH": "177"})
        after = stack.healthy()
    finally:
        engine.docker("tag", f"{image}-old", image)
        engine.docker("image", "rm", f"{image}-old")
    assert len(after) == REPLICAS
    remaining = engine.docker("ps", "--all", "--quiet", "--no-trunc").split()
    assert not set(before) & set(remaining)
    for replica in after:
        config = engine.inspect(replica)["Config"]
        assert config["Labels"]["changed"] == "yes"
        assert "MNIST_MAX_BATCH=177" in config["Env"]
    assert outcomes(counts) == {200}
    assert httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"}).status_code == 401
    try_a_rollout(stack, url, key, settings | more)

    # Back to the old settings, while HAProxy has HTTPS.
    more = {"COMPOSE_FILE": "docker-compose.yml:deploy/compose.tls.yml"}
    only_haproxy = ("up", "--detach", "--no-deps", "--no-build", "haproxy")
    context = authority.trusted()
    try:
        engine.run(*stack.command, *only_haproxy, env=settings | more)
        https = f"https://{engine.run(*stack.command, 'port', 'haproxy', 8443, env=settings | more)}"
        until(lambda: httpx.get(f"{https}/v2/health/ready", verify=context).status_code == 200)
        assert httpx.get(stack.address("haproxy", 8000)).status_code == 308
        with constant_load(https, context, key) as counts:
            engine.run(ROOT / "deploy" / "roll", env=settings | more)
            # A new certificate needs a reload.
            stack.reload()
            seen = counts.total()
            until(lambda: counts.total() > seen + 100)
    finally:
        stack.compose(*only_haproxy)
    assert not set(after) & set(stack.healthy())
    assert outcomes(counts) == {200}


def try_a_rollout(stack, url: str, key: str, settings: dict[str, str]) -> None:
    """Publish a version, which must not respond before deploy/rollout promotes it, and then at every replica."""

    def rollout(*arguments: object) -> dict[str, Any]:
        return json.loads(stack.engine.run(ROOT / "deploy" / "rollout", *arguments, env=settings))

    stack.in_models(PUBLISH, 5, "intact")
    try:
        with constant_load(url, key=key) as counts:
            until(lambda: rollout("shadow")["candidate"] == "5")
            # Every replica compares, and their counts are added up.
            until(lambda: all("mnist_shadow_predictions_total{" in stack.metrics(each) for each in stack.replicas()))
            assert rollout("canary", 0.5)["weight"] == 0.5
            until(lambda: counts["version", "5"])
            assert rollout("promote")["stable"] == "5"
            # The other replicas follow.
            until(lambda: ten_responses(url, key) == {"5"})
            assert rollout("promote", 1)["stable"] == "1"
            until(lambda: ten_responses(url, key) == {"1"})
    finally:
        stack.in_models(REMOVE, 5)
    assert outcomes(counts) == {200}


def ten_responses(url: str, key: str) -> set[str]:
    headers = PIXELS | {"authorization": f"Bearer {key}"}
    responses = [httpx.post(f"{url}/predict", content=bytes(784), headers=headers) for _ in range(10)]
    return {response.json()["model"]["version"] for response in responses}


def test_replica_that_is_stopped_while_it_starts_ends_at_once(stack, engine):
    container = stack.compose("run", "--detach", "--no-deps", "serving").splitlines()[-1]
    engine.docker("stop", container)
    # 137 would mean that the engine killed it after the grace period of 40 s.
    assert engine.inspect(container)["State"]["ExitCode"] in (0, 143)
    engine.docker("rm", container)


def test_roll_that_is_interrupted_keeps_the_old_replicas(stack, url, engine):
    before = stack.replicas()
    environment = engine.environment | stack.settings
    options = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with constant_load(url) as counts:
        # A test that runs in the background ignores SIGINT, and its children would inherit that.
        reset = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        roll = subprocess.Popen([ROOT / "deploy" / "roll"], start_new_session=True, preexec_fn=reset, **options)
        until(lambda: len(stack.replicas()) == 2 * REPLICAS)
        another = engine.attempt([ROOT / "deploy" / "roll"], env=environment)
        assert (another.returncode, "another roll is running" in another.stderr) == (1, True)
        # Ctrl-C sends the signal to the whole group.
        os.killpg(roll.pid, signal.SIGINT)
        messages = roll.communicate(timeout=120)[1]
    assert roll.returncode == 130, messages
    assert "The old replicas stay" in messages
    assert sorted(stack.healthy()) == sorted(before)
    assert outcomes(counts) == {200}


@pytest.mark.parametrize(("program", "message"), [("echo no model here; exit 1", "no model here"), ("sleep 600", "")])
def test_roll_to_a_version_that_does_not_become_healthy_keeps_the_old_replicas(stack, url, engine, program, message):
    before, image = stack.replicas(), f"mnist-service:{stack.name}"
    engine.docker("tag", image, f"{image}-old")
    try:
        lines = f'FROM {image}\nENTRYPOINT ["sh", "-c", "{program}"]\n'
        engine.run("sh", "-c", f"printf '{lines}' | docker build --quiet --tag {image} -")
        environment = engine.environment | stack.settings | {"HEALTHY_WITHIN": "3"}
        with constant_load(url) as counts:
            done = engine.attempt([ROOT / "deploy" / "roll"], env=environment)
    finally:
        engine.docker("tag", f"{image}-old", image)
        engine.docker("image", "rm", f"{image}-old")
    assert done.returncode == 1
    assert "did not become healthy" in done.stderr
    assert message in done.stderr
    assert sorted(stack.healthy()) == sorted(before)
    assert outcomes(counts) == {200}


def test_rolls_and_reloads_lose_no_grpc_call(stack, url, engine):
    from tests.serving.grpc.door import Client, infer_request, random_images  # isort: skip (skips without gRPC)
    import grpc

    settings = stack.settings | {
        "COMPOSE_FILE": "docker-compose.yml:deploy/compose.grpc.yml",
        "MNIST_GRPC_PORT": "0",
    }
    image, request = f"mnist-service:{stack.name}", infer_request(random_images(1))
    only_haproxy = ("up", "--detach", "--no-deps", "--no-build", "haproxy")
    counted = 'mnist_http_requests_total{method="POST",route="/inference.GRPCInferenceService/ModelInfer",status="200"}'
    stop, ended = threading.Event(), Counter()

    def call(address: str, kept: bool) -> None:
        while not stop.is_set():
            # Channels with the same options share a connection.
            with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                client = Client(channel)
                for _ in iter(stop.is_set, True):
                    try:
                        client.call("ModelInfer", **request)
                        ended["OK"] += 1
                    except grpc.RpcError as error:
                        ended[str(error)] += 1
                    if not kept:
                        break

    engine.docker("tag", image, f"{image}-old")
    try:
        engine.run(*stack.command, "build", "serving", env=settings)
        engine.run(ROOT / "deploy" / "roll", env=settings)
        engine.run(*stack.command, *only_haproxy, env=settings)
        address = engine.run(*stack.command, "port", "haproxy", 8001, env=settings)
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(60)
            assert Client(channel).call("ModelInfer", **request)
        with ThreadPoolExecutor() as pool:
            callers = [pool.submit(call, address, kept) for kept in (True, True, False)]
            try:
                engine.run(ROOT / "deploy" / "roll", env=settings)
                stack.reload()
                seen = ended.total()
                until(lambda: ended.total() > seen + 100)
                assert ended.keys() == {"OK"}, ended
                # Every replica gets calls.
                for replica in stack.replicas():
                    until(lambda replica=replica: counted in stack.metrics(replica))
            finally:
                stop.set()
            for caller in callers:
                caller.result()
    finally:
        engine.docker("tag", f"{image}-old", image)
        engine.docker("image", "rm", f"{image}-old")
        stack.compose(*only_haproxy)
        engine.run(ROOT / "deploy" / "roll", env=stack.settings)
    assert ended.keys() == {"OK"}, ended


def test_more_and_fewer_replicas_lose_no_request(stack, url):
    options = ("--detach", "--no-build", "--no-deps", "--no-recreate")
    with constant_load(url) as counts:
        for number in 2 * REPLICAS, REPLICAS:
            stack.compose("up", *options, "--scale", f"serving={number}", "serving")
            until(lambda number=number: len(stack.healthy()) == number)
            seen = counts.total()
            until(lambda seen=seen: counts.total() > seen + 100)
    assert outcomes(counts) == {200}


def test_reload_of_the_load_balancer_loses_no_request_and_it_still_starts_again(stack, url, engine):
    haproxy = stack.compose("ps", "-q", "haproxy")
    logs = ["docker", "logs", haproxy]
    [mount] = engine.inspect(haproxy)["Mounts"]
    # A mounted file would stay the old one when an editor or git replaces it.
    assert (mount["Source"], mount["Destination"]) == (str(ROOT / "deploy/haproxy"), "/usr/local/etc/haproxy")
    with constant_load(url) as counts:
        for number in range(1, 3):
            stack.reload()
            until(lambda number=number: engine.attempt(logs).stderr.count("Former worker") == number)
            # A process that has stopped checks no replicas. So the new one must know one before the next reload.
            seen = counts.total()
            until(lambda seen=seen: counts.total() > seen + 100)
    assert outcomes(counts) == {200}
    assert engine.inspect(haproxy)["RestartCount"] == 0
    # After a signal of its own, such as that of `docker compose kill`, the engine would not start the container again.
    os.kill(engine.inspect(haproxy)["State"]["Pid"], signal.SIGKILL)
    until(lambda: engine.inspect(haproxy)["RestartCount"] == 1 and engine.inspect(haproxy)["State"]["Running"])


def test_death_of_a_replica_loses_no_request(stack, url, engine):
    victim = stack.replicas()[0]
    process = engine.inspect(victim)["State"]["Pid"]
    with constant_load(url, large=False) as counts:
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
        export = stack.compose("ps", "--all", "-q", "export")
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

    with constant_load(url) as counts:
        rollback = ("mnist-export", "--rollback", "--repository", "/models")
        assert "Newest      /models/mnist/1" in stack.compose("run", "--rm", "--no-deps", "export", *rollback)
        until(lambda: counts["version", "1"])
    assert outcomes(counts) == {200}


def start_prometheus(stack, folder: Path) -> None:
    """Start Prometheus with the files in deploy/prometheus, but faster: promtool tests the times of the alerts."""
    changes = {
        "prometheus.yml": (r"_interval: 5s", "_interval: 1s", 3),
        "alerts.yml": (r"for: 30s", "for: 2s", 1),
    }
    for name, (slow, fast, number) in changes.items():
        text, replaced = re.subn(slow, fast, (ROOT / "deploy" / "prometheus" / name).read_text())
        assert replaced == number
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    folder.chmod(0o755)
    override = folder / "override.yml"
    override.write_text(f"services: {{prometheus: {{volumes: ['{folder}:/etc/prometheus:ro']}}}}")
    files = {"COMPOSE_FILE": f"docker-compose.yml:{override}", "COMPOSE_PROFILES": "monitoring"}
    line = ("up", "--detach", "--no-build", "--no-deps", "prometheus")
    stack.engine.run(*stack.command, "--project-directory", ROOT, *line, env=stack.settings | files)


def test_prometheus_scrapes_every_replica_and_the_alert_fires_when_all_are_down(stack, url, engine, tmp_path):
    engine.require(re.search(r"prom/prometheus:\S+", COMPOSE)[0])
    httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"})
    start_prometheus(stack, tmp_path)
    prometheus = stack.address("prometheus", 9090)

    def query(expression: str) -> list[Any]:
        response = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=30)
        # While Prometheus starts, it sends a 503 that is no JSON.
        return response.json()["data"]["result"] if response.status_code == 200 else []

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
    # It fires while Prometheus starts, if the first scrape takes longer than the 2 s of this test.
    until(lambda: "MnistDown" not in firing())
    assert not {"MnistRestarts", "MnistEdgeErrors"} & firing()

    # A replica that dies again and again, and is soon back each time.
    victim = stack.replicas()[0]

    def started() -> tuple[str, str] | None:
        [network] = engine.inspect(victim)["NetworkSettings"]["Networks"].values()
        series = query(f'process_start_time_seconds{{instance="{network["IPAddress"]}:8000"}}')
        return (network["IPAddress"], series[0]["value"][1]) if series else None

    deaths, address = 0, ""
    while deaths < 3:
        before = until(started)
        # The engine may give it another address when it starts again. For Prometheus it is then another replica.
        deaths, address = (deaths + 1 if before[0] == address else 1), before[0]
        os.kill(engine.inspect(victim)["State"]["Pid"], signal.SIGKILL)
        until(lambda before=before: started() not in (None, before))
    until(lambda: "MnistRestarts" in firing())

    replicas = stack.replicas()
    stack.compose("stop", "serving")
    assert [engine.inspect(replica)["State"]["ExitCode"] for replica in replicas] == [0] * REPLICAS
    nobody = httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"}, timeout=30)
    assert nobody.status_code == nobody.json()["status"] == 503
    assert nobody.headers["x-request-id"]
    with ThreadPoolExecutor(30) as pool:
        assert {503} == {each.status_code for each in pool.map(lambda _: httpx.get(f"{url}/v2", timeout=30), range(30))}
    until(lambda: {"MnistDown", "MnistEdgeErrors"} <= firing())
    stack.compose("start", "serving")
    until(lambda: "MnistDown" not in firing())
