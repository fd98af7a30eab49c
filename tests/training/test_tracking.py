"""--track: a run in TensorBoard and in MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from types import SimpleNamespace

import pytest

from tests.export.conftest import invoke, prepare
from tests.support import missing, until
from tests.training.support import FAST, rows
from training.config import TrainConfig
from training.loop.errors import TrainingError
from training.loop.lock import locked
from training.loop.train import train
from training.track.mlflow import MLflow
from training.track.shown import TrackingError
from training.track.tensorboard import TensorBoard
from training.track.tracking import PACKAGES, PAUSE, Tracking, tracked


def test_tensorboard_shows_epochs_results_and_plots(small, tmp_path):
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        missing("the package tensorboard")
    config = TrainConfig(**FAST)
    train(config, small, tmp_path, tracking=tracked(["tensorboard"], config.asdict(), tmp_path, pytest.fail))
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, pytest.approx(event.value)) for event in found.Scalars("train_loss")]
    assert losses == [(row["epoch"], row["train_loss"]) for row in rows(tmp_path)]
    record = json.loads((tmp_path / "run.json").read_text())
    [accuracy] = found.Scalars("test/accuracy")
    assert accuracy.value == pytest.approx(record["calibration"]["result"]["test"]["accuracy"])
    assert {"curves", "confusion"} <= set(found.Tags()["images"])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a real MLflow server."""
    try:
        import flask  # noqa: F401
        import mlflow  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        missing(f"the package {error.name}")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", folder / "artifacts"]
    line = [sys.executable, "-m", "mlflow", "server", *store, "--port", port, "--workers", 1]
    log = (folder / "log").open("w")
    # Nobody gives the server a job, and to be ready for jobs it would start eight processes that import mlflow.
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(list(map(str, line)), stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"

    def responds():
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return response.status == 200
        return False

    try:
        until(responds)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.filterwarnings("ignore")
def test_mlflow_lists_the_run_and_after_the_export_the_version(server, small, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    folder, models = tmp_path / "run", tmp_path / "models"
    config = TrainConfig(**FAST, seed=7)
    train(config, small, folder, tracking=tracked(["mlflow"], config.asdict(), folder, pytest.fail))

    from mlflow import MlflowClient

    client = MlflowClient(server)
    [found] = client.search_runs([client.get_experiment_by_name("mnist-service").experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert (found.data.params["seed"], found.data.params["model"]) == ("7", "mlp")
    record = json.loads((folder / "run.json").read_text())
    accuracy = record["calibration"]["result"]["test"]["accuracy"]
    assert found.data.metrics["test/accuracy"] == pytest.approx(accuracy)
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert [metric.step for metric in history] == [1, 2]
    assert {"run.json", "model.pt", "confusion.png"} <= {file.path for file in client.list_artifacts(found.info.run_id)}

    prepare(monkeypatch)
    done = invoke(folder, "--repository", models, "--track", "mlflow")
    assert done.exit_code == 0, done.stderr
    assert "Registered  mnist version 1 in MLflow" in done.stdout
    [version] = client.search_model_versions("name = 'mnist'")
    assert version.run_id == found.info.run_id
    manifest = json.loads((models / "mnist" / "1" / "manifest.json").read_text())
    assert version.tags["sha256"] == manifest["files"]["model.onnx"]["sha256"]
    stored = {file.path for file in client.list_artifacts(found.info.run_id, "models/mnist/1")}
    assert "models/mnist/1/README.md" in stored


def test_tracker_that_fails_ends_no_training_and_gets_everything_later():
    got, warnings = [], []
    broken = SimpleNamespace(is_down=True)

    def epoch(row):
        if broken.is_down:
            raise OSError("no route\nto the server")
        got.append(row["epoch"])

    broken.epoch = epoch
    broken.close = got.append
    tracking = Tracking({"mlflow": broken}, warnings.append)
    tracking.epoch({"epoch": 1})
    tracking.epoch({"epoch": 2})
    assert warnings == ["WARNING: --track mlflow: no route; the training goes on"]
    broken.is_down = False
    tracking.close("FINISHED")
    assert got == [1, 2, "FINISHED"]


def test_tracker_that_cannot_be_reached_is_not_tried_again_at_every_epoch():
    tried, now = [], [0.0]

    def fail(*given):
        tried.append(now[0])
        raise OSError

    tracking = Tracking({"mlflow": SimpleNamespace(epoch=fail)}, lambda _: None, lambda: now[0])
    for second in range(0, 200, 10):
        now[0] = second
        tracking.epoch({"epoch": second})
    tracking.close("FINISHED")
    assert tried == [0, PAUSE, 2 * PAUSE, 3 * PAUSE, 190]


def test_tracker_that_keeps_failing_is_closed(tmp_path):
    """Its thread would live on in a notebook."""
    before, hook = set(threading.enumerate()), threading.excepthook
    tensorboard = TensorBoard({}, tmp_path)
    assert set(threading.enumerate()) > before
    tracking = Tracking({"tensorboard": tensorboard}, lambda _: None)
    tracking.epoch({"train_loss": 1.0})
    assert tracking.close("FINISHED") == ["tensorboard"]
    assert set(threading.enumerate()) <= before
    assert threading.excepthook is hook


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")]
)
def test_tracker_is_told_how_a_run_ended(tmp_path, monkeypatch, error, status):
    ended = []
    monkeypatch.setattr("training.track.tracking._tracker", lambda *_: SimpleNamespace(close=ended.append))
    with contextlib.suppress(error or ()), tracked(["mlflow"], {}, tmp_path, pytest.fail):
        if error:
            raise error
    assert ended == [status]


def test_new_run_does_not_take_over_that_of_a_dead_one(tmp_path, monkeypatch):
    client = SimpleNamespace(update_run=lambda *_, **__: None, get_metric_history=lambda *_: [])
    monkeypatch.setattr("training.track.mlflow.client", lambda: client)
    monkeypatch.setattr(MLflow, "_begun", lambda *_: "new")
    (tmp_path / "mlflow.json").write_text('{"run_id": "old"}')
    assert MLflow({}, tmp_path)._run == "new"
    (tmp_path / "last.pt").touch()
    assert MLflow({}, tmp_path)._run == "old"


@pytest.mark.parametrize("tracker", [TensorBoard, MLflow])
def test_resumed_run_sends_what_was_not_sent(small, tmp_path, monkeypatch, request, tracker):
    kind = tracker.__name__.lower()
    if kind == "mlflow":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server"))
    config, warnings = TrainConfig(**FAST), []

    def fail(self, row, send=tracker.epoch):
        if row["epoch"] > 1:
            raise OSError("away")
        send(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(tracker, "epoch", fail)
        train(config, small, tmp_path, tracking=tracked([kind], config.asdict(), tmp_path, warnings.append))
    later = f"mnist-train --output {tmp_path} --resume --track {kind}"
    assert warnings == [
        f"WARNING: --track {kind}: away; the training goes on",
        f"WARNING: --track {kind}: not everything could be sent; to send it later: {later}",
    ]

    train(config, small, tmp_path, resume=True, tracking=tracked([kind], config.asdict(), tmp_path, pytest.fail))
    if kind == "mlflow":
        from mlflow import MlflowClient

        run = json.loads((tmp_path / "mlflow.json").read_text())["run_id"]
        steps = [metric.step for metric in MlflowClient().get_metric_history(run, "train_loss")]
    else:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        steps = [event.step for event in EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train_loss")]
    assert steps == [1, 2]


def test_folder_that_tensorboard_cannot_write_is_one_error(tmp_path, capfd):
    """The threads that write events would print a traceback each."""
    missing_folder = tmp_path / "run" / "tensorboard"
    missing_folder.parent.mkdir()
    missing_folder.symlink_to("/proc/self")
    threads = set(threading.enumerate())
    with (
        pytest.raises(TrackingError, match=r"^--track tensorboard: "),
        tracked(["tensorboard"], {}, tmp_path / "run", pytest.fail),
    ):
        pass
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
    assert "Traceback" not in capfd.readouterr().err


def test_second_process_in_the_folder_of_a_run_leaves_its_tracker_alone(small, tmp_path, monkeypatch):
    """It would mark the run that goes on as failed."""
    told = []
    monkeypatch.setattr("training.track.tracking._tracker", lambda *_: SimpleNamespace(close=told.append))
    config = TrainConfig(**FAST)
    with locked(tmp_path), pytest.raises(TrainingError, match="is training in this folder"):
        train(config, small, tmp_path, tracking=tracked(["mlflow"], config.asdict(), tmp_path, pytest.fail))
    assert told == []


@pytest.mark.parametrize(("kind", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_missing_package_is_named(tmp_path, monkeypatch, kind, module):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with (
        pytest.raises(TrackingError, match=f"pip install {PACKAGES[kind]}"),
        tracked([kind], {}, tmp_path, pytest.fail),
    ):
        pass


def test_server_must_be_named(tmp_path, command, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = command("--model", "mlp", "--subset", 256, "--output", tmp_path / "run", "--track", "mlflow")
    assert done.exit_code == 1
    assert "Error: --track mlflow: set MLFLOW_TRACKING_URI to the server" in done.stderr
    assert not (tmp_path / "run").exists()
