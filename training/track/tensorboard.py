"""A run as TensorBoard shows it: event files in the folder ``tensorboard`` of the run folder."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.track.shown import PLOTS, Row, results, scalars

FOLDER = "tensorboard"


class TensorBoard:
    """Writes event files. ``tensorboard --logdir runs`` shows those of all runs."""

    def __init__(self, config: Row, output: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._hook, threading.excepthook = threading.excepthook, self._report
        # A resumed run begins with its finished epochs, which take the place of all earlier events.
        writer: Any = SummaryWriter(str(output / FOLDER), purge_step=1)
        self._writer, self._config = writer, config
        writer.add_text("config", "\n".join(f"    {line}" for line in json.dumps(config, indent=2).splitlines()))

    def epoch(self, row: Row) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def finish(self, record: Row, folder: Path) -> None:
        settings = {
            name: value if isinstance(value, int | float | bool) else str(value) for name, value in self._config.items()
        }
        # The run of these results is the run itself, not one below it.
        self._writer.add_hparams(settings, results(record), run_name=".", global_step=record["config"]["epochs"])
        for name in PLOTS:
            if (folder / name).exists():
                pixels = np.asarray(Image.open(folder / name).convert("RGB"))
                self._writer.add_image(name.removesuffix(".png"), pixels, dataformats="HWC")

    def close(self, status: str) -> None:
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _report(self, failed: threading.ExceptHookArgs) -> None:
        """Report an error of a thread, but not of one that writes events: its writer raises the error once more."""
        if not type(failed.thread).__module__.startswith("tensorboard."):
            self._hook(failed)
