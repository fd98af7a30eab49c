"""The wheel, installed into an empty environment, predicts and serves without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

from tests.support import ROOT, missing, new_environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_wheel_contains_the_packaged_model_and_the_page(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"serving/release/mnist/1/model.onnx", "serving/release/mnist/1/manifest.json"} <= names
    assert {"serving/web/index.html", "training/cli.py", "export/cli.py", "serving/py.typed"} <= names
    assert not any(name.startswith(("tests", "benchmarks", "examples")) for name in names)


def test_base_install_predicts_and_serves_without_torch(wheel, tmp_path):
    installed = new_environment(tmp_path, "--constraint", ROOT / "constraints.txt", wheel)
    if installed.returncode and "No matching distribution" in installed.stderr:
        missing("a package index to install from")
    assert installed.returncode == 0, installed.stderr

    def run(*arguments):
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)

    predicted = run(tmp_path / "bin" / "mnist-predict", ROOT / "tests" / "seven.png")
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.splitlines()[1].split()[1] == "7"
    python = tmp_path / "bin" / "python"
    assert run(python, "-c", "import torch").returncode == 1
    assert run(python, "-c", "from serving.api.app import create_app; create_app()").returncode == 0
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").touch()
    for command in ("mnist-train", "mnist-export"):
        failed = run(tmp_path / "bin" / command, *(["x"] if command == "mnist-export" else []))
        assert failed.returncode == 1
        assert "run `make setup`" in failed.stderr
