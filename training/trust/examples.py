"""The images that the calibration is fitted on: digits, distorted digits, and images that are not digits."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.augment.affine import augment
from training.augment.fonts import render_characters
from training.augment.outliers import FONT_SIGNS, outliers
from training.augment.style import restyle
from training.data.classes import are_digits, digits_of
from training.data.digits import NO_CLASS, Digits
from training.reports import Report, no_report

# Number of images of each kind.
CLEAN_DIGITS, DISTORTED_DIGITS, OUTLIERS = 16_000, 8_000, 20_000
# With handwriting fonts there are twice as many clean digits and more outliers. This many letters and signs and this
# many digits of the fonts are added. The digits count as digits, so that the score cannot tell letters by the font.
OUTLIERS_BESIDE_FONTS, FONT_LETTERS, FONT_DIGITS = 32_000, 40_000, 10_000
# Share of the distorted digits, the font digits and the outliers that get style augmentation. A digit in another
# style is still a digit, and a letter is still a letter. With fonts the outliers have the second share.
STYLE_SHARE, STYLE_SHARE_OF_LETTERS = 0.25, 0.1
# Share of the validation digits with style augmentation, on which the acceptance thresholds are fitted. They are
# about as hard to read as digits of other collections: 1.3 % were wrong with an earlier packaged model.
STYLE_SHARE_OF_VALIDATION = 0.5
# Share of the outliers and the font digits that is bent, and by how many pixels. Bent print is more like handwriting.
BENT_SHARE, BENDING = 0.7, 1.0
# All images of a batch that get few pixels get the same number of them, so style augmentation takes small batches.
STYLE_BATCH = 256
# Generated images must not outnumber the digits of a small training set. So each kind of them has at most as many
# images as the training set, or at most this many if the training set is smaller.
LEAST_MADE_UP = 64
# How long the style augmentation of an image takes, compared with the drawing of one.
RESTYLING = 0.25


def digits_and_outliers(
    train: Digits,
    fonts: Sequence[Path],
    seed: int,
    generator: torch.Generator,
    report: Report = no_report,
    classes: Sequence[str] = string.digits,
) -> tuple[Tensor, Tensor]:
    """Return images of digits and images that are not digits, both uint8 ``[N, 28, 28]`` on the CPU.

    Args:
        report: called now and then with the share of the work that is done, 0..1.
        classes: the names of the classes. Unless all are digits, letters and signs are not taken for outliers.
    """
    train = train.to(torch.device("cpu"))
    clean = 2 * CLEAN_DIGITS if fonts else CLEAN_DIGITS
    chosen = train.take(torch.randperm(len(train), generator=generator)[: clean + DISTORTED_DIGITS])
    # A small training set is divided in the same proportion.
    count = round(len(chosen) * DISTORTED_DIGITS / (clean + DISTORTED_DIGITS))
    most = max(LEAST_MADE_UP, len(train))
    drawn_others = min(OUTLIERS_BESIDE_FONTS if fonts else OUTLIERS, most)
    font_digits, font_letters = (min(FONT_DIGITS, most), min(FONT_LETTERS, most)) if fonts else (0, 0)
    drawn_images = drawn_others + font_digits + font_letters
    work = _Work(report, drawn_images + RESTYLING * (count + drawn_images))

    labels, restyling = digits_of(classes, chosen.labels[:count]), work.part(RESTYLING * count)
    distorted = _restyled(distort(chosen.images[:count], generator), labels, STYLE_SHARE, generator, restyling)
    digits = torch.cat([distorted, chosen.images[count:]])

    others = outliers(train.images, drawn_others, seed, work.part(drawn_others), with_symbols=are_digits(classes))
    if fonts:
        drawn = render_characters(fonts, string.digits, font_digits, seed, work.part(font_digits))
        restyling = work.part(RESTYLING * font_digits)
        drawn = _restyled(_bent(drawn, generator), _no_labels(drawn), STYLE_SHARE, generator, restyling)
        digits = torch.cat([digits, drawn])
        characters = string.ascii_letters + FONT_SIGNS
        letters = render_characters(fonts, characters, font_letters, seed, work.part(font_letters))
        others = torch.cat([others, letters])
        others = others[torch.randperm(len(others), generator=generator)]
    others = _bent(others, generator)
    share = STYLE_SHARE_OF_LETTERS if fonts else STYLE_SHARE
    return digits, _restyled(others, _no_labels(others), share, generator, work.part(RESTYLING * len(others)))


class _Work:
    """Divides a report into parts, of which each takes its own share, 0..1."""

    def __init__(self, report: Report, total: float) -> None:
        self._report, self._total, self._done = report, total, 0.0

    def part(self, size: float) -> Report:
        """Return the report of the next part of the work."""
        start, self._done = self._done, self._done + size
        return lambda share: self._report(min(1.0, (start + share * size) / self._total))


def distort(images: Tensor, generator: torch.Generator, elastic: float = 0.0) -> Tensor:
    """Return the images augmented with the usual strength, uint8 ``[N, 28, 28]`` on the CPU."""
    if not len(images):
        return images.cpu()
    return augment(images.cpu(), generator, elastic=elastic).clamp(0, 255).round().to(torch.uint8)


def styled(digits: Digits, generator: torch.Generator, classes: Sequence[str]) -> Tensor:
    """Return the images augmented, half of them also in other styles, uint8 ``[N, 28, 28]`` on the CPU.

    Args:
        classes: the names of the classes.
    """
    labels = digits_of(classes, digits.labels.cpu())
    return _restyled(distort(digits.images, generator), labels, STYLE_SHARE_OF_VALIDATION, generator)


def _bent(images: Tensor, generator: torch.Generator) -> Tensor:
    count = round(BENT_SHARE * len(images))
    return torch.cat([distort(images[:count], generator, elastic=BENDING), images[count:]])


def _no_labels(images: Tensor) -> Tensor:
    return torch.full((len(images),), NO_CLASS)


def _restyled(
    images: Tensor,
    labels: Tensor,
    share: float,
    generator: torch.Generator,
    report: Report = no_report,
) -> Tensor:
    parts = []
    for i in range(0, len(images), STYLE_BATCH):
        report(i / len(images))
        batch = slice(i, i + STYLE_BATCH)
        parts.append(restyle(images[batch], labels[batch], share, generator).round().to(torch.uint8))
    return torch.cat(parts) if parts else images
