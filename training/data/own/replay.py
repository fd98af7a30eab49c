"""Join new pictures with the replay data set, which must not be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from training.data.digits import Digits, Replay, Splits
from training.data.errors import DataError
from training.data.own.files import DATA_FILE, REPLAY_FILE


def with_replay(new: Splits, old: Splits) -> Splits:
    """Return a data set whose training images are those of ``old``, with those of ``new`` to add in each step.

    Its classes are those of ``old`` and then the others. Validation set and test set have the images of both, first
    those of ``old``. If ``new`` has no class of its own, it is the data set ``old`` with corrections, and has its name.

    The same image is in one part only, and has one class only: the run does not learn what ``old`` tests with, and
    does not test with what ``old`` trains with. If both give an image different classes, that of ``new`` counts.

    Raises:
        DataError: no image is left to learn from, or none of a class that only ``new`` has.
    """
    labels = (*old.labels, *(label for label in new.labels if label not in old.labels))
    places = torch.tensor([labels.index(label) for label in new.labels])
    parts = [Digits(part.images, places[part.labels]) for part in (new.train, new.validation, new.test)]

    corrected = {look: label for part in parts for look, label in _pairs(part)}
    learnt = _kept(old.train, lambda look, label: corrected.get(look, label) == label)
    known = {look for look, _ in _pairs(learnt)}
    held_out = {look for part in (old.validation, old.test) for look, _ in _pairs(part)}
    added = _kept(parts[0], lambda look, _: look not in held_out)
    validation, test = (_kept(part, lambda look, _: look not in known) for part in parts[1:])
    missing = {*range(len(old.labels), len(labels))} - {*added.labels.tolist()}
    if missing or not (len(added) and len(learnt)):
        what = f" in {labels[min(missing)]}" if missing else ""
        raise DataError(
            f"{new.name}: no picture is left to learn from{what}, because {old.name} has the same ones; add others"
        )
    tested, still_tested = (sum(map(len, each)) for each in (parts[1:], (validation, test)))
    left_out = (
        (len(parts[0]), len(added), f"new training pictures: {old.name} has them in its validation or test set"),
        (tested, still_tested, f"new pictures for validation and test: {old.name} has them in its training set"),
        (len(old.train), len(learnt), f"training images of {old.name}: as new pictures, they have another class"),
    )

    prefix = "replayed " if old.is_own else ""
    return Splits(
        name=old.name if labels == old.labels else new.name,
        labels=labels,
        digests={prefix + name: digest for name, digest in old.digests.items()} | new.digests,
        train=learnt,
        validation=_joined(old.validation, validation),
        test=_joined(old.test, test),
        prepare=new.prepare,
        several="allowed" if "allowed" in (old.several, new.several) else "rejected",
        is_own=True,
        replay=Replay(
            name=old.name,
            labels=old.labels,
            test_images=len(old.test),
            validation_images=len(old.validation),
            added=added,
            is_own=old.is_own,
            left_out=tuple(f"left out {all_ - kept} of {all_} {what}" for all_, kept, what in left_out if kept < all_),
        ),
        files=new.files | ({REPLAY_FILE: old.files[DATA_FILE]} if DATA_FILE in old.files else {}),
    )


def _pairs(digits: Digits) -> Iterator[tuple[bytes, int]]:
    """Yield the pixels and the label of each image."""
    return zip((image.tobytes() for image in digits.images.numpy()), digits.labels.tolist(), strict=True)


def _kept(digits: Digits, keeps: Callable[[bytes, int], bool]) -> Digits:
    """Return the images that ``keeps`` is true for, of their pixels and their label."""
    chosen = [i for i, (look, label) in enumerate(_pairs(digits)) if keeps(look, label)]
    return digits.take(torch.tensor(chosen, dtype=torch.int64)) if len(chosen) < len(digits) else digits


def _joined(first: Digits, second: Digits) -> Digits:
    return Digits(torch.cat([first.images, second.images]), torch.cat([first.labels, second.labels]))
