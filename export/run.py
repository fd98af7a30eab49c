"""A finished run folder: its record, its network and its calibration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from export.cascade import Cascade
from export.folder import ExportError, read_file, way_out
from export.graph import ServingGraph
from export.records import RunRecord
from serving.contract import SYMBOL
from serving.errors import first_line
from training import checkpoint
from training.config import KNOWN_DATASETS
from training.data.digits import Splits
from training.data.load import Selection, load_data, load_saved
from training.networks import Network, build, multiplications
from training.origin import RECORD
from training.trust.calibrate import Calibration


@dataclass(frozen=True)
class Run:
    """A finished run folder."""

    folder: Path
    record: dict[str, Any]
    """The content of ``run.json``."""
    network: Network
    calibration: Calibration
    first: Run | None = None
    """The run of the first network, if both are to become an :class:`export.cascade.Cascade`."""
    share: float = 0.0
    """How much the first network counts for the images that both see; see :mod:`export.fit_cascade`."""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read ``run.json``, the weights and the calibration, and check the digests of both.

        Raises:
            ExportError: the run is not finished, or a file does not match its digest in ``run.json``.
        """
        path = folder / RECORD
        try:
            record = json.loads(read_file(folder, RECORD))
            known = msgspec.convert(record, RunRecord)
            network = build(known.config.model, len(known.dataset.labels))
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:  # ConfigError is a ValueError too.
            reason = " ".join(str(error).split())
            raise ExportError(f"{path}: not the record of a run: {reason}") from error
        if not known.dataset.own and known.dataset.name not in KNOWN_DATASETS:
            raise ExportError(f"{path}: there is no data set {known.dataset.name!r}; train the run again")
        try:
            network.load_state_dict(_load(folder, "model.pt", known.model_sha256)["weights"])
            calibration = Calibration.of(_load(folder, "calibration.pt", known.calibration.sha256))
        except (KeyError, RuntimeError, TypeError) as error:
            raise ExportError(
                f"{folder}: its files do not belong to the network of run.json: {first_line(error)}"
            ) from error
        return cls(folder, record, network, calibration)

    def after(self, first: Run) -> Run:
        """Return this run as the second network of a cascade.

        Raises:
            ExportError: the runs do not fit together.
        """
        ours, others = (run.record["dataset"] for run in (self, first))
        # With fewer validation images, a run has trained on some of those that the cascade is fitted on.
        for what in ("labels", "digests", "prepare", "train_images", "validation_images"):
            if ours.get(what) != others.get(what):
                raise ExportError(
                    f"{first.folder}: its data set differs from that of {self.folder} ({what}); train both on the same "
                    "pictures"
                )
        if multiplications(first.network) >= multiplications(self.network):
            raise ExportError(
                f"{first.folder}: its network takes as much work as that of {self.folder}, so a cascade of them would "
                "be slower; train a smaller one, for example with --model cnn-first"
            )
        return replace(self, first=first)

    def graph(self) -> ServingGraph | Cascade:
        """Return what is exported."""
        second = ServingGraph(self.network, self.calibration)
        return Cascade(self.first.graph(), second, self.share) if self.first else second

    def splits(self, data: Path | None) -> Splits:
        """Return the data set of the run. The user's own pictures are in the run folder.

        Args:
            data: folder with a known data set; see :class:`training.data.load.Selection`.

        Raises:
            DataError: it could not be found.
            ExportError: it is not the one that the run was trained with.
        """
        said, config = self.record["dataset"], self.record["config"]
        prepare = said.get("prepare", SYMBOL)
        selection = Selection(prepare, data, validation=config["validation"], subset=config["subset"])
        if said.get("own"):
            replay = said.get("replay")
            splits = load_saved(self.folder, selection, replay["name"] if replay else "")
        else:
            splits = load_data(said["name"], selection)
        if splits.digests != said["digests"] or list(splits.labels) != list(said["labels"]):
            raise ExportError(f"{self.folder}: its data set {said['name']} has changed since; train the run again")
        return splits


def _load(folder: Path, name: str, digest: str) -> dict[str, Any]:
    """Return the content of a checkpoint, which must have this SHA-256."""
    content = read_file(folder, name)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ExportError(
            f"{folder / name}: changed after training, its SHA-256 differs from run.json; {way_out(folder)}"
        )
    return checkpoint.from_bytes(content, folder / name)
