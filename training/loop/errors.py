"""The errors of a run."""

from __future__ import annotations

from pathlib import Path

from training.config import TrainConfig


class TrainingError(Exception):
    """The run cannot begin or continue. The message says why, and what to do."""


class DivergedError(TrainingError):
    """The loss or the weights are no longer finite.

    Args:
        step: how many steps gave finite numbers.
        last: the checkpoint, which may not exist yet.
    """

    def __init__(self, config: TrainConfig, step: int, last: Path | None = None) -> None:
        kept = f" {last} holds the last good state." if last and last.exists() else ""
        super().__init__(
            f"--learning-rate {config.learning_rate:g}: the loss is not a number at step {step + 1}; "
            f"use a lower learning rate and another --output.{kept}"
        )
