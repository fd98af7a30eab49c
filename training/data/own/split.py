"""Divide samples into training, validation and test set, so that a sample stays where it is when the set grows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from training.data.own.prepare import Prepared

# The shares of the test set and of the validation set.
TEST_SHARE = VALIDATION_SHARE = 0.15
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def parts_of(found: Sequence[Prepared], *, with_validation: bool) -> list[str]:
    """Return the part of each sample: ``train``, ``validation`` or ``test``.

    A part that the data set does not name is taken from the rest. The hash of a sample's group decides, or that of its
    content if it has no group, so other samples have no influence. If the data set names the part of some samples of a
    group, the others of this group are in the same part.

    Args:
        with_validation: whether there is a validation set; otherwise its samples are for training.
    """
    named = {each.sample.part for each in found}
    # The user should put a whole group into one part. If it is in several, train wins, then validation.
    groups = {
        each.sample.group: part
        for part in (TEST, VALIDATION, TRAIN)
        for each in found
        if each.sample.group and each.sample.part == part
    }
    parts = (each.sample.part or groups.get(each.sample.group, TRAIN) for each in found)
    return [_part_of(each, part, named, with_validation) for each, part in zip(found, parts, strict=True)]


def _part_of(found: Prepared, part: str, named: set[str], with_validation: bool) -> str:
    if part == TRAIN:
        place = _place(found)
        if place < TEST_SHARE and TEST not in named:
            part = TEST
        elif TEST_SHARE <= place < TEST_SHARE + VALIDATION_SHARE and VALIDATION not in named:
            part = VALIDATION
    return TRAIN if part == VALIDATION and not with_validation else part


def _place(found: Prepared) -> float:
    """Return where a sample stands between 0 and 1. Groups, and contents, are evenly spread."""
    text = f"group {found.sample.group}" if found.sample.group else found.digest
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
