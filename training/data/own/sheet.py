"""The contact sheet: each class of a data set as the network will see it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.data.own.check import Check
from training.data.own.prepare import Prepared

COLUMNS = 24
GAP, SCALE, FONT_SIZE, NAME_WIDTH = 4, 2, 18, 160
PAPER, TEXT = 255, 0


def to_png(result: Check) -> bytes:
    """Return a PNG with a row for each class: its name, its count, and up to COLUMNS of its images, evenly chosen."""
    by_class: dict[str, list[Prepared]] = {label: [] for label in result.labels}
    for each in result.kept:
        by_class[each.sample.label].append(each)
    side = 28 * SCALE
    columns = min(COLUMNS, max(1, *(len(found) for found in by_class.values())))
    size = NAME_WIDTH + columns * (side + GAP) + GAP, len(by_class) * (side + GAP) + GAP
    sheet = Image.new("L", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for row, (label, found) in enumerate(by_class.items()):
        top = GAP + row * (side + GAP)
        text = label if len(label) <= 12 else f"{label[:11]}…"
        draw.text((GAP, top + side // 2 - FONT_SIZE), f"{text}\n{len(found)}", TEXT, font)
        for column, each in enumerate(_spread(found, columns)):
            assert each.image is not None  # noqa: S101 (what is kept has an image)
            image = Image.fromarray(255 - each.image).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(image, (NAME_WIDTH + column * (side + GAP), top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _spread(found: Sequence[Prepared], count: int) -> list[Prepared]:
    """Return up to ``count`` of the samples, at even distances."""
    places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[place] for place in places]
