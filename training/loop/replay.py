"""Learn new images without forgetting others: the start model as a teacher, and what is wrong before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from training.config import LEAST_REPLAYED, TrainConfig
from training.data.digits import Digits, Replay, Splits
from training.distill.ensemble import Ensemble
from training.evaluate import Evaluation, evaluate
from training.loop.start import read_start
from training.networks import Network
from training.trained import Trained

# Each step adds at least this many new images per image of its batch. More would move the network further from what it
# knows, fewer would need more steps.
LEAST_SHARE = 1 / 16
# The logit of a class that a network does not have.
NEVER = -20.0
# If fewer of the new training images are right after the run, it prints what to do.
ENOUGH = 0.8


class Widened(nn.Module):
    """A network that also has other classes. It never chooses them."""

    def __init__(self, network: Network, known: Sequence[str], labels: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self._count = len(labels)
        self.register_buffer("places", torch.tensor([labels.index(label) for label in known]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[N, C]`` in the order of the labels."""
        logits = self.network(x)
        widened: Tensor = logits.new_full((len(logits), self._count), NEVER)
        return widened.index_copy(1, self.get_buffer("places"), logits)


def with_enough_epochs(config: TrainConfig, chosen: Mapping[str, Any], splits: Splits) -> TrainConfig:
    """Return the config of a new run. By default, a run on little data gets more epochs, so that it learns at all.

    Args:
        chosen: the settings that the user has chosen, as flags or by a recipe.
    """
    if splits.replay is None or not config.start or "epochs" in chosen:
        return config
    return replace(config, epochs=max(config.epochs, math.ceil(LEAST_REPLAYED / len(splits.train))))


def new_images(replay: Replay, train_images: int) -> tuple[Digits, float]:
    """Return the new images, and how many of them a step adds per image of its batch. An epoch has room for each."""
    return replay.added, max(LEAST_SHARE, len(replay.added) / max(1, train_images))


def start_teacher(config: TrainConfig, labels: Sequence[str], replay: Replay | None) -> Ensemble | None:
    """Return the model of ``--from`` as the teacher for the replay data set. None if it lacks a class of that data set.

    Raises:
        TrainingError: there is no such model.
    """
    found = _start(config, labels, replay)
    if found is None:
        return None
    start, network = found
    teacher = Ensemble([network]).eval().requires_grad_(False)
    teacher.digests = {config.start: start.digest}
    return teacher


def replay_record(
    config: TrainConfig, splits: Splits, network: nn.Module, validation: Evaluation | None, test: Evaluation
) -> dict[str, object] | None:
    """Return what ``run.json`` says about a run with ``--replay``.

    It has the errors on the replay data set, before and after the run, and how many of the new images are right after
    it: of those for training, and of those for validation and test.

    Args:
        network: the network after the run.
        validation, test: its evaluations on the whole validation set, if there is one, and on the whole test set.
    """
    replay = splits.replay
    if replay is None:
        return None
    count = replay.test_images
    after = _part(test, None, count)
    found = _start(config, splits.labels, replay)
    before = evaluate(found[1], Digits(splits.test.images[:count], splits.test.labels[:count])) if found else None
    learnt = evaluate(network, replay.added.to(next(network.parameters()).device))
    held_out = [_part(test, count, None)]
    held_out += [_part(validation, replay.validation_images, None)] if validation else []
    return {
        "name": replay.name,
        "own": replay.is_own,
        "images": count,
        "errors": count - after.correct,
        "errors_before": None if before is None else count - before.correct,
        "new": {
            "images": len(learnt.labels),
            "correct": learnt.correct,
            "held_out": sum(len(each.labels) for each in held_out),
            "held_out_correct": sum(each.correct for each in held_out),
        },
    }


def _part(evaluation: Evaluation, first: int | None, end: int | None) -> Evaluation:
    return Evaluation(evaluation.logits[first:end], evaluation.labels[first:end])


def _start(config: TrainConfig, labels: Sequence[str], replay: Replay | None) -> tuple[Trained, Widened] | None:
    if replay is None or not config.start:
        return None
    start = read_start(config)
    if not set(replay.labels) <= set(start.labels) <= set(labels):
        return None
    return start, Widened(start.network.eval(), start.labels, labels)


def replay_lines(record: dict[str, Any], epochs: int) -> list[str]:
    """Return what a run prints about the replay data set, and about the new images.

    Args:
        record: what :func:`replay_record` returned.
        epochs: the epochs of the run.
    """
    before = "" if record["errors_before"] is None else f", {record['errors_before']} before"
    new = record["new"]
    learnt = f"new pictures: {new['correct']} of {new['images']} learnt"
    if new["held_out"]:
        learnt += f"; of the {new['held_out']} for validation and test, {new['held_out_correct']} right"
    errors = f"{record['errors']} error{'s' * (record['errors'] != 1)}"
    lines = [f"{record['name']}: {errors} of {record['images']:,} test images{before}", learnt]
    if new["correct"] < ENOUGH * new["images"]:
        lines.append(
            f"Many new pictures are not learnt. Give more --epochs than {epochs}, "
            "or look for wrong labels: mnist-train review"
        )
    return lines
