"""Contact sheets: each class of a data set as the network will see it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.data.own.check import Check
from training.glyphs import in_glyphs, print_font

COLUMNS = 24
GAP, SCALE, FONT_SIZE, NAME_WIDTH = 4, 2, 17, 160
CAPTION_SIZE, CAPTION_HEIGHT = 11, 15
PAPER, TEXT = 255, 0

T = TypeVar("T")


class Shown(NamedTuple):
    """An image on a sheet."""

    image: npt.NDArray[np.uint8]
    """``[28, 28]``, bright ink on black."""
    caption: str = ""


class Row(NamedTuple):
    """A class on a sheet."""

    name: str
    total: int
    shown: Sequence[Shown]


def to_png(result: Check) -> bytes:
    """Return a PNG with a row for each class: its name, its count, and up to COLUMNS of its images, evenly chosen."""
    by_class: dict[str, list[Shown]] = {label: [] for label in result.labels}
    for each in result.kept:
        assert each.image is not None  # noqa: S101 (what is kept has an image)
        by_class[each.sample.label].append(Shown(each.image))
    return contact_sheet([Row(label, len(found), spread(found, COLUMNS)) for label, found in by_class.items()])


def contact_sheet(rows: Sequence[Row]) -> bytes:
    """Return a PNG with the rows. A row with more than COLUMNS images takes several lines."""
    names = [_fitting(row.name, FONT_SIZE, NAME_WIDTH - 2 * GAP) for row in rows]
    lines = [
        (f"{name}\n{row.total}" if not start else "", row.shown[start : start + COLUMNS])
        for name, row in zip(names, rows, strict=True)
        for start in range(0, max(1, len(row.shown)), COLUMNS)
    ]
    side = 28 * SCALE
    height = side + GAP + (CAPTION_HEIGHT if any(shown.caption for row in rows for shown in row.shown) else 0)
    columns = max(1, *(len(shown) for _, shown in lines))
    sheet = Image.new("L", (NAME_WIDTH + columns * (side + GAP) + GAP, len(lines) * height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = print_font(FONT_SIZE), print_font(CAPTION_SIZE)
    for number, (name, line) in enumerate(lines):
        top = GAP + number * height
        draw.text((GAP, top + side // 2 - FONT_SIZE), name, TEXT, font)
        for column, shown in enumerate(line):
            left = NAME_WIDTH + column * (side + GAP)
            image = Image.fromarray(255 - shown.image).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top))
            draw.text((left, top + side), _fitting(shown.caption, CAPTION_SIZE, side), TEXT, small)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def spread(found: Sequence[T], count: int) -> list[T]:
    """Return up to ``count`` of the items, at even distances."""
    places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[place] for place in places]


def _fitting(text: str, size: int, width: int) -> str:
    """Return as much of the text as fits into ``width`` pixels in the font of this size."""
    text = shown = in_glyphs(text)
    while shown and print_font(size).getlength(shown) > width:
        text = text[:-1]
        shown = f"{text}…"
    return shown
