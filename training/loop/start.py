"""Start a run from the weights of another model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.checkpoint import CheckpointError
from training.config import TrainConfig
from training.loop.errors import TrainingError
from training.loop.narrow import can_narrow, narrow_weights
from training.networks import Network
from training.origin import WAY_OUT, labels_of
from training.reasons import first_line, first_names
from training.trained import Trained, read


def start_from(
    config: TrainConfig, network: Network, labels: Sequence[str], images: Tensor | None = None
) -> dict[str, str]:
    """Copy the weights that ``--from`` names into ``network``, and return the SHA-256 of their file by its folder.

    The weights of a class go to the class of the same name. Other classes keep their random weights. A wider network is
    made narrower first, if :func:`can_narrow` is true.

    Args:
        images: training images, uint8 ``[N, 28, 28]``. A narrowed network computes nearly the same on these.

    Raises:
        TrainingError: there are no such weights, or they are of another network.
    """
    if not config.start:
        return {}
    start = read_start(config)
    if start.model == config.model:
        weights = start.network.state_dict()
    elif images is not None and can_narrow(start.network, network):
        weights = narrow_weights(start.network, network, images)
    else:
        raise TrainingError(
            f"--from {config.start}: is a {start.model}, not a {config.model}; leave --model out, or name {start.model}"
        )
    head_weight, head_bias = weights.pop("head.weight"), weights.pop("head.bias")
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for i, label in enumerate(labels):
            if label in start.labels:
                network.head.weight[i] = head_weight[start.labels.index(label)]
                network.head.bias[i] = head_bias[start.labels.index(label)]
    return {config.start: start.digest}


def forgotten(config: TrainConfig, labels: Sequence[str]) -> str:
    """Return a line on the classes of the model of ``--from`` that the run forgets; empty if that is no loss.

    It is none if the run keeps all of them, or if it has other symbols only and so needs none of them.
    """
    known = labels_of(config.start) if config.start and not config.replay else ()
    gone = [label for label in known if label not in labels]
    if not gone or len(gone) == len(known):
        return ""
    what = "1 class" if len(gone) == 1 else f"{len(gone)} classes"
    return f"forgets {what} of {config.start}: {first_names(gone)}; --replay with its pictures keeps them"


def read_start(config: TrainConfig) -> Trained:
    """Return the network that ``--from`` names.

    Raises:
        TrainingError: there is none, or it is damaged.
    """
    try:
        return read(config.start)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, CheckpointError) as error:
        raise TrainingError(f"--from {config.start}: {first_line(error)}; {WAY_OUT}") from error
