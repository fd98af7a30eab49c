"""What a run can learn from in addition to its training images: teachers, and drawn digits."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable
from pathlib import Path

import torch

from training.augment.fonts import FONT_SUFFIXES, find_fonts, render_characters
from training.augment.scripts import draw_scripts
from training.config import TrainConfig
from training.data.digits import Digits
from training.distill.ensemble import Ensemble
from training.loop.errors import TrainingError

# Number of digits that are drawn at the start of a run: in the fonts, and in the forms of school scripts. Of the latter
# there are no more than training images, so that a quick try stays quick.
FONT_DIGITS, SCRIPT_DIGITS = 5000, 5000
# With handwriting fonts, a step adds this many of their digits per image of the batch.
FONT_SHARE = 1 / 12


def load_teacher(config: TrainConfig, classes: int) -> Ensemble | None:
    """Return the ensemble of the networks in the run folders of ``--teacher``, or None without the flag.

    Raises:
        TrainingError: a folder holds no finished run, or one with another number of classes.
    """
    if not config.teacher:
        return None
    folders = [Path(folder) for folder in config.teacher.split(",")]
    for folder in folders:
        if not (folder / "model.pt").exists():
            raise TrainingError(f"--teacher {folder}: has no model.pt; name the run folders of finished runs.")
    teacher = Ensemble.load(folders)
    # A folder that was named twice is one teacher.
    for name, found in zip(teacher.digests, teacher.classes, strict=True):
        if found != classes:
            raise TrainingError(
                f"--teacher {name}: has {found} classes, but the data set has {classes}; name other teachers."
            )
    return teacher


def font_digests(config: TrainConfig) -> dict[Path, str]:
    """Return the SHA-256 of each font in the folder of ``--fonts``; empty without the flag.

    Raises:
        TrainingError: the folder holds no font with Latin letters and digits.
    """
    fonts = find_fonts(Path(config.fonts)) if config.fonts else []
    if config.fonts and not fonts:
        raise TrainingError(
            f"--fonts {config.fonts}: has no font with Latin letters and digits; "
            f"name a folder with {', '.join(FONT_SUFFIXES)} files."
        )
    return {font: hashlib.sha256(font.read_bytes()).hexdigest() for font in fonts}


def draw_digits(config: TrainConfig, fonts: Iterable[Path]) -> list[tuple[Digits, float]]:
    """Return drawn digits of each source, and how many of them a step adds per image of its batch."""
    fonts, drawn = list(fonts), []
    if fonts:
        images = render_characters(fonts, string.digits, FONT_DIGITS, config.seed_for("written"))
        drawn.append((Digits(images, torch.arange(FONT_DIGITS) % len(string.digits)), FONT_SHARE))
    if config.scripts:
        count = min(SCRIPT_DIGITS, config.subset or SCRIPT_DIGITS)
        drawn.append((Digits(*draw_scripts(count, config.seed_for("scripts"))), config.scripts))
    return drawn
