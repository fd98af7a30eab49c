"""The comparison with other servers: pinned environments, right responses, medians and ratios, no process left over."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import numpy as np
import pytest

from benchmarks.harness import Load
from benchmarks.peers import environment
from benchmarks.peers.measure import check
from benchmarks.peers.peers import FOLDER, OURS, PEERS
from benchmarks.peers.process import start
from benchmarks.peers.table import losses, plot, table
from tests.support import ROOT, until

REPORT = """\
Running 2s test @ http://127.0.0.1:8000/predict
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.10ms    1.02ms  21.50ms   91.20%
    Req/Sec     3.90k   211.00     4.20k    75.00%
  Latency Distribution
     50%  875.00us
     75%    4.20ms
     90%    4.90ms
     99%    1.25s
  7800 requests in 2.00s, 4.00MB read
Requests/sec:   3895.12
Transfer/sec:      2.00MB
"""


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_requirement_of_a_peer_is_pinned(peer):
    lines = peer.requirements.read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\d.]+[\w.]*", line)] == []
    assert peer.version


def test_peer_runs_the_packaged_version_of_onnxruntime():
    pins = re.findall(r"^onnxruntime==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for path in FOLDER.glob("*/requirements.txt"):
        assert path.parent.name == "fastapi_torch" or pins[0] in path.read_text().splitlines(), path


def test_environment_that_cannot_be_made_names_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ENVIRONMENTS", ROOT / "build" / "none")
    requirements = next(FOLDER.glob("*/requirements.txt"))
    with pytest.raises(click.ClickException, match="/no/python3: No such file"):
        environment.make("none", requirements, "/no/python3")


def test_report_of_wrk_is_read_in_its_units():
    assert Load.read(REPORT) == Load(7800, 3895.12, 0.875, 1250)


def test_load_with_failed_requests_is_rejected():
    with pytest.raises(click.ClickException, match="some requests failed"):
        Load.read(REPORT + "  Non-2xx or 3xx responses: 3\n")


def test_response_must_have_the_probabilities_of_the_model():
    right = np.array([0.01, 0.97, 0.02])
    check([0.01, 0.970001, 0.02], right)
    for wrong in ([0.01, 0.9702, 0.02], [0.97, 0.01, 0.02], [0.01, float("nan"), 0.02]):
        with pytest.raises(click.ClickException, match="its response is wrong"):
            check(wrong, right)


def test_probabilities_are_found_in_both_kinds_of_responses():
    native = {"predictions": [{"digit": 1, "probabilities": [0.1, 0.9]}]}
    tensors = {"outputs": [{"name": "logits", "data": [1, 2]}, {"name": "probabilities", "data": [0.1, 0.9]}]}
    assert OURS[0].probabilities(native) == OURS[1].probabilities(tensors) == [0.1, 0.9]


def figures(speed, cost):
    names = ("p50 1", "p99 1", "p50 16", "p99 16", "cpu 1", "cpu 16", "memory", "start")
    return {"requests/s 1": speed, "requests/s 16": 2 * speed} | dict.fromkeys(names, cost)


def test_table_has_medians_and_ratios_within_a_round():
    ours, fast = OURS[0], PEERS[0]
    [lit] = [peer for peer in PEERS if peer.name == "LitServe"]
    rounds = [
        {ours.name: figures(900, 1), fast.name: figures(300, 0.5), lit.name: "pip: no such version"},
        {ours.name: figures(400, 1), fast.name: figures(200, 0.5), lit.name: "pip: no such version"},
        {ours.name: figures(500, 1), fast.name: figures(100, 0.5), lit.name: "pip: no such version"},
    ]
    rows = table(rounds, [*OURS, *PEERS])[2:]
    assert len(rows) == 3, "a server that no round has is left out"
    assert rows[0].startswith(f"| {ours.name} | 500 |  | 1.00 / 1.00 | 1,000 |")
    assert rows[1].startswith(f"| {fast.name} {fast.version} | 200 | 3.00 (goal 1.6) | 0.50 / 0.50 | 400 | 3.00 (goal")
    assert f"| LitServe {lit.version} | not measured: pip: no such version |" in rows[2]
    assert len({row.count("|") for row in rows}) == 1
    [lost] = losses(rounds, [*OURS, *PEERS])
    assert lost.startswith("- FastAPI + onnxruntime is better in: p99 at 1 connection,")
    assert "requests/s" not in lost
    assert len(plot(rounds, [*OURS, *PEERS]).axes[0].patches) == 4


def test_server_ends_with_all_its_processes(tmp_path):
    program = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pid', 'w').write(str(child.pid))\n"
        "signal.pause()\n"
    )
    pid = tmp_path / "pid"

    def ask():
        return pid.read_text() if pid.exists() and pid.read_text() else None

    with start([sys.executable, "-c", program], tmp_path, {}, tmp_path / "log", ask) as server:
        assert server.response == pid.read_text()
        assert server.memory() > 1
    # A process that nobody waits for stays as a zombie.
    command = ["ps", "-o", "stat=", "-p", pid.read_text()]
    until(lambda: not subprocess.run(command, capture_output=True, text=True).stdout.strip("Z \n"))


def test_server_that_ends_at_once_names_its_last_line(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no module')"]
    with (
        pytest.raises(click.ClickException, match="ended before it responded: no module"),
        start(command, tmp_path, {}, tmp_path / "log", lambda: None),
    ):
        pass
