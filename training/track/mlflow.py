"""A run as MLflow shows it, on the server that ``MLFLOW_TRACKING_URI`` names.

The run folder keeps the run's id in ``mlflow.json``, so that a resumed training continues the same run, and the export
registers the model under it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from training.checkpoint import write_atomically
from training.origin import RECORD
from training.reasons import first_line
from training.track.shown import PLOTS, Row, TrackingError, results, scalars

FILE = "mlflow.json"
EXPERIMENT = "mnist-service"
# MLflow would otherwise try for minutes to reach a server that does not respond, and report its use to its makers.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def client() -> Any:
    """Return a client of the server.

    Raises:
        TrackingError: no server is named.
        ImportError: MLflow is missing.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise TrackingError("set MLFLOW_TRACKING_URI to the server, for example http://127.0.0.1:5000")
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient()


def run_of(folder: Path) -> str:
    """Return the id of the run that was trained in ``folder``.

    Raises:
        TrackingError: none was tracked there.
    """
    try:
        return str(json.loads((folder / FILE).read_bytes())["run_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(f"{folder}: MLflow has no run of it; train it with --track mlflow") from error


class MLflow:
    """Sends a run to the server."""

    def __init__(self, config: Row, output: Path) -> None:
        self._client = client()
        self._shown = 0
        """The last epoch that the server has."""
        self._run = self._resumed(output) or self._begun(config, output)

    def _resumed(self, output: Path) -> str:
        """Return the id of the run to continue, if there is one."""
        # Without a checkpoint, another run begins here, perhaps with other settings.
        if not ((output / FILE).exists() and (output / "last.pt").exists()):
            return ""
        run = run_of(output)
        self._client.update_run(run, status="RUNNING")
        history = self._client.get_metric_history(run, "train_loss")
        self._shown = max((metric.step for metric in history), default=0)
        return run

    def _begun(self, config: Row, output: Path) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = str(self._client.create_run(number, run_name=output.name).info.run_id)
        # An empty value is no value for MLflow.
        params = [Param(key, str(value)) for key, value in config.items() if value != ""]
        self._client.log_batch(run, params=params)
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / FILE, json.dumps({"run_id": run}).encode() + b"\n")
        return run

    def epoch(self, row: Row) -> None:
        if row["epoch"] > self._shown:
            self._log(scalars(row), row["epoch"])

    def finish(self, record: Row, folder: Path) -> None:
        self._log(results(record), record["config"]["epochs"])
        for name in (RECORD, "model.pt", "calibration.pt", *PLOTS):
            if (folder / name).exists():
                self._client.log_artifact(self._run, str(folder / name))

    def close(self, status: str) -> None:
        self._client.set_terminated(self._run, status)

    def _log(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in values.items()])


def register(folder: Path, bundle: Path, name: str, tags: dict[str, str]) -> str:
    """Register a published bundle as a version of the model ``name``, under the run of ``folder``. Return its number.

    Raises:
        TrackingError: the run was not tracked, or the server did not take the bundle.
    """
    try:
        run = run_of(folder)
        found = client()
        # The layout of a model repository: an MLflow server can hand out the folder `models`.
        place = f"models/{name}/{bundle.name}"
        found.log_artifacts(run, str(bundle), place)
        if not found.search_registered_models(f"name = '{name}'"):
            found.create_registered_model(name)
        source = f"{found.get_run(run).info.artifact_uri}/{place}"
        return str(found.create_model_version(name, source, run, tags=tags).version)
    except TrackingError:
        raise
    except ImportError as error:
        raise TrackingError("--track mlflow: install it with: pip install mlflow-skinny") from error
    except Exception as error:
        raise TrackingError(f"--track mlflow: {first_line(error)}") from error
