"""A restart of the container engine, as after an upgrade of it or a restart of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.deploy.stack import SEVEN, Engine, Stack, constant_load, outcomes, until
from tests.deploy.test_containers import PUBLISH, REMOVE
from tests.support import missing

# All tests that use the stack run in one process, and this file is the last of them.
pytestmark = pytest.mark.xdist_group("containers")

# The numbers of the processes that end: the engine's, and that of its containerd.
PID_FILE = Path("/var/run/docker.pid")
PID_FILES = (PID_FILE, Path("/var/run/docker/containerd/containerd.pid"))


def has_ended(process: int) -> bool:
    with contextlib.suppress(OSError):
        # A process that nobody has waited for is a zombie, with the state Z.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


@pytest.fixture
def restart(engine: Engine, stack: Stack) -> Callable[[signal.Signals], None]:
    """A function that ends the engine with a signal and starts it with the same command line."""
    if "CI" not in os.environ:
        pytest.skip("it stops all containers of the machine, so it runs in CI only")
    if Path("/run/systemd/system").is_dir() or not PID_FILE.exists():
        missing("an engine that was started without systemd")
    names = engine.docker("ps", "--format", "{{.Names}}").split()
    if others := [name for name in names if not name.startswith(stack.name)]:
        missing(f"an engine without other containers, such as {others[0]}")
    folder = Path(f"/proc/{PID_FILE.read_text()}")
    command = folder.joinpath("cmdline").read_text().split("\0")[:-1]
    environment = dict(each.split("=", 1) for each in folder.joinpath("environ").read_text().split("\0") if "=" in each)

    def restart(number: signal.Signals) -> None:
        processes = [int(file.read_text()) for file in PID_FILES if file.exists()]
        os.kill(processes[0], number)
        until(lambda: all(map(has_ended, processes)))
        # After SIGKILL the files are still there. The engine would take a zombie for an engine that runs.
        for file in PID_FILES:
            file.unlink(missing_ok=True)
        with Path("/var/log/dockerd.log").open("a") as log:
            line = ["setsid", "--fork", *command]
            subprocess.run(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=True)
        until(lambda: engine.attempt(["docker", "info"]).returncode == 0)

    return restart


def started(engine: Engine, containers: list[str]) -> list[str]:
    return [engine.inspect(container)["State"]["StartedAt"] for container in containers]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stack_serves_again_after_a_restart_of_the_engine(stack, url, engine, restart, number):
    """Every container that was running runs again, and no other. The models are still there."""
    [stopped, *replicas] = stack.replicas()
    once = stack.compose("ps", "--all", "-q", "packaged-model").split()
    before = started(engine, [*once, *replicas])
    stack.in_models(PUBLISH, 7, "intact")
    try:
        engine.docker("kill", stopped)
        with constant_load(url, large=False) as counts:
            until(lambda: counts["version", "7"])
            restart(number)
            if number is signal.SIGKILL:
                # After a crash the engine may not start the containers again. The documentation gives this command.
                stack.compose("up", "--detach", "--no-build", "--no-recreate", "haproxy")
            else:
                until(lambda: sorted(stack.healthy()) == sorted(replicas))
                after = started(engine, [*once, *replicas])
                assert after[: len(once)] == before[: len(once)]
                assert not set(after[len(once) :]) & set(before)
                assert not engine.inspect(stopped)["State"]["Running"]
                engine.docker("start", stopped)
            until(lambda: sorted(stack.healthy()) == sorted([stopped, *replicas]))
        # Connections break, and 503 says that no replica is ready yet. Nobody gets another response.
        assert {outcome for outcome in outcomes(counts) if isinstance(outcome, int)} <= {200, 503}
        # The engine has chosen another port, because these tests let it choose.
        url = stack.address("haproxy", 8000)
        until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
        response = httpx.post(f"{url}/predict", content=SEVEN, headers={"content-type": "image/png"})
        assert response.json()["predictions"][0]["digit"] == 7
        assert response.json()["model"]["version"] == "7"
    finally:
        stack.in_models(REMOVE, 7)
