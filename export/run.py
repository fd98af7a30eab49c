"""A finished run folder: its record, its network and its calibration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import checkpoint
from training.networks import Network, build
from training.trust.calibrate import Calibration


class ExportError(Exception):
    """The run cannot be exported. The message gives the reason and the way out."""


@dataclass(frozen=True)
class Run:
    """A finished run folder."""

    folder: Path
    record: dict[str, Any]
    """The content of ``run.json``."""
    network: Network
    calibration: Calibration

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read ``run.json``, the weights and the calibration, and check the digests of both.

        Raises:
            ExportError: the run is not finished, or a file does not match its digest in ``run.json``.
        """
        try:
            record = json.loads((folder / "run.json").read_text())
            weights = (folder / "model.pt").read_bytes()
        except FileNotFoundError as error:
            raise ExportError(
                f"{folder}: not a finished run, {Path(str(error.filename)).name} is missing. "
                f"Finish it with its mnist-train command and --resume, or name another run folder"
            ) from error
        except ValueError as error:
            raise ExportError(f"{folder / 'run.json'}: not valid JSON: {error}") from error
        if hashlib.sha256(weights).hexdigest() != record.get("model_sha256"):
            raise ExportError(f"{folder / 'model.pt'}: changed after training, its SHA-256 differs from run.json")
        network = build(record["config"]["model"])
        network.load_state_dict(checkpoint.load(folder / "model.pt")["weights"])
        return cls(folder, record, network, _calibration(folder, record))


def _calibration(folder: Path, record: dict[str, Any]) -> Calibration:
    try:
        content = (folder / "calibration.pt").read_bytes()
    except FileNotFoundError as error:
        raise ExportError(f"{folder}: calibration.pt is missing, but run.json names it. Train the run again") from error
    if hashlib.sha256(content).hexdigest() != record["calibration"]["sha256"]:
        raise ExportError(f"{folder / 'calibration.pt'}: changed after training, its SHA-256 differs from run.json")
    return Calibration.of(checkpoint.load(folder / "calibration.pt"))
