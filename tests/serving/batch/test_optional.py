"""Parquet files and Ray, which need packages that the project's environment does not have: they take 500 MB."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import BIN, ROOT, missing, until

# All these tests run in one process of pytest, so that the packages are installed once.
pytestmark = pytest.mark.xdist_group("ray")

SEVEN = ROOT / "tests" / "seven.png"
# Their other dependencies are in the project's environment already.
PACKAGES = ("ray", "pyarrow", "pandas", "msgpack")
PARQUET_PROGRAM = "import json, sys, pyarrow.parquet as p; print(json.dumps(p.read_table(sys.argv[1]).to_pylist()))"
# Three chunks. Some names are no text, and some files cannot be read.
NAMES = [*[SEVEN] * 70, "none.png", os.fsdecode(b"\xff.png"), ROOT / "README.md", SEVEN]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Install the packages into a folder of their own, and return the environment variables to use them."""
    folder = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-compile", "--target", folder, "--constraint", ROOT / "constraints.txt"]
    installed = subprocess.run([*pip, *options, *PACKAGES], capture_output=True, text=True)
    if installed.returncode:
        missing(f"{', '.join(PACKAGES)} from a package index: {installed.stderr.strip().splitlines()[-1]}")
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\n".join(map(os.fsencode, NAMES)))
    return path


@pytest.fixture
def expected(run, names, tmp_path):
    """Return the lines that the local engine writes."""
    run("mnist-predict", names, "--output", tmp_path / "expected.jsonl")
    lines = (tmp_path / "expected.jsonl").read_text().splitlines()
    assert len(lines) == len(NAMES)
    return lines


def test_rows_of_ray_equal_those_of_the_local_engine(run, environment, names, expected, tmp_path):
    output = tmp_path / "ray.jsonl"
    done = run("mnist-predict", "--engine", "ray", names, "--output", output, env=environment)
    assert done.returncode == 3, done.stderr
    assert output.read_text().splitlines() == expected


def test_sigterm_ends_the_processes_of_the_cluster_too(environment, tmp_path):
    names, output, mark = tmp_path / "names.txt", tmp_path / "ray.jsonl", f"TEST_OF_RAY={tmp_path}"
    names.write_text(f"{SEVEN}\n" * 50_000)
    command = [BIN / "mnist-predict", names, "--engine", "ray", "--output", output]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment | dict([mark.split("=", 1)]), start_new_session=True
    )
    until(lambda: process.poll() is not None or (output.exists() and output.stat().st_size))
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "*** SIGTERM" not in errors
    until(lambda: not any(mark in variables for variables in variables_of_processes()))


def variables_of_processes():
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # It has ended.
            yield place.read_bytes().decode(errors="replace").split("\0")


def test_cluster_that_cannot_be_reached_is_one_line(run, environment):
    done = run("mnist-predict", "--engine", "ray", "--ray-address", "127.0.0.1:1", SEVEN, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --ray-address 127.0.0.1:1: no cluster can be reached there")
    assert len(done.stderr.splitlines()) == 1


def test_parquet_file_has_the_rows_and_goes_on(run, environment, names, expected, tmp_path):
    output = tmp_path / "results.parquet"
    part = tmp_path / "results.parquet.part"
    part.write_text("\n".join(expected)[:-300])
    command = ("mnist-predict", names, "--output", output)
    rows = list(map(json.loads, expected))

    def read():
        done = subprocess.run([sys.executable, "-c", PARQUET_PROGRAM, output], capture_output=True, env=environment)
        return json.loads(done.stdout)

    done = run(*command, env=environment)
    assert done.returncode == 3, done.stderr
    assert read() == rows
    # More names at the end of the list are more rows at the end of the file.
    with names.open("a") as file:
        file.write(f"\n{SEVEN}\n")
    run(*command, env=environment)
    assert read() == [*rows, rows[0]]
    assert not part.exists()
    done = run("mnist-predict", SEVEN, "--output", output, env=environment)
    assert "has other results: it has more rows" in done.stderr
    assert read() == [*rows, rows[0]]


def test_missing_package_is_named_with_the_line_that_installs_it(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name in ('ray', 'pyarrow') else find(name, *a)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    for arguments, message in (
        (["--output", tmp_path / "x.parquet"], "pip install pyarrow"),
        (["--engine", "ray"], "pip install 'ray[data]'"),
    ):
        done = run("mnist-predict", SEVEN, *arguments, env=environment)
        assert done.returncode == 2
        assert message in done.stderr
