"""Which setting or flag somebody means who uses another name for it, for example that of another program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Settings by the names that other programs give them.
SETTINGS = {
    "lr": "learning_rate",
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("arch", "architecture", "net", "network"), "model"),
    **dict.fromkeys(("opt", "momentum"), "optimizer"),
    **dict.fromkeys(("lr_schedule", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("from", "init", "pretrained", "weights"), "start"),
    **dict.fromkeys(("amp", "bf16", "dtype", "fp16"), "precision"),
    "smoothing": "label_smoothing",
    "temperature": "distillation_temperature",
    "data_folder": "dataset",
}
# The same for flags that are no settings of a run, or that need a value.
FLAGS = {
    **dict.fromkeys(("cuda", "gpu"), "--device"),
    **dict.fromkeys(("out", "output_dir", "save_dir"), "--output"),
    "momentum": "--optimizer momentum",
}


def plain(word: str) -> str:
    """Return a flag or a name in the form of the keys of SETTINGS and FLAGS."""
    return word.lower().strip("-").replace("-", "_")


def setting_meant(word: str, known: Iterable[str]) -> str:
    """Return the setting that a word may be meant for: by its other names, or the most similar one; empty if none is.

    Args:
        known: the names of all settings.
    """
    name = plain(word)
    return SETTINGS.get(name) or next(iter(difflib.get_close_matches(name, list(known), n=1)), "")
