"""The files of a run folder with the user's pictures: their names, and whether a run has written one."""

from __future__ import annotations

import zipfile
from pathlib import Path

DATA_FILE = "data.npz"
# The images of the replay data set, if they are the user's own.
REPLAY_FILE = "replay.npz"
# The contact sheet.
SHEET = "classes.png"

# What DATA_FILE and REPLAY_FILE hold beside the images and their labels.
FACTS = ("name", "labels", "prepare", "several")


def is_saved(path: Path) -> bool:
    """Return whether a run has written this file, and not the user, whose file may have the same name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{fact}.npy" for fact in FACTS} <= set(archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
