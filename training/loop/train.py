"""train(): from images to a run folder, and on again from wherever it was stopped.

A run folder holds

    last.pt         everything a resume needs
    model.pt        the weights to use
    metrics.jsonl   a line an epoch
    calibration.pt  temperature and novelty score, for the export
    curves.png  confusion.png  mistakes.png  reliability.png
    run.json        config, versions, data digests, result

All randomness of a step is a function of the seed and the step's number, so that a resumed run takes
the very steps an uninterrupted one takes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
import string
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training import checkpoint
from training.augment.fonts import FONT_SUFFIXES, find_fonts, render_characters
from training.augment.style import restyle
from training.config import TrainConfig
from training.data.digits import Digits, Splits
from training.distill.cache import TeacherCache, arithmetic, ask, augmented
from training.distill.ensemble import Ensemble
from training.evaluate import Evaluation, evaluate
from training.loop import distributed
from training.loop.optimizers import build_optimizer, rate_at, set_rate
from training.loop.progress import Progress
from training.networks import build, normalize, parameter_count
from training.plots import plot_confusion, plot_curves, plot_mistakes, plot_reliability
from training.trust.novelty import calibrate

# A step of more images than this is taken in parts, their gradients added up: the same step within
# rounding (BatchNorm sees one part at a time), in bounded memory.
MICRO_BATCH = 4096
# Digits drawn in handwriting fonts, where there are some, and how many of them go with each of a batch.
WRITTEN, WRITTEN_SHARE = 5000, 1 / 12


class TrainingError(Exception):
    """The run cannot begin or go on; the message says why and the way out."""


@dataclass
class State:
    """What changes from step to step, and all that a resume needs."""

    config: TrainConfig
    network: nn.Module
    averaged: AveragedModel | None
    optimizer: Optimizer
    teacher: Ensemble | None
    fonts: dict[Path, str] = field(default_factory=dict)
    """SHA-256 of each handwriting font."""
    written: Digits | None = None
    """Digits of the fonts, of which each step learns some beside its batch."""
    step: int = 0
    """Steps taken since the beginning of the run."""
    epoch_loss: float = 0.0
    """Sum of the losses of the images seen so far in this epoch."""
    epoch_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row for each finished epoch, as in metrics.jsonl."""
    parallel: nn.Module = field(init=False)
    """The network as it is trained: with the other processes, where there are several."""

    def __post_init__(self) -> None:
        self.parallel = distributed.parallel(self.network)

    @classmethod
    def new(cls, config: TrainConfig, device: torch.device) -> State:
        """Fresh weights from the config's seed."""
        torch.default_generator.manual_seed(_seed(config, "weights"))
        network = build(config.model).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averaged = None
        if config.ema:
            averaged = AveragedModel(network, multi_avg_fn=_ema(config.ema), use_buffers=True)
        teacher = _teacher(config).to(device) if config.teacher else None
        fonts = _fonts(config)
        written = None
        if fonts:
            images = render_characters(list(fonts), string.digits, WRITTEN, _seed(config, "written"))
            written = Digits(images, torch.arange(WRITTEN) % len(string.digits)).to(device)
        return cls(config, network, averaged, build_optimizer(config, network), teacher, fonts, written)

    @property
    def best_network(self) -> nn.Module:
        """The weights to use: the averaged ones where the run averages."""
        return self.averaged.module if self.averaged else self.network

    def save(self, path: Path) -> None:
        """Write a checkpoint, unless the weights are no longer numbers."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            raise TrainingError(_diverged(self.config, self.step, path))
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
                "random": torch.default_generator.get_state(),
                "step": self.step,
                "epoch_loss": self.epoch_loss,
                "epoch_seconds": self.epoch_seconds,
                "history": self.history,
            },
        )

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of a run with the same config."""
        saved = checkpoint.load(path)
        if "config" not in saved:
            raise checkpoint.CheckpointError(f"{path} holds weights alone, not a run to go on with")
        # Before a setting existed, a run went as it does with the default.
        before = {setting.name: setting.default for setting in dataclasses.fields(TrainConfig)} | saved["config"]
        differing = [key for key, value in self.config.asdict().items() if before[key] != value]
        if differing:
            changes = ", ".join(
                f"--{key.replace('_', '-')} {before[key]}, not {getattr(self.config, key)}" for key in differing
            )
            raise TrainingError(
                f"{path.parent} belongs to another run: it has {changes}. "
                "Resume it with its own settings, or name another --output."
            )
        if self.teacher and self.teacher.digests != saved["teachers"]:
            raise TrainingError(f"--teacher {self.config.teacher}: not the networks that {path.parent} learnt from.")
        if self.fonts and sorted(self.fonts.values()) != saved.get("fonts", []):  # older runs learnt from none
            raise TrainingError(f"--fonts {self.config.fonts}: not the fonts that {path.parent} learnt from.")
        self.network.load_state_dict(saved["network"])
        if self.averaged:
            self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.default_generator.set_state(saved["random"])
        self.step = saved["step"]
        self.epoch_loss, self.epoch_seconds = saved["epoch_loss"], saved["epoch_seconds"]
        self.history = saved["history"]


