"""Compose real digits onto generated pages, as people photograph, scan and crop them, for benchmarks/robustness.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from skimage.morphology import skeletonize

from benchmarks.drawings import Array, Random, encode, large

PAPER, INK = 235.0, 40.0
Page = Callable[[Array, Random], bytes]


def _enlarged(digit: Array, side: int) -> Array:
    """Return the digit's ink, 0..1, with sides of ``side`` pixels."""
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)) / 255


def _paint(page: Array, ink: Array, top: int, left: int, grey: float = INK) -> None:
    """Draw the ink, 0..1, onto a page, in place."""
    part = page[top : top + ink.shape[0], left : left + ink.shape[1]]
    part += (grey - part) * ink


def _saved(page: Array, random: Random, noise: float = 2, **options: object) -> bytes:
    grain = random.normal(0, noise, page.shape) if noise else 0
    return encode(np.clip(page + grain, 0, 255).astype(np.uint8), "JPEG", quality=85, **options)


def form_box(digit: Array, random: Random) -> bytes:
    """Draw a box around the digit, with a line of 2 to 6 pixels, whose sides may lie close to the digit."""
    side = int(random.integers(180, 280))
    height, width = (side + random.integers(20, 120, 2)).tolist()
    page = np.full((height + 80, width + 120), PAPER)
    line, grey = int(random.integers(2, 7)), random.uniform(20, 120)
    top, left = random.integers(10, 60, 2).tolist()
    page[top : top + height, left : left + width] = grey
    page[top + line : top + height - line, left + line : left + width - line] = PAPER
    y, x = (int(random.integers(line, size - side - line + 1)) for size in (height, width))
    _paint(page, _enlarged(digit, side), top + y, left + x)
    return _saved(page, random)


def row_of_boxes(digit: Array, random: Random) -> bytes:
    """Draw the digit into one of three boxes in a row, as on a form; the others are empty."""
    cell, line = int(random.integers(90, 140)), int(random.integers(2, 5))
    page = np.full((cell + 60, 3 * cell + 60), PAPER)
    for y in (30, 30 + cell):
        page[y - line // 2 : y + line - line // 2, 30 : 30 + 3 * cell] = 90
    for x in range(30, 31 + 3 * cell, cell):
        page[30 : 30 + cell, x - line // 2 : x + line - line // 2] = 90
    side = int(cell * random.uniform(0.75, 0.9))
    room = (cell - side) // 2
    _paint(page, _enlarged(digit, side), 30 + room, 30 + room + cell * int(random.integers(3)))
    return _saved(page, random)


def plot(digit: Array, random: Random) -> bytes:
    """Imitate a saved figure of ``imshow``: the digit in a frame with ticks and numbers on white, in either colours."""
    side = int(random.integers(250, 400))
    shown = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.NEAREST))
    page = Image.new("L", (side + 90, side + 90), 255)
    page.paste(Image.fromarray(shown if random.random() < 0.5 else 255 - shown), (50, 30))
    canvas = ImageDraw.Draw(page)
    canvas.rectangle((49, 29, 50 + side, 30 + side), outline=0)
    for value in range(0, 28, 5):
        at = int((value + 0.5) * side / 28)
        canvas.line((50 + at, 30 + side, 50 + at, 35 + side), 0)
        canvas.line((45, 30 + at, 50, 30 + at), 0)
        canvas.text((50 + at, 38 + side), str(value), 0, anchor="mt")
        canvas.text((42, 30 + at), str(value), 0, anchor="rm")
    return encode(np.asarray(page))


def sheet_on_table(digit: Array, random: Random) -> bytes:
    """Photograph a sheet of paper, turned by up to 8 degrees, on a darker table."""
    sheet = np.full((300, 300), PAPER)
    side = int(random.integers(120, 200))
    _paint(sheet, _enlarged(digit, side), *random.integers(20, 280 - side, 2).tolist())
    angle = random.uniform(-8, 8)
    drawn, mask = (
        np.asarray(picture.rotate(angle, Image.Resampling.BICUBIC, expand=True), float)
        for picture in (Image.fromarray(sheet.astype(np.uint8)), Image.new("L", (300, 300), 255))
    )
    mask /= 255
    grain = random.normal(0, 12, (len(drawn) + 160, 1)) + random.normal(0, 4, (1, len(drawn) + 160))
    page = random.uniform(40, 140) + grain
    part = page[60 : 60 + len(drawn), 80 : 80 + len(drawn)]
    part[:] = part * (1 - mask) + drawn * mask
    return _saved(page, random)


