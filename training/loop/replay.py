"""Learn new images without forgetting others: the start model as a teacher, and its errors before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from training.config import TrainConfig
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


def new_images(replay: Replay, train_images: int) -> tuple[Digits, float]:
    """Return the new images, and how many of them a step adds per image of its batch. An epoch has room for each."""
    return replay.added, max(LEAST_SHARE, len(replay.added) / max(1, train_images))


def start_teacher(config: TrainConfig, labels: Sequence[str], replay: Replay | None) -> Ensemble | None:
    """Return the model of ``--from`` as the teacher for replayed images. None if it does not know all their classes.

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


def replay_record(config: TrainConfig, splits: Splits, test: Evaluation) -> dict[str, object] | None:
    """Return what ``run.json`` says about the data set that must not be forgotten: the errors before and after the run.

    Args:
        test: the evaluation on the whole test set.
    """
    if splits.replay is None:
        return None
    count = splits.replay.test_images
    after = Evaluation(test.logits[:count], test.labels[:count])
    found = _start(config, splits.labels, splits.replay)
    before = evaluate(found[1], Digits(splits.test.images[:count], splits.test.labels[:count])) if found else None
    return {
        "name": splits.replay.name,
        "own": splits.replay.is_own,
        "images": count,
        "errors": count - after.correct,
        "errors_before": None if before is None else count - before.correct,
    }


def _start(config: TrainConfig, labels: Sequence[str], replay: Replay | None) -> tuple[Trained, Widened] | None:
    if replay is None or not config.start:
        return None
    start = read_start(config)
    if not set(replay.labels) <= set(start.labels) <= set(labels):
        return None
    return start, Widened(start.network.eval(), start.labels, labels)


def replay_line(record: dict[str, object], test: Evaluation) -> str:
    """Return what a run says about both parts of its test set."""
    count = cast(int, record["images"])
    new = Evaluation(test.logits[count:], test.labels[count:])
    before = "" if record["errors_before"] is None else f", {record['errors_before']} before"
    text = f"{record['name']}: {record['errors']} errors of {count:,} test images{before}"
    return f"{text}; new pictures: {new.correct} of {len(new.labels)} right" if len(new.labels) else text
