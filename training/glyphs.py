"""The font of plots and contact sheets, and names of classes in the characters that it has."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageFont

# matplotlib draws plots with this font unless the user has chosen another one.
USUAL = "DejaVuSans"


@cache
def print_fonts() -> Path:
    """Return the folder of the fonts in matplotlib's package."""
    import matplotlib  # takes 0.2 s, and most runs find their outliers in the cache

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def print_font(size: int, name: str = USUAL) -> ImageFont.FreeTypeFont:
    """Return a font of matplotlib's package. It has the letters of Europe and of the Middle East, but no Kanji."""
    return ImageFont.truetype(str(print_fonts() / f"{name}.ttf"), size)


def in_glyphs(name: str) -> str:
    """Return a name with ``U+65E5`` and the like for characters that the font lacks.

    The font draws the same box for all of them, so that names could not be told apart.
    """
    return "".join(letter if _has(letter) else f"U+{ord(letter):04X}" for letter in name)


@cache
def _has(letter: str) -> bool:
    font = print_font(20)
    return letter.isascii() or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
