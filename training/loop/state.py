"""The state of a run, and the checkpoint that holds it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training import checkpoint
from training.config import TrainConfig
from training.data.digits import Digits, Splits
from training.distill.ensemble import Ensemble
from training.loop import distributed
from training.loop.averaging import Average, mix
from training.loop.errors import DivergedError, TrainingError
from training.loop.extras import draw_extras, font_digests, load_teacher
from training.loop.optimizers import build_optimizer, load_optimizer
from training.loop.replay import new_images, start_teacher
from training.loop.resume import check_same_run, load_state
from training.loop.start import read_start, start_from
from training.networks import Network, build


@dataclass
class State:
    """Everything that a step reads and changes."""

    config: TrainConfig
    network: Network
    averaged: Average | None
    optimizer: Optimizer
    teacher: Ensemble | None = None
    fonts: dict[Path, str] = field(default_factory=dict)
    """SHA-256 of each handwriting font."""
    drawn: list[tuple[Digits, float]] = field(default_factory=list)
    """Drawn images of each source, on the CPU, and how many of them each step adds per image of its batch."""
    labels: tuple[str, ...] = tuple("0123456789")
    """The names of the classes."""
    start: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the weights that the run began with, by the folder of their model."""
    first_weights: dict[str, Tensor] | None = None
    """The weights that the run began with, if it keeps a share of them."""
    step: int = 0
    """Number of steps since the beginning of the run."""
    epoch_loss: float = 0.0
    """Sum of the losses of this epoch's images so far."""
    epoch_seconds: float = 0.0
    """Time spent on this epoch so far."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.jsonl, one for each finished epoch."""
    extended: list[dict[str, int]] = field(default_factory=list)
    """How often the run got more epochs than it began with: each time its ``epochs`` before, and the ``step`` then."""
    threads: int = 1
    """Number of threads that a step takes on the CPU."""
    precision_reason: str = ""
    """Why the run has its precision; empty if it was set."""
    parallel: nn.Module = field(init=False)
    """The network for training. With several processes it averages the gradients of all."""

    def __post_init__(self) -> None:
        self.parallel = distributed.parallel(self.network)

    @classmethod
    def new(
        cls,
        config: TrainConfig,
        device: torch.device,
        labels: tuple[str, ...] = tuple("0123456789"),
        *,
        splits: Splits | None = None,
        is_resumed: bool = False,
    ) -> State:
        """Return the state before the first step, with weights from the seed of the run, or from ``--from``.

        Args:
            labels: the names of the classes.
            splits: the data set, for the outliers, and for what it adds in each step.
            is_resumed: whether :meth:`load` will replace the weights, so that those of ``--from`` are not needed.

        Raises:
            TrainingError: the teachers, the fonts or the first weights of ``config`` are missing or of another kind.
            CheckpointError: a teacher's weights are damaged.
        """
        torch.default_generator.manual_seed(config.seed_for("weights"))
        built = build(config.model, len(labels))
        start = {} if is_resumed else start_from(config, built, labels, splits.train.images if splits else None)
        network = built.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        replay = splits.replay if splits else None
        teacher = load_teacher(config, labels) or start_teacher(config, labels, replay)
        fonts = font_digests(config)
        drawn = draw_extras(config, fonts, splits)
        if splits and replay:
            drawn.append(new_images(replay, len(splits.train)))
        return cls(
            config,
            network,
            Average(network, config.ema) if config.ema else None,
            build_optimizer(config, network),
            teacher.to(device) if teacher else None,
            fonts,
            drawn,
            labels,
            start,
            copy.deepcopy(network.state_dict()) if config.keep and not is_resumed else None,
        )

    @property
    def result(self) -> Network:
        """The network that the run saves as its result: the one with averaged weights, if the run averages them.

        With ``--keep``, its weights are the mean of the first and the last ones (Wortsman et al., arXiv:2109.01903).
        """
        network = cast(Network, self.averaged.module) if self.averaged else self.network
        return mix(network, self.first_weights, self.config.keep) if self.first_weights else network

    def save(self, path: Path) -> None:
        """Write a checkpoint. With several processes only the first one writes.

        Raises:
            DivergedError: the weights are not finite. The old checkpoint stays.
        """
        if not torch.stack([parameter.isfinite().all() for parameter in self.network.parameters()]).all():
            raise DivergedError(self.config, self.step, path)
        if not distributed.is_first():
            return
        checkpoint.save(
            path,
            {
                "config": self.config.asdict(),
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict() if self.averaged else None,
                "optimizer": self.optimizer.state_dict(),
                "teachers": self.teacher.digests if self.teacher else {},
                "fonts": sorted(self.fonts.values()),
                "labels": self.labels,
                "start": self.start,
                "first_weights": self.first_weights,
                "random": torch.default_generator.get_state(),
                "step": self.step,
                "epoch_loss": self.epoch_loss,
                "epoch_seconds": self.epoch_seconds,
                "history": self.history,
                "extended": self.extended,
                "precision_reason": self.precision_reason,
            },
        )

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of a run with the same config, teachers and fonts. Only epochs may have grown.

        Raises:
            TrainingError: the checkpoint belongs to another run.
            CheckpointError: the checkpoint is damaged.
        """
        saved = load_state(path)
        self._check_same_run(saved, path.parent)
        self.network.load_state_dict(saved["network"])
        if self.averaged:
            self.averaged.load_state_dict(saved["averaged"])
        load_optimizer(self.optimizer, saved["optimizer"])
        torch.default_generator.set_state(saved["random"])
        self.step = saved["step"]
        self.epoch_loss, self.epoch_seconds = saved["epoch_loss"], saved["epoch_seconds"]
        self.history = saved["history"]
        # Checkpoints of version 0.1 have no such entries.
        self.start = saved.get("start", {})
        self.first_weights = saved.get("first_weights")
        self.extended = saved.get("extended", [])
        self.precision_reason = saved.get("precision_reason", "")
        if self.config.epochs > saved["config"]["epochs"]:
            self.extended.append({"epochs": saved["config"]["epochs"], "step": self.step})

    def _check_same_run(self, saved: dict[str, Any], folder: Path) -> None:
        check_same_run(saved["config"], self.config.asdict(), folder)
        digests = self.teacher.digests if self.teacher else {}
        # By digest, because the folder of a teacher may have moved, or have another spelling.
        if sorted(digests.values()) != sorted(saved["teachers"].values()):
            raise TrainingError(
                f"--teacher {self.config.teacher}: the run in {folder} had other teachers; "
                "resume it with the same teachers, or name another --output"
            )
        if self.config.start != saved["config"].get("start", "") and not self._has_start_of(saved):
            raise TrainingError(
                f"--from {self.config.start}: the run in {folder} began with other weights; "
                "leave the flag out to resume it, or name another --output"
            )
        if tuple(saved.get("labels", self.labels)) != self.labels:
            raise TrainingError(
                f"--dataset {self.config.dataset}: the run in {folder} had other classes; name another --output"
            )
        if sorted(self.fonts.values()) != saved["fonts"]:
            raise TrainingError(
                f"--fonts {self.config.fonts}: the run in {folder} had other fonts; "
                "resume it with the same fonts, or name another --output"
            )

    def _has_start_of(self, saved: dict[str, Any]) -> bool:
        """Return whether ``--from`` names the weights that a checkpoint began with, perhaps in another folder."""
        return bool(self.config.start) and read_start(self.config).digest in saved.get("start", {}).values()
