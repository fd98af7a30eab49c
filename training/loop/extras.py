"""What a run can learn from in addition to its training images: teachers, drawn digits and outliers."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.augment.fonts import FONT_SUFFIXES, find_fonts, render_characters
from training.augment.outliers import FONT_SIGNS, UNLIKE_DIGITS, outliers
from training.augment.scripts import draw_scripts
from training.config import TrainConfig
from training.data.classes import are_digits
from training.data.digits import NO_CLASS, Digits, Splits
from training.distill.ensemble import Ensemble
from training.loop.errors import TrainingError
from training.origin import RECORD, WAY_OUT, exists, is_published, labels_of
from training.reasons import first_line, first_names

# Number of digits that are drawn at the start of a run: in the fonts, and in the forms of school scripts. Of the latter
# there are no more than training images, so that a quick try stays quick.
FONT_DIGITS, SCRIPT_DIGITS = 5000, 5000
# Number of outliers that are drawn at the start of a run, and of letters and signs in the fonts. There are no more than
# training images either.
OUTLIERS, FONT_LETTERS = 10_000, 10_000
# With handwriting fonts, a step adds this many of their digits per image of the batch.
FONT_SHARE = 1 / 12


def load_teacher(config: TrainConfig, labels: Sequence[str]) -> Ensemble | None:
    """Return the ensemble of the networks that ``--teacher`` names, or None without the flag.

    Args:
        labels: the classes of the data set. The teachers may have them in another order.

    Raises:
        TrainingError: a place holds no trained network, or one with other classes.
    """
    if not config.teacher:
        return None
    places = config.teacher.split(",")
    for place in places:
        missing = [name for name in ("model.pt", RECORD) if not exists(Path(place) / name)]
        if missing and not is_published(place):
            raise TrainingError(f"--teacher {place}: has no {missing[0]}; {WAY_OUT}")
    if config.teacher_cache and is_published(places[0]):
        raise TrainingError(
            f"--teacher-cache: is stored in the folder of the first teacher, and {places[0]} is a published version; "
            "name a run folder first"
        )
    try:
        for place in places:
            _check_classes(place, labels_of(place), labels)
        return Ensemble.load(places, labels)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # It is damaged, or lacks a file.
        raise TrainingError(f"--teacher {config.teacher}: {first_line(error)}; {WAY_OUT}") from error


def _check_classes(place: str, known: Sequence[str], labels: Sequence[str]) -> None:
    if sorted(known) == sorted(labels):
        return
    other = [label for label in known if label not in labels]
    lacking = [label for label in labels if label not in known]
    found = [f"has {_names(other)}"] * bool(other) + [f"lacks {_names(lacking)}"] * bool(lacking)
    raise TrainingError(
        f"--teacher {place}: {' and '.join(found)}, but must have the classes of the data set; name other teachers"
    )


def _names(labels: Sequence[str]) -> str:
    return f"the class{'es' * (len(labels) > 1)} {first_names(labels)}"


def font_digests(config: TrainConfig) -> dict[Path, str]:
    """Return the SHA-256 of each font in the folder of ``--fonts``; empty without the flag.

    Raises:
        TrainingError: there is no such folder, or it holds no font with Latin letters and digits.
    """
    fonts = find_fonts(Path(config.fonts)) if config.fonts else []
    if config.fonts and not fonts:
        problem = "has no font with Latin letters and digits" if Path(config.fonts).is_dir() else "is no folder"
        raise TrainingError(f"--fonts {config.fonts}: {problem}; name a folder with {', '.join(FONT_SUFFIXES)} files")
    return {font: hashlib.sha256(font.read_bytes()).hexdigest() for font in fonts}


def draw_extras(config: TrainConfig, fonts: Iterable[Path], splits: Splits | None) -> list[tuple[Digits, float]]:
    """Return drawn images of each source, and how many of them a step adds per image of its batch.

    Args:
        splits: the data set. Without it there are no outliers, some of which are made from its training images.
    """
    fonts, drawn = list(fonts), []
    if fonts:
        images = render_characters(fonts, string.digits, FONT_DIGITS, config.seed_for("written"))
        drawn.append((Digits(images, torch.arange(FONT_DIGITS) % len(string.digits)), FONT_SHARE))
    if config.scripts:
        count = min(SCRIPT_DIGITS, config.subset or SCRIPT_DIGITS)
        drawn.append((Digits(*draw_scripts(count, config.seed_for("scripts"))), config.scripts))
    if config.outliers and splits:
        others = _draw_outliers(config, fonts, splits)
        drawn.append((Digits(others, torch.full((len(others),), NO_CLASS)), config.outliers))
    return drawn


def _draw_outliers(config: TrainConfig, fonts: Sequence[Path], splits: Splits) -> Tensor:
    digits, has_symbols = splits.train.images, are_digits(splits.labels)
    others = outliers(digits, min(OUTLIERS, len(digits)), config.seed_for("outliers"), with_symbols=has_symbols)
    if not (fonts and has_symbols):
        return others
    # Only letters that no digit looks like. With the letter O, the network would become unsure about a 0. The novelty
    # score is trained with all letters.
    count = min(FONT_LETTERS, len(digits))
    letters = render_characters(fonts, UNLIKE_DIGITS + FONT_SIGNS, count, config.seed_for("letters"))
    return torch.cat([others, letters])