def train(
    config: TrainConfig,
    splits: Splits,
    output: Path,
    *,
    resume: bool = False,
    checkpoint_every: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Train, and leave the run folder at ``output``.

    Args:
        resume: go on from ``output/last.pt`` if it is there.
        checkpoint_every: also save within an epoch, each so many steps; 0 saves at its end only.

    Returns:
        the finished network's answers on the test set, which nothing here chooses by.

    Raises:
        TrainingError: the folder holds another run, or the loss is no longer a number.
        CheckpointError: the checkpoint to resume from is damaged.
        OSError: a file could not be written; the previous checkpoint is still there.
    """
    last = output / "last.pt"
    if last.exists() and not resume:
        raise TrainingError(f"{output} already holds a run: add --resume to go on with it, or name another --output.")
    _keep_memory()
    target = torch.device(device)
    state = State.new(config, target)
    output.mkdir(parents=True, exist_ok=True)
    if last.exists():
        state.load(last)
    if not distributed.agree(state.step, target):
        raise TrainingError(f"the processes see different runs in {output}: give them a folder that they share.")

    images = splits.train.to(target)
    validation = splits.validation.to(target)
    lessons = TeacherCache(config, state.teacher, images) if state.teacher and config.lessons else None
    batch_size = min(config.batch_size or len(images), len(images))
    steps_per_epoch = math.ceil(len(images) / batch_size)
    total_steps = steps_per_epoch * config.epochs
    if progress:
        progress.begin(total_steps, state.step)

    state.network.train()
    while state.step < total_steps:
        epoch = state.step // steps_per_epoch
        started = time.monotonic() - state.epoch_seconds
        clean = epoch >= config.epochs - config.clean_epochs
        shown = lessons[epoch % config.lessons] if lessons and not clean else images
        for batch in _batches(config, shown, batch_size, epoch, first=state.step % steps_per_epoch):
            rate = rate_at(config, state.step / total_steps)
            loss = _step(state, batch, rate, clean=clean)
            if not math.isfinite(loss):
                raise TrainingError(_diverged(config, state.step, last))
            state.step += 1
            state.epoch_loss += loss * len(batch)
            if progress:
                progress.step(f"{epoch + 1}/{config.epochs}", state.step, loss, rate)
            # The epoch's own save below covers its last step, with the row that belongs to it.
            if checkpoint_every and state.step % checkpoint_every == 0 and state.step % steps_per_epoch:
                state.epoch_seconds = time.monotonic() - started
                state.save(last)
        row: dict[str, Any] = {"epoch": epoch + 1, "train_loss": state.epoch_loss / len(images), "rate": rate}
        if len(validation):
            chosen = evaluate(state.best_network, validation)
            if not math.isfinite(chosen.loss):
                raise TrainingError(_diverged(config, state.step, last))
            row |= {"validation_loss": chosen.loss, "validation_accuracy": chosen.accuracy}
        row["seconds"] = round(time.monotonic() - started, 3)
        state.history.append(row)
        state.epoch_loss = state.epoch_seconds = 0.0
        state.save(last)
        _write_metrics(output, state.history)
        if progress:
            progress.line(_epoch_line(row, config.epochs))
    return _finish(state, splits, output, target)


def _keep_memory() -> None:
    """Have glibc keep what a step freed for the next one, instead of asking the kernel for zeroed pages each time.

    Elsewhere than with glibc nothing happens.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the most it takes


def _step(state: State, batch: Digits, rate: float, *, clean: bool = False) -> float:
    """One optimizer step on ``batch``, augmented unless ``clean`` or of a lesson; its mean loss before the step."""
    config = state.config
    # The default generator, so that whatever draws within a step draws the same after a resume.
    torch.default_generator.manual_seed(_seed(config, "step", state.step))
    set_rate(state.optimizer, rate)
    state.optimizer.zero_grad()
    total = 0.0
    for part in batch.split(MICRO_BATCH):
        labels, wanted = part.labels, part.answers
        as_it_is = clean or wanted is not None
        usual = part.images if as_it_is else augmented(config, part.images, torch.default_generator)
        seen = usual if clean else _in_other_hands(config, usual, labels)
        written = _written(state, len(part), clean=clean)
        # Shared out only now, so that every image is changed as it would be by one process alone.
        usual, seen, labels = (distributed.share(tensor) for tensor in (usual, seen, labels))
        with arithmetic(config, seen):
            shown = torch.cat([seen, written.images]) if written else seen
            answers = state.parallel(normalize(shown)).float()
        logits = answers[: len(seen)] if written else answers
        whole = len(labels) == len(batch)
        loss = F.cross_entropy(
            logits, labels, label_smoothing=config.label_smoothing, reduction="mean" if whole else "sum"
        )
        if state.teacher:
            # The teacher may know MNIST alone: it is asked of the digits as MNIST has them.
            wanted = ask(config, state.teacher, usual) if wanted is None else distributed.share(wanted)
            taught = _distillation(config, wanted, logits, "batchmean" if whole else "sum")
            loss = (1 - config.teacher_weight) * loss + config.teacher_weight * taught
        if written:
            of_written = F.cross_entropy(answers[len(seen) :], written.labels, reduction="sum")
            loss = loss + of_written / (len(labels) if whole else 1)
        if not whole:
            loss = loss / len(batch)
        # The processes' gradients are averaged, and are to be added up.
        (loss * distributed.count()).backward()
        total += loss.item()
    total = distributed.total(total, batch.labels.device)
    if math.isfinite(total):
        state.optimizer.step()
        if state.averaged:
            state.averaged.update_parameters(state.network)
    return total


def _in_other_hands(config: TrainConfig, images: Tensor, labels: Tensor) -> Tensor:
    return restyle(images, labels, config.foreign, torch.default_generator) if config.foreign else images


def _written(state: State, beside: int, *, clean: bool) -> Digits | None:
    """This process's share of some digits of fonts, to go with ``beside`` images; no teacher is asked of them."""
    config, count = state.config, round(WRITTEN_SHARE * beside)
    if not state.written or not count:
        return None
    chosen = torch.randint(len(state.written), (count,)).to(state.written.labels.device)
    images, labels = state.written.images[chosen], state.written.labels[chosen]
    if not clean:
        images = _in_other_hands(config, augmented(config, images, torch.default_generator), labels)
    return Digits(distributed.share(images), distributed.share(labels))


def _teacher(config: TrainConfig) -> Ensemble:
    folders = [Path(folder) for folder in config.teacher.split(",")]
    for folder in folders:
        if not (folder / "model.pt").exists():
            raise TrainingError(f"--teacher {folder} holds no model.pt: name the run folders of finished runs.")
    return Ensemble.load(folders)


def _fonts(config: TrainConfig) -> dict[Path, str]:
    fonts = find_fonts(Path(config.fonts)) if config.fonts else []
    if config.fonts and not fonts:
        raise TrainingError(
            f"--fonts {config.fonts} holds no font with Latin letters and digits: {', '.join(FONT_SUFFIXES)} are read."
        )
    return {font: hashlib.sha256(font.read_bytes()).hexdigest() for font in fonts}


def _distillation(config: TrainConfig, wanted: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """How far ``logits`` are from those of the teacher (Hinton et al., arXiv:1503.02531)."""
    difference = F.kl_div(
        F.log_softmax(logits / config.temperature, dim=1),
        F.log_softmax(wanted / config.temperature, dim=1),
        reduction=reduction,
        log_target=True,
    )
    # The gradient shrinks with the square of the temperature, which is made up for.
    return difference * config.temperature**2


def _batches(config: TrainConfig, images: Digits, size: int, epoch: int, first: int) -> Iterator[Digits]:
    """The batches of an epoch from batch ``first`` on, in the epoch's own random order."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_seed(config, "order", epoch)))
    # Indexed several batches at a time: for the mlp a step's own indexing would be a twentieth of the step.
    for indices in order[first * size :].split(max(1, MICRO_BATCH // size) * size):
        yield from images.take(indices.to(images.labels.device)).split(size)


def _ema(decay: float) -> Any:
    """Exponential moving average that forgets the first steps fast: decay min(d, (1 + n) / (10 + n))."""

    def average(averaged: Any, current: Any, count: Tensor) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return average


def _seed(config: TrainConfig, *what: object) -> int:
    # A CRC spreads neighbouring steps over the 32 bits that torch's CPU generator takes of a seed.
    return zlib.crc32(repr((config.seed, *what)).encode())


def _diverged(config: TrainConfig, step: int, last: Path | None = None) -> str:
    kept = f"{last} holds the last good state. " if last and last.exists() else ""
    return (
        f"the loss is not a number at step {step + 1}. {kept}"
        f"Try a lower --learning-rate than {config.learning_rate:g} in a new --output."
    )


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    line = f"epoch {row['epoch']}/{epochs}  training loss {row['train_loss']:.4f}"
    if "validation_loss" in row:
        line += f"  validation loss {row['validation_loss']:.4f} accuracy {row['validation_accuracy']:.2%}"
    return f"{line}  {row['seconds']:.1f} s"


def _write_metrics(output: Path, history: list[dict[str, Any]]) -> None:
    if not distributed.is_first():
        return
    lines = "".join(json.dumps(row) + "\n" for row in history)
    checkpoint.write_atomically(output / "metrics.jsonl", lines.encode())


def _finish(state: State, splits: Splits, output: Path, device: torch.device) -> Evaluation:
    """Evaluate once on the test set; write the weights, the pictures, and last of all the record."""
    network = state.best_network
    test = evaluate(network, splits.test.to(device))
    if not math.isfinite(test.loss):
        # Only without validation images does the last step show its damage this late.
        raise TrainingError(_diverged(state.config, state.step))
    if not distributed.is_first():
        return test
    calibration = calibrate(network, splits, _seed(state.config, "calibration"), list(state.fonts))
    evaluations = {"test": test}
    if len(splits.validation):
        evaluations["validation"] = evaluate(network, splits.validation.to(device))
    trust = checkpoint.to_bytes(calibration.state())
    checkpoint.write_atomically(output / "calibration.pt", trust)
    plot_reliability(output / "reliability.png", calibration.applied(test), calibration.temperature)
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    model = checkpoint.to_bytes({"model": state.config.model, "weights": weights})
    checkpoint.write_atomically(output / "model.pt", model)
    _write_metrics(output, state.history)
    plot_curves(output / "curves.png", state.history)
    plot_confusion(output / "confusion.png", test, splits.labels)
    plot_mistakes(output / "mistakes.png", test, splits.test, splits.labels)
    record = {
        "config": state.config.asdict(),
        "dataset": {
            "name": splits.name,
            "labels": splits.labels,
            "digests": splits.digests,
            "train_images": len(splits.train),
            "validation_images": len(splits.validation),
        },
        "parameters": parameter_count(network),
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "teachers": state.teacher.digests if state.teacher else {},
        "fonts": {font.name: digest for font, digest in state.fonts.items()},
        "result": {name: evaluation.summary() for name, evaluation in evaluations.items()},
        "calibration": {
            "temperature": calibration.temperature,
            "threshold": calibration.threshold,
            "sha256": hashlib.sha256(trust).hexdigest(),
            "result": {name: calibration.applied(evaluation).summary() for name, evaluation in evaluations.items()},
        },
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in ("torch", "torchvision", "numpy")},
        "threads": torch.get_num_threads(),
        "processes": distributed.count(),
    }
    checkpoint.write_atomically(output / "run.json", (json.dumps(record, indent=2) + "\n").encode())
    return test