def ruled(contrast: float, *, squared: bool) -> Page:
    """Return a function that draws the digit on ruled or squared paper. The lines have ``contrast`` of the ink's."""

    def draw(digit: Array, random: Random) -> bytes:
        page = np.full((320, 320), PAPER)
        step = int(random.integers(24, 70))
        grey = PAPER - contrast * (PAPER - INK)
        width = int(random.integers(1, 4))
        for start in range(int(random.integers(step)), 320, step):
            page[start : start + width] = grey
            if squared:
                page[:, start : start + width] = grey
        side = int(random.integers(150, 280))
        ink = _enlarged(digit, side)
        y, x = random.integers(10, 310 - side, 2).tolist()
        part = page[y : y + side, x : x + side]
        np.minimum(part, PAPER + (INK - PAPER) * ink, out=part)
        return _saved(page, random)

    return draw


def tight(digit: Array, random: Random) -> bytes:
    """Crop an enlarged digit to its ink, so that it touches all four sides, dark on white or white on black."""
    page = large(digit, 6)
    rows, columns = np.nonzero((page < 128).any(axis=1))[0], np.nonzero((page < 128).any(axis=0))[0]
    page = page[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return encode(page if random.random() < 0.5 else 255 - page)


def cut_close(digit: Array, random: Random) -> bytes:
    """Crop an enlarged digit so that one or two sides touch the ink."""
    page = large(digit, 6)
    rows, columns = np.nonzero((page < 128).any(axis=1))[0], np.nonzero((page < 128).any(axis=0))[0]
    top, bottom, left, right = (random.integers(0, 30, 4) * random.integers(0, 2, 4)).tolist()
    page = page[max(0, rows[0] - top) : rows[-1] + 1 + bottom, max(0, columns[0] - left) : columns[-1] + 1 + right]
    return encode(page if random.random() < 0.5 else 255 - page)


def hard_shadow(digit: Array, random: Random) -> bytes:
    """Let the sharp edge of a shadow fall across the digit; the paper in the shadow has 45 to 65 % of the light."""
    page = np.full((280, 280), PAPER)
    _paint(page, _enlarged(digit, 220), 30, 30)
    y, x = np.mgrid[-1:1:280j, -1:1:280j]
    turn = random.uniform(0, 2 * np.pi)
    page *= np.where(np.cos(turn) * x + np.sin(turn) * y > random.uniform(-0.5, 0.5), 1, random.uniform(0.45, 0.65))
    return _saved(page, random)


def phone_light(shape: tuple[int, ...], random: Random) -> Array:
    """Return how much light, 0..1, falls on each pixel of a page over which somebody holds a phone."""
    height, width = shape
    side = max(shape)
    mask = Image.new("L", (width, height))
    long, broad = random.uniform(0.25, 0.5) * side, random.uniform(0.15, 0.3) * side
    turn, middle = random.uniform(0, np.pi), random.uniform(0, 1, 2) * (width, height)
    along, across = np.array([np.cos(turn), np.sin(turn)]) * long, np.array([-np.sin(turn), np.cos(turn)]) * broad
    corners = [middle + a * along + b * across for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners], 255)
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(random.uniform(0.01, 0.05) * side)), float) / 255
    return 1 - random.uniform(0.3, 0.55) * soft


def phone_shadow(digit: Array, random: Random) -> bytes:
    """Photograph the digit in the soft shadow of the phone."""
    page = np.full((320, 320), PAPER)
    side = int(random.integers(140, 220))
    _paint(page, _enlarged(digit, side), *random.integers(20, 300 - side, 2).tolist())
    return _saved(page * phone_light(page.shape, random), random)


def underlined(digit: Array, random: Random) -> bytes:
    """Draw one or two lines below the digit, 1.5 to 2.5 times as wide as the digit."""
    page = np.full((340, 340), PAPER)
    ink = _enlarged(digit, 200)
    rows, columns = np.nonzero((ink > 0.3).any(axis=1))[0], np.nonzero((ink > 0.3).any(axis=0))[0]
    _paint(page, ink, 30, 70)
    canvas = Image.fromarray(page.astype(np.uint8))
    reach = (columns[-1] - columns[0] + 20) * random.uniform(0.75, 1.25)
    middle, y = 70 + (columns[0] + columns[-1]) / 2, 30 + rows[-1] + random.uniform(18, 40)
    slope, line = random.uniform(-8, 8), int(random.integers(5, 14))
    for step in range(int(random.integers(1, 3))):
        at = y + step * (line + 12)
        ImageDraw.Draw(canvas).line((middle - reach, at - slope, middle + reach, at + slope), int(INK), line)
    return _saved(np.asarray(canvas, float), random)


