"""Compose real digits into scenes: sticky notes, blackboards, notebooks, screenshots, for benchmarks/robustness.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from skimage.morphology import skeletonize

from benchmarks.drawings import Array, Random, encode

Scene = Callable[[Array, Random], bytes]
Colour = tuple[float, float, float]
WHITE_PAPER: Colour = (240, 238, 232)
BALLPOINT: Colour = (40, 60, 150)


def _ink(digit: Array, side: int) -> Array:
    """Return the digit's ink, 0..1, with sides of ``side`` pixels."""
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)) / 255


def _sheet(height: int, width: int, colour: Colour = WHITE_PAPER) -> Array:
    return np.broadcast_to(np.array(colour, float), (height, width, 3)).copy()


def _paint(page: Array, ink: Array, random: Random, colour: Colour, *, room: int = 10) -> None:
    """Draw the ink in a colour at a random place, at least ``room`` pixels from the border."""
    height, width = page.shape[:2]
    y, x = (
        int(random.integers(room, size - side - room + 1))
        for size, side in zip((height, width), ink.shape, strict=True)
    )
    part = page[y : y + ink.shape[0], x : x + ink.shape[1]]
    part += (np.array(colour) - part) * ink[..., None]


def _photo(page: Array, random: Random, quality: int = 80, noise: float = 3) -> bytes:
    grain = random.normal(0, noise, page.shape[:2])[..., None]
    return encode(np.clip(page + grain, 0, 255).astype(np.uint8), "JPEG", quality=quality)


def sticky_note(digit: Array, random: Random) -> bytes:
    """Photograph a yellow note, a little turned, on a grey desk."""
    note = _sheet(240, 240, (245, 225, 110))
    _paint(note, _ink(digit, int(random.integers(130, 200))), random, BALLPOINT)
    turned = (
        Image.fromarray(note.astype(np.uint8))
        .convert("RGBA")
        .rotate(random.uniform(-10, 10), Image.Resampling.BICUBIC, expand=True)
    )
    page = Image.new("RGB", (420, 360), tuple(random.integers(60, 150, 3).tolist()))
    at = int(random.integers(10, 400 - turned.width)), int(random.integers(5, 355 - turned.height))
    shadow = Image.new("L", turned.size, 0)
    shadow.paste(90, mask=turned.getchannel("A"))
    page.paste((20, 20, 20), (at[0] + 4, at[1] + 5), shadow.filter(ImageFilter.GaussianBlur(4)))
    page.paste(turned, at, turned)
    return _photo(np.asarray(page, float), random)


def blackboard(digit: Array, random: Random) -> bytes:
    """Write with chalk on a green board with smears of wiped chalk."""
    board = _sheet(320, 400, (45, 75, 60))
    smear = Image.fromarray(random.integers(0, 256, (10, 14)).astype(np.uint8)).resize(
        (400, 320), Image.Resampling.BICUBIC
    )
    board += 0.12 * (np.asarray(smear, float)[..., None] - 100).clip(0)
    ink = _ink(digit, int(random.integers(160, 280)))
    ink = ink * (random.random(ink.shape) < 0.8)
    chalk = (
        np.asarray(
            Image.fromarray((255 * ink).clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1)), float
        )
        / 255
    )
    _paint(board, chalk, random, (235, 235, 225))
    return _photo(board, random)


