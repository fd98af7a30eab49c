"""The wheel in an empty environment: predictions and the service, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

from tests.support import ROOT, missing


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_wheel_carries_the_packaged_model_and_the_page(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"serving/release/mnist/1/model.onnx", "serving/release/mnist/1/manifest.json"} <= names
    assert {"serving/web/index.html", "training/cli.py", "export/cli.py", "serving/py.typed"} <= names
    assert not any(name.startswith(("tests", "benchmarks", "examples")) for name in names)


def test_plain_install_answers_without_torch(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    pip = [tmp_path / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], capture_output=True, text=True)
    if installed.returncode and "No matching distribution" in installed.stderr:
        missing("a package index to install from")
    assert installed.returncode == 0, installed.stderr

    def run(*arguments):
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)

    answer = run(tmp_path / "bin" / "mnist-predict", ROOT / "tests" / "seven.png")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[1].split()[1] == "7"
    assert run(tmp_path / "bin" / "python", "-c", "import torch").returncode == 1
    assert run(tmp_path / "bin" / "python", "-c", "import serving.api.app as a; a.create_app()").returncode == 0
    for command, extra in (("mnist-train", "train"), ("mnist-export", "export")):
        refused = run(tmp_path / "bin" / command, *(["x"] if command == "mnist-export" else []))
        assert refused.returncode == 1
        assert f"mnist-service[{extra}]" in refused.stderr
