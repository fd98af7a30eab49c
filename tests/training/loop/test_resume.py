"""Nothing lost: a run that is killed and resumed ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time

import pytest
import torch

from tests.support import BIN
from training import checkpoint

FLAGS = [
    "--model",
    "cnn",
    "--epochs",
    "3",
    "--subset",
    "1024",
    "--validation",
    "256",
    "--checkpoint-every",
    "3",
]


def weights(run):
    return checkpoint.load(run / "model.pt")["weights"]


def step_of(run):
    return checkpoint.load(run / "last.pt")["step"] if (run / "last.pt").exists() else 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run):
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    finished = run("mnist-train", *FLAGS, "--output", output)
    assert finished.returncode == 0, finished.stderr
    return output


# Eight steps an epoch: 3, 6, 13 and 21 lie inside an epoch, 8 and 16 between two.
@pytest.mark.parametrize("kills", [(3,), (8, 13), (6, 16, 21)])
def test_killed_and_resumed_is_the_same_run(uninterrupted, tmp_path, kills):
    output = tmp_path / "run"
    command = [BIN / "mnist-train", *FLAGS, "--output", output, "--resume"]
    for step in kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while step_of(output) < step and process.poll() is None:
            pass
        # A random instant after the step: in the arithmetic, in a save, or at the very end.
        time.sleep(random.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    expected, actual = weights(uninterrupted), weights(output)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    results = [json.loads((folder / "run.json").read_text())["result"] for folder in (uninterrupted, output)]
    assert results[0] == results[1]
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 3


def test_resume_without_a_checkpoint_begins(tmp_path, run):
    flags = ["--model", "mlp", "--epochs", "1", "--subset", "256", "--output", tmp_path / "run", "--resume"]
    assert run("mnist-train", *flags).returncode == 0
    again = run("mnist-train", *flags)
    assert again.returncode == 0
    assert "Test set: Avg. loss:" in again.stdout


def test_a_checkpoint_from_before_a_setting_existed_is_gone_on_with(tmp_path, run):
    output = tmp_path / "run"
    flags = ["--model", "mlp", "--epochs", "2", "--subset", "256", "--output", output, "--resume"]
    assert run("mnist-train", *flags).returncode == 0
    saved = checkpoint.load(output / "last.pt")
    del saved["config"]["foreign"]
    checkpoint.save(output / "last.pt", saved)
    assert run("mnist-train", *flags).returncode == 0
    refused = run("mnist-train", *flags, "--foreign", "0.5")
    assert refused.returncode == 1
    assert "--foreign 0.0, not 0.5" in refused.stderr