def notebook(digit: Array, random: Random) -> bytes:
    """Write on a ruled page with a red margin and punched holes at the left."""
    page = _sheet(360, 400)
    step = int(random.integers(28, 50))
    for y in range(int(random.integers(step)), 360, step):
        page[y : y + 2] = (150, 175, 215)
    page[:, 70:73] = (220, 90, 90)
    canvas = Image.fromarray(page.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for y in (60, 180, 300):
        draw.ellipse((18, y - 12, 42, y + 12), (50, 45, 40))
    page = np.asarray(canvas, float).copy()
    _paint(page[:, 85:], _ink(digit, int(random.integers(140, 260))), random, BALLPOINT)
    return _photo(page, random)


def spiral(digit: Array, random: Random) -> bytes:
    """Write on a pad whose upper edge has a spiral binding of dark wire."""
    canvas = Image.fromarray(_sheet(360, 320).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for x in range(10, 320, 22):
        draw.ellipse((x, 22, x + 9, 31), (60, 60, 60))
        draw.line((x + 4, 0, x + 5, 26), (90, 90, 95), 3)
    page = np.asarray(canvas, float).copy()
    _paint(page[45:], _ink(digit, int(random.integers(150, 260))), random, (35, 35, 40))
    return _photo(page, random)


def screenshot(digit: Array, random: Random) -> bytes:
    """Save the screen with the window of a paint program: title, buttons, frame, and a desktop around it."""
    page = Image.new("RGB", (480, 400), tuple(random.integers(30, 200, 3).tolist()))
    draw = ImageDraw.Draw(page)
    draw.rectangle((40, 30, 440, 370), (240, 240, 240), (120, 120, 120))
    draw.rectangle((40, 30, 440, 54), (60, 90, 160))
    draw.text((50, 36), "Untitled - Paint", (255, 255, 255))
    for x in (380, 400, 420):
        draw.rectangle((x, 36, x + 12, 48), outline=(255, 255, 255))
    draw.rectangle((60, 70, 420, 355), (255, 255, 255), (160, 160, 160))
    drawn = np.asarray(page, float).copy()
    _paint(drawn[75:350, 65:415], _ink(digit, int(random.integers(120, 260))), random, (0, 0, 0), room=5)
    return encode(drawn.astype(np.uint8))


def tablet(digit: Array, random: Random) -> bytes:
    """Draw in a colour on a transparent layer, as a tablet saves it."""
    page = Image.new("RGBA", (600, 800))
    colour = Image.new("RGBA", (300, 300), (*random.integers(0, 256, 3).tolist(), 255))
    ink = Image.fromarray(digit).resize((300, 300), Image.Resampling.BICUBIC)
    page.paste(colour, (int(random.integers(300)), int(random.integers(500))), ink)
    return encode(np.asarray(page))


def marker(digit: Array, random: Random) -> bytes:
    """Write with a thick marker: strokes of twice the width, with soft edges and streaks."""
    ink = Image.fromarray(digit).resize((224, 224), Image.Resampling.BICUBIC).filter(ImageFilter.MaxFilter(13))
    streaks = 1 - 0.25 * random.random((224, 1)) * (random.random((224, 1)) < 0.3)
    page = _sheet(320, 320)
    _paint(page, np.asarray(ink, float) / 255 * streaks, random, (30, 30, 60))
    return _photo(page, random)


def dashed(digit: Array, random: Random) -> bytes:
    """Draw only dashes of the middle line of the digit, as a pen that skips or a dotted template."""
    line = skeletonize(np.kron(digit, np.ones((9, 9))) > 100)
    y, x = np.indices(line.shape)
    pitch = int(random.integers(12, 20))
    line = line & ((y + x) % pitch < 0.65 * pitch) if random.random() < 0.5 else line & ((y - x) % pitch < 0.65 * pitch)
    thick = Image.fromarray((line * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(7))
    page = _sheet(300, 300)
    _paint(page, np.asarray(thick, float) / 255, random, (30, 30, 30))
    return _photo(page, random)


def graph_paper(digit: Array, random: Random) -> bytes:
    """Write with a blue ballpoint on paper with fine and coarse squares in light blue or orange."""
    page = _sheet(360, 360)
    colour = (170, 200, 230) if random.random() < 0.5 else (235, 195, 160)
    for step, strength in ((12, 0.5), (60, 1.0)):
        for at in range(int(random.integers(step)), 360, step):
            page[at] += (np.array(colour) - page[at]) * strength
            page[:, at] += (np.array(colour) - page[:, at]) * strength
    _paint(page, _ink(digit, int(random.integers(160, 300))), random, BALLPOINT)
    return _photo(page, random)


def vignette(digit: Array, random: Random) -> bytes:
    """Photograph with a phone at night: dark corners, grain and strong JPEG compression."""
    page = _sheet(480, 640)
    _paint(page, _ink(digit, int(random.integers(200, 380))), random, (60, 60, 70))
    y, x = np.mgrid[-1:1:480j, -1:1:640j]
    return _photo(page * (1 - 0.35 * (x * x + y * y))[..., None] * 0.7, random, 30, 8)


def circled(digit: Array, random: Random) -> bytes:
    """Draw a circle by hand around the digit, as for the number of a question."""
    page = _sheet(340, 340)
    side = int(random.integers(130, 170))
    angles = np.linspace(0, 2 * np.pi, 80)
    radius = 125 + 6 * np.sin(angles * 2 + random.uniform(0, 6)) + 4 * np.sin(angles * 3 + random.uniform(0, 6))
    canvas = Image.fromarray(page.astype(np.uint8))
    points = [(170 + r * np.cos(a), 170 + r * np.sin(a)) for r, a in zip(radius, angles, strict=True)]
    ImageDraw.Draw(canvas).line(points, (40, 40, 45), int(random.integers(3, 7)))
    page = np.asarray(canvas, float).copy()
    edge = 170 - side // 2
    _paint(
        page[edge - 10 : edge + side + 10, edge - 10 : edge + side + 10],
        _ink(digit, side),
        random,
        (40, 40, 45),
        room=2,
    )
    return _photo(page, random)


def finger(digit: Array, random: Random) -> bytes:
    """Hold the paper with a finger that reaches into the picture."""
    page = _sheet(360, 360)
    y, x = np.mgrid[0:360, 0:360]
    middle = int(random.integers(60, 300))
    skin = ((x / random.uniform(50, 85)) ** 2 + ((y - middle) / random.uniform(25, 45)) ** 2) < 1
    page[np.rot90(skin, int(random.integers(4)))] = (205, 150, 125)
    _paint(page, _ink(digit, int(random.integers(130, 190))), random, (50, 50, 60), room=85)
    return _photo(page, random)


def pale_pencil(digit: Array, random: Random) -> bytes:
    """Write with a hard pencil: thin, pale strokes on grainy paper."""
    ink = np.asarray(
        Image.fromarray(digit).resize((260, 260), Image.Resampling.BICUBIC).filter(ImageFilter.MinFilter(9)), float
    )
    page = _sheet(360, 360)
    _paint(page, ink / 255, random, (175, 175, 178))
    return _photo(page, random, noise=4)


def bleeding(digit: Array, random: Random) -> bytes:
    """Write on thin paper, through which the writing on its back shows weakly."""
    page = _sheet(320, 400)
    text = Image.new("L", (400, 320), 0)
    draw = ImageDraw.Draw(text)
    for y in range(10, 320, 28):
        draw.text((10, y), "the quick brown fox jumps over the lazy dog", 255, font_size=22)
    back = (
        np.asarray(text.transpose(Image.Transpose.FLIP_LEFT_RIGHT).filter(ImageFilter.GaussianBlur(1.2)), float) / 255
    )
    page -= 28 * back[..., None]
    _paint(page, _ink(digit, int(random.integers(160, 280))), random, (30, 35, 60))
    return _photo(page, random)


def scan(digit: Array, random: Random) -> bytes:
    """Scan a page with two punched holes, so that one or two of its sides are dark, and the digit is small."""
    canvas = Image.fromarray(_sheet(580, 410).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for y in (210, 370):
        draw.ellipse((18, y - 7, 32, y + 7), (40, 40, 40))
    edges = ((0, 0, 410, 6), (0, 573, 410, 580), (0, 0, 6, 580), (403, 0, 410, 580))
    for side in random.permutation(4)[: random.integers(1, 3)]:
        draw.rectangle(edges[side], (30, 30, 30))
    page = np.asarray(canvas, float).copy()
    _paint(page[15:565, 50:395], _ink(digit, int(random.integers(65, 130))), random, BALLPOINT)
    return _photo(page, random, noise=2)


def letterhead(digit: Array, random: Random) -> bytes:
    """Write on the paper of a company, with a filled logo and its name above the digit."""
    canvas = Image.fromarray(_sheet(450, 350).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    side = int(random.integers(25, 50))
    shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
    shape((20, 15, 20 + side, 15 + side), (20, 70, 150))
    draw.text((30 + side, 20), "Miller & Sons Ltd", (20, 70, 150), font_size=16)
    page = np.asarray(canvas, float).copy()
    _paint(page[80:], _ink(digit, int(random.integers(90, 170))), random, (40, 40, 45))
    return _photo(page, random)


SCENES: dict[str, Scene] = {
    "sticky note": sticky_note,
    "chalk on a blackboard": blackboard,
    "notebook with margin and holes": notebook,
    "pad with a spiral": spiral,
    "screenshot of a window": screenshot,
    "tablet, transparent": tablet,
    "thick marker": marker,
    "dashed line": dashed,
    "ballpoint on graph paper": graph_paper,
    "dark photo, JPEG of quality 30": vignette,
    "digit in a circle": circled,
    "finger on the paper": finger,
    "pale pencil": pale_pencil,
    "writing shows through": bleeding,
    "scan with dark edges and holes": scan,
    "letterhead with a logo": letterhead,
}
"""Scenes that the rules of serving/pictures were not made for. They have no goals."""
