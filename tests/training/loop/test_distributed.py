"""Two processes under torchrun end with the weights of a single process, and can be killed and resumed."""

from __future__ import annotations

import gzip
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch

from tests.support import BIN, until
from training import checkpoint
from training.data.cache import default_cache

FLAGS = ["--epochs", "2", "--subset", "500", "--validation", "100", "--batch-size", "63", "--checkpoint-every", "3"]
TWO = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python"]


def train(*more, by=(), flags=FLAGS, **options):
    command = [*by, BIN / "mnist-train", *flags, *more]
    # The work keeps a tenth of a core busy. More threads would only wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::FutureWarning"}
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def weights(run):
    return checkpoint.load(run / "model.pt")["weights"]


def largest_difference(one, two):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


# mnist-train with another mirror.
WITH_MIRROR = """
import os
from training.data.torchvision_cpu import import_torchvision
import_torchvision().datasets.MNIST.mirrors = [os.environ["MIRROR"]]
from training.cli import main
main()
"""


@pytest.fixture(scope="module")
def downloaded(mnist, tmp_path_factory):
    """A run by two processes that downloaded the data: folder, result, mirror, requests, and cache."""
    folder = tmp_path_factory.mktemp("downloaded")
    source, requests = default_cache() / "mnist", []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            body = gzip.compress((source / self.path[1:].removesuffix(".gz")).read_bytes(), 1)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        environment = {"MIRROR": address, "XDG_CACHE_HOME": str(folder), "MNIST_DATA": ""}
        by = ["env", *(f"{name}={value}" for name, value in environment.items()), *TWO]
        command = [*by, sys.executable, "-c", WITH_MIRROR, *FLAGS, "--model", "mlp", "--output", folder / "run"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return folder / "run", done, address, requests, folder / "mnist-service" / "mnist"


@pytest.fixture(scope="module")
def runs(downloaded, tmp_path_factory):
    """The folders of the same run by one process and by two processes."""
    one = tmp_path_factory.mktemp("runs") / "one"
    finish(train("--model", "mlp", "--output", one))
    return one, downloaded[0]


def test_two_processes_end_with_the_weights_of_a_single_process(runs):
    # The sums have another order, so that each step may differ in the last digits of a float.
    assert largest_difference(*runs) < 2e-3
    a, b = (torch.load(folder / "last.pt", weights_only=True) for folder in runs)
    assert a["step"] == b["step"]
    assert a["random"].equal(b["random"])
    for row, other in zip(a["history"], b["history"], strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


# This runs in double precision. In single precision, two values of a pooling window can be equal except for rounding.
# The two runs may then pick different ones, and some steps later their weights differ in the second digit, as between
# two machines.
STEPS = """
import sys
from pathlib import Path
import torch
torch.set_default_dtype(torch.float64)
# As mnist-train does, because the import of the compiler takes as long as that of torch.
from training.no_compiler import leave_out_compiler
leave_out_compiler()
from training.data.digits import load
from training.loop import distributed, step
from training.loop.inputs import inputs_of_steps
from training.loop.state import State
from training.config import TrainConfig

single = step.normalize
step.normalize = lambda images: single(images).double()
config = TrainConfig.of(model="cnn", augment=False)
digits = load("mnist").test
with distributed.processes("cpu"):
    state = State.new(config, torch.device("cpu"))
    state.drawn = [(digits.take(torch.arange(5000, 5200)), 1 / 12)]
    # The last two sizes give one process fewer images than the other, and none.
    for size in (64, 63, 64, 63, 64, 63, 3, 1):
        chosen = torch.arange(state.step * 64, state.step * 64 + size)
        step.set_rate_and_decay(state, 0.01)
        [(size, parts)] = inputs_of_steps(state, [digits.take(chosen)])
        loss = step.take_step(state, parts, size).item()
        state.step += 1
    state.save(Path(sys.argv[1]))
    print(loss)
    # The state holds the process group. Its threads would run on while Python ends, and sometimes abort.
    del state
"""


def test_batch_norm_normalizes_over_the_batches_of_all_processes(tmp_path):
    saved = []
    for name, by in ("one", [sys.executable]), ("two", [*TWO, sys.executable]):
        command = [*by, "-W", "error::FutureWarning", "-c", STEPS, tmp_path / name]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        losses = {float(line) for line in done.stdout.splitlines()}
        saved.append((checkpoint.load(tmp_path / name), losses))
    (one, [loss]), (two, [other]) = saved
    assert loss == pytest.approx(other, abs=1e-6)
    for part in "network", "averaged":
        for tensor, expected in zip(two[part].values(), one[part].values(), strict=True):
            assert tensor.dtype == expected.dtype
            assert torch.allclose(tensor, expected, rtol=0, atol=1e-9)


def test_only_one_process_prints_and_writes(runs, downloaded):
    _, done, *_ = downloaded
    assert done.stdout.count("Test set:") == 1
    assert done.stdout.count("epoch 2/2") == 1
    one, two = ({path.name for path in folder.iterdir()} for folder in runs)
    assert one == two


def test_killed_processes_resume_with_the_same_weights(runs, tmp_path):
    _, two = runs
    model = ["--model", "mlp"]
    output = tmp_path / "run"
    process = train(*model, "--output", output, by=TWO, start_new_session=True)
    until(lambda: (output / "last.pt").exists() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # The run folder has all other settings.
    finish(train("--output", output, "--resume", by=TWO, flags=()))
    assert largest_difference(two, output) == 0


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_end_of_all_processes_is_told_by_one_of_them(tmp_path, how):
    flags = ["--model", "mlp", "--epochs", "100000", "--output", tmp_path / "run"]
    process = train(*flags, by=TWO, start_new_session=True)
    until(lambda: (tmp_path / "run" / "last.pt").exists() or process.poll() is not None)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    # torchrun would kill processes that hang after 30 seconds.
    out, err = process.communicate(timeout=25)
    assert process.returncode not in (0, None)
    assert err.count("Stopped.") == 1, err
    assert f"The last checkpoint is in {tmp_path / 'run'}. Continue with: mnist-train " in err
    assert out.count("mlp: 22,270 parameters") == 1
    assert err.count("loaded from") == 1


def test_one_process_downloads_the_data_for_all(downloaded):
    _, done, address, requests, cache = downloaded
    assert done.stderr.count("loaded from") == done.stderr.count(f"mnist: loaded from the mirror {address}") == 1
    assert sorted(requests) == sorted({f"/{path.name}.gz" for path in cache.iterdir()})


def test_processes_with_different_run_folders_are_rejected(runs, tmp_path):
    script = 'exec "$0" "$@" --output "$FOLDER/$RANK"'
    by = [*TWO, "bash", "-c", script]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FOLDER": str(tmp_path)}
    shutil.copytree(runs[0], tmp_path / "1")
    command = [*by, BIN / "mnist-train", *FLAGS, "--model", "mlp", "--resume"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode != 0
    assert "the processes found different checkpoints there" in done.stderr
