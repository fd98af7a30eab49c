"""Join new pictures with the replay data set, which must not be forgotten."""

from __future__ import annotations

import torch

from training.data.digits import Digits, Replay, Splits
from training.data.own.saved import FILE

# The file of a run folder with the images of the replay data set, if they are the user's own.
REPLAY_FILE = "replay.npz"


def with_replay(new: Splits, old: Splits) -> Splits:
    """Return a data set whose training images are those of ``old``, with those of ``new`` to add in each step.

    Its classes are those of ``old`` and then the others. Validation set and test set have the images of both, first
    those of ``old``. If ``new`` has no class of its own, it is the data set ``old`` with corrections, and has its name.
    """
    labels = (*old.labels, *(label for label in new.labels if label not in old.labels))
    places = torch.tensor([labels.index(label) for label in new.labels])

    def renumbered(digits: Digits) -> Digits:
        return Digits(digits.images, places[digits.labels])

    prefix = "replayed " if old.is_own else ""
    return Splits(
        name=old.name if labels == old.labels else new.name,
        labels=labels,
        digests={prefix + name: digest for name, digest in old.digests.items()} | new.digests,
        train=old.train,
        validation=_joined(old.validation, renumbered(new.validation)),
        test=_joined(old.test, renumbered(new.test)),
        prepare=new.prepare,
        several="allowed" if "allowed" in (old.several, new.several) else "rejected",
        is_own=True,
        replay=Replay(old.name, old.labels, len(old.test), len(old.validation), renumbered(new.train), old.is_own),
        files=new.files | ({REPLAY_FILE: old.files[FILE]} if FILE in old.files else {}),
    )


def _joined(first: Digits, second: Digits) -> Digits:
    return Digits(torch.cat([first.images, second.images]), torch.cat([first.labels, second.labels]))
