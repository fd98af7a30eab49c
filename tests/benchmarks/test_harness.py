"""What benchmarks check before they measure, and what they leave behind."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import load
from tests.support import ROOT, until

SERVES = """
import sys, time
from benchmarks.harness import free_port, run_server
port = free_port()
with run_server([sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"], port) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("save", ["no-folder/load.md", "file/load.md", "."])
def test_file_for_the_results_is_checked_before_the_measurements(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    done = CliRunner().invoke(load.main, ["--save", save])
    assert done.exit_code == 2
    assert "Invalid value for '--save'" in done.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("serving", ["--against", "."], "must be a checkout of this project, but has no training/"),
        ("calibration", ["--against", "."], "must be a checkout of this project, but has no training/"),
        ("letters", ["--draw", "."], "--draw .: is there already"),
        ("accuracy", ["--seeds", "1 2"], "--seeds 1 2: must be numbers with commas between them"),
        ("runtimes.__main__", ["--only", "onnx runtime"], "the names are onnxruntime, onnxruntime-web,"),
        ("peers.__main__", ["--rounds", "0"], "--rounds 0: no rounds were measured before"),
        ("batch", ["--rounds", "0"], "0 is not in the range x>=1"),
    ],
)
def test_mistake_is_told_before_the_measurements(tmp_path, monkeypatch, module, arguments, expected):
    """In a folder that is no checkout, Python would find this one, and compare it with itself."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    benchmark = importlib.import_module(f"benchmarks.{module}")
    if module.startswith("peers"):
        monkeypatch.setattr(benchmark, "ENVIRONMENTS", tmp_path)
        monkeypatch.setattr(benchmark, "ROUNDS", tmp_path / "rounds.json")
        monkeypatch.setattr(benchmark, "programs", lambda _: None)
    done = CliRunner().invoke(benchmark.main, arguments)
    assert done.exit_code == 2, done.output
    assert expected in done.stderr


def test_missing_program_is_named_before_the_measurements(monkeypatch):
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(load.main, [])
    assert (done.exit_code, done.stderr) == (1, "Error: wrk is missing: apt-get install wrk\n")


def test_stopped_benchmark_leaves_no_server():
    benchmark = subprocess.Popen([sys.executable, "-c", SERVES], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert benchmark.stdout is not None
    server = Path("/proc", benchmark.stdout.readline().strip())
    assert server.exists()
    benchmark.send_signal(signal.SIGTERM)
    benchmark.communicate(timeout=60)
    assert benchmark.returncode == 128 + signal.SIGTERM
    until(lambda: not server.exists())