def thin_pen(digit: Array, random: Random) -> bytes:
    """Draw the middle line of the digit, 2 pixels wide and grey, on a photo of 900x700 pixels, lit from one side."""
    line = skeletonize(np.kron(digit, np.ones((16, 16))) > 100)
    thick = Image.fromarray((line * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    ink = np.asarray(thick.filter(ImageFilter.GaussianBlur(0.7)), float) / 255
    page = np.full((700, 900), PAPER)
    top, left = (int(random.integers(0, size - len(ink))) for size in page.shape)
    _paint(page, ink, top, left, random.uniform(60, 110))
    page *= np.linspace(random.uniform(0.7, 1), 1, 900)
    return _saved(page, random)


def dark_desk(digit: Array, random: Random) -> bytes:
    """Photograph a sheet whose edge shows the dark desk at one or two sides of the picture."""
    page = np.full((320, 320), PAPER)
    side = int(random.integers(140, 200))
    top, left = (int(random.integers(50, 270 - side)) for _ in range(2))
    _paint(page, _enlarged(digit, side), top, left)
    depth = int(random.integers(20, 45))
    slope = (np.arange(320) * random.uniform(-0.06, 0.06)).astype(int)
    desk = np.arange(320)[:, None] < depth + slope[None, :]
    for turn in random.permutation(4)[: int(random.integers(1, 3))]:
        page[np.rot90(desk, int(turn))] = random.uniform(25, 80)
    return _saved(page, random)


def steep_light(digit: Array, random: Random) -> bytes:
    """Light the page so unevenly that its dark side is darker than the ink on its bright side."""
    page = np.full((280, 280), PAPER)
    _paint(page, _enlarged(digit, 220), 30, 30, 90)
    y, x = np.mgrid[-1:1:280j, -1:1:280j]
    turn = random.uniform(0, 2 * np.pi)
    page *= 0.62 + 0.3 * (np.cos(turn) * x + np.sin(turn) * y)
    return _saved(page, random)


def flash(digit: Array, random: Random) -> bytes:
    """Photograph the digit with a flash or in the light of a lamp: a bright spot on a page that is darker around it."""
    page = np.full((320, 320), PAPER)
    side = int(random.integers(140, 220))
    _paint(page, _enlarged(digit, side), *random.integers(20, 300 - side, 2).tolist())
    y, x = np.mgrid[-1:1:320j, -1:1:320j]
    middle_y, middle_x = random.uniform(-0.4, 0.4, 2)
    spot = np.exp(-((y - middle_y) ** 2 + (x - middle_x) ** 2) / random.uniform(0.2, 0.6))
    around = random.uniform(0.3, 0.6)
    return _saved(page * (around + (1 - around) * spot), random)


def bitmap(side: int) -> Page:
    """Return a function that draws the digit in black and white, without grey, on ``side`` x ``side`` pixels."""

    def draw(digit: Array, random: Random) -> bytes:
        box = int(random.integers(round(side * 0.65), side))
        drawn = np.asarray(Image.fromarray(digit[3:25, 3:25]).resize((box, box), Image.Resampling.BOX)) > 90
        page = np.zeros((side, side), np.uint8)
        y, x = random.integers(0, side - box + 1, 2)
        page[y : y + box, x : x + box] = drawn * 255
        return encode(page if random.random() < 0.5 else 255 - page)

    return draw


def phone_48(digit: Array, random: Random) -> bytes:
    """Photograph the digit with 48 megapixels."""
    page = Image.new("L", (8064, 6048), 215)
    side = int(random.integers(800, 3000))
    drawn = Image.fromarray(((_enlarged(digit, side).clip(0, 1)) * -160 + 215).astype(np.uint8))
    page.paste(drawn, (int(random.integers(8064 - side)), int(random.integers(6048 - side))))
    return encode(np.asarray(page), "JPEG", quality=80)


PHONE_48 = "photo of 48 megapixels"
PAGES: dict[str, Page] = {
    "box of a form": form_box,
    "one of three boxes": row_of_boxes,
    "figure of a plot": plot,
    "sheet on a table": sheet_on_table,
    **{f"ruled paper, lines of {c:.0%}": ruled(c, squared=False) for c in (0.25, 0.4, 0.6)},
    **{f"squared paper, lines of {c:.0%}": ruled(c, squared=True) for c in (0.25, 0.4, 0.6)},
    "cropped to the ink": tight,
    "cropped close on some sides": cut_close,
    "hard shadow": hard_shadow,
    "shadow of the phone": phone_shadow,
    "underlined": underlined,
    "thin pen on a large photo": thin_pen,
    "desk at the edge": dark_desk,
    "steep light": steep_light,
    "16x16, black and white": bitmap(16),
    "32x32, black and white": bitmap(32),
    PHONE_48: phone_48,
    "flash": flash,
}
GOALS = {
    **dict.fromkeys(PAGES, 0.95),
    **dict.fromkeys(("box of a form", "one of three boxes", "figure of a plot", "sheet on a table"), 0.97),
    **dict.fromkeys(("ruled paper, lines of 25%", "squared paper, lines of 25%"), 0.97),
    **dict.fromkeys(("ruled paper, lines of 60%", "squared paper, lines of 60%"), 0.9),
    **dict.fromkeys(("cropped to the ink", "cropped close on some sides"), 0.98),
    **dict.fromkeys(("16x16, black and white", "32x32, black and white"), 0.98),
}
"""The least share of each kind that should be read correctly."""
