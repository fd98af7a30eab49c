"""Any picture of a digit to 28x28 as MNIST made it.

    read -> find the ink on its paper -> drop specks, count digits -> even out the stroke -> shrink -> center

A picture that is 28x28 in MNIST's form passes untouched. The last two steps are MNIST's own, as
reconstructed by QMNIST (Yadav and Bottou, arXiv:1905.10498): the box around the ink, made square,
averaged down to 20x20, stretched to full ink, and pasted into 28x28 so that the centre of mass comes to
lie at the middle of the frame. Before them comes what a scan of black ink did not need: which way up,
which part is ink, how dark and how even the paper is, how broad the pen.
"""

from __future__ import annotations

import io
import warnings
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

# Pillow would load its decoders with the first picture, which would wait 20 ms for them.
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFilter,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from serving.contract import IMAGE_SIZE, Images
from serving.errors import InputError, InputTooLargeError, PictureError

# Formats whose decoders are small and much used.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM")

MARGIN = (IMAGE_SIZE - 20) // 2  # paper around the digit, as MNIST has it
BOX = 20  # the digit's longest side within the frame
# Ink fainter than this share of the strongest is paper, noise or shadow.
FAINT = 0.25
# Strokes are at least so broad, in the box of twenty.
THINNEST = 2.0
# Between two digits there is at least this share of their size in paper.
APART = 0.2
# A piece with less than this share of the largest piece's ink is a speck.
SPECK = 0.08

# Paper whose brightness keeps within so much of its border's is even.
EVEN = 16
EVEN_BORDER = 0.6
# Of the longer side: what is as broad both ways is no stroke.
TOO_BROAD = 0.42
STROKE = 0.33
FAINTEST = 8.0  # of 255; below it nothing stands out

# Longest sides of the picture in which ink is looked for, first from afar, then from near.
COARSE = 96
FINE = 80

Ink = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

Reason = Literal["empty", "several"]


class Digit(NamedTuple):
    """A picture brought to MNIST's form."""

    image: Images
    """uint8 ``[28, 28]``, bright on dark; zeros if the picture is empty."""
    reason: Reason | None = None
    """Why it cannot be one digit, if it cannot."""


def decode(content: bytes, max_pixels: int) -> Digit:
    """The digit in a picture.

    Raises:
        InputTooLargeError: it has more than ``max_pixels``.
        PictureError: it is not a picture of a known format, or damaged.
    """
    grey = read_grey(content, max_pixels)
    return to_mnist(grey)


def read_grey(content: bytes, max_pixels: int) -> Ink:
    """The picture's brightness, float32 ``[H, W]`` in 0..255, upright, on an opaque ground."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of oddities that do not keep it from reading the picture.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            # The size stands in the header: a bomb is refused before it is unpacked.
            if picture.width * picture.height > max_pixels:
                raise InputTooLargeError(
                    f"the picture has {picture.width}x{picture.height} pixels; at most {max_pixels} are taken"
                )
            picture.load()
            return _grey(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, met while it reads the header
        raise InputTooLargeError(f"the picture is too large: {error}; at most {max_pixels} are taken") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise PictureError(f"the picture is damaged: {error}") from error


def _grey(picture: Image.Image) -> Ink:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more; the scale is the picture's own
        values = np.asarray(picture, dtype=np.float32)
        return np.clip(values / 257 if values.max(initial=0) > 255 else values, 0, 255)
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"), dtype=np.float32)
    # A drawing on nothing: give it the ground it stands out from.
    grey, alpha = (np.asarray(band, dtype=np.float32) for band in picture.convert("RGBA").convert("LA").split())
    weight = alpha / 255
    mean = float((grey * weight).sum() / weight.sum()) if weight.any() else 0.0
    ground = 255 if mean < 128 else 0
    return (grey * weight + ground * (1 - weight)).astype(np.float32)


def to_mnist(grey: Ink) -> Digit:
    """Brightness ``[H, W]`` in 0..255 to a digit as MNIST made it."""
    if grey.shape == (IMAGE_SIZE, IMAGE_SIZE):
        paper = float(np.median(_border(grey)))
        ink = grey - paper if paper < 128 else paper - grey
        if is_mnist(ink):
            return Digit(ink.astype(np.uint8))
        grey = undo_stripes(grey)
    grey = _thickened(grey)
    longest = max(grey.shape)
    if longest < IMAGE_SIZE:
        found = find_ink(_thickened(_resized(grey, IMAGE_SIZE / longest)), even=True)
    else:
        found = find_ink(_thickened(_reduced(grey, COARSE)))
    if found is not None and longest > COARSE:
        # Found from afar; now from near.
        found = find_ink(_thickened(_reduced(_around(grey, found), FINE)))
    if found is None:
        return Digit(np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8), "empty")
    if longest == IMAGE_SIZE:
        found = fill_outline(undo_lines(found))
    ink, digits = separate(found)
    return Digit(center(shrink(even_stroke(ink))), "several" if digits > 1 else None)


def find_ink(page: Ink, *, even: bool = False) -> Ink | None:
    """How much each pixel stands out from the paper around it, 0 where it is paper; None if nothing does.

    Args:
        even: the paper is known to be even.
    """
    page = undo_impulses(page)
    too_broad = round(TOO_BROAD * max(page.shape))
    border = _border(page)
    paper = _mode(border)
    ink = page - paper
    # Ink is the side of the paper with the more of it.
    if float((ink * np.abs(ink)).sum()) < 0:
        ink = -ink
    strongest = _strongest(ink)
    smooth = _median3(page)
    if not even and strongest >= FAINTEST:
        # A border of many shades says so too.
        shaded = float((np.abs(border - paper) < EVEN).mean()) < EVEN_BORDER
        even = not shaded and float(_opening(ink, too_broad).max()) <= FAINT * strongest
    if not even and strongest >= FAINTEST:
        # Nothing so broad is a stroke: the paper is uneven. Ink is what lies deep, for it is less than the paper.
        stroke = round(STROKE * max(page.shape))
        # The edges of light and shadow lie about it more often than under it.
        relief = (page - _blurred(page, stroke))[~_ring(page.shape)]
        sign = 1 if float((relief**3).sum()) > 0 else -1
        ink = sign * page - _opening(sign * smooth, stroke)
        ink -= np.median(ink)
        strongest = _strongest(ink)
    noise = 1.4826 * float(np.median(np.abs(page - smooth)))
    if strongest < max(FAINTEST, 4 * noise):
        return None
    return np.where(ink < max(FAINT * strongest, 3 * noise), 0, ink).astype(np.float32)


def _border(page: Ink) -> Ink:
    return np.concatenate([page[0], page[-1], page[1:-1, 0], page[1:-1, -1]])


def _ring(shape: tuple[int, ...]) -> Mask:
    """The frame's outer seventh, MNIST's own margin, which is taken for paper."""
    ring = np.ones(shape, bool)
    y, x = (max(1, round(size / 7)) for size in shape)
    ring[y:-y, x:-x] = False
    return ring


def _mode(values: Ink) -> float:
    """The value that most others are near to."""
    values = np.sort(values)
    near = np.searchsorted(values, values + EVEN, "right") - np.searchsorted(values, values - EVEN)
    return float(np.median(values[near == near.max()]))


def undo_stripes(page: Ink) -> Ink:
    """Where the paper changes from a band of columns, or rows, to the next, each is measured against its own ends."""
    for turned in (page, page.T):
        first, last = turned[:2].mean(axis=0), turned[-2:].mean(axis=0)
        alike = np.abs(first - last) < 48
        if alike.mean() < 0.75:
            continue
        columns = np.arange(len(first))
        paper = np.interp(columns, columns[alike], first[alike])
        # Alone, a column is a speck or the end of a stroke.
        band = np.abs(paper - np.median(paper)) > 96
        wide = band[:-2] & band[1:-1] & band[2:]
        if wide.any() and band.sum() <= wide.sum() + 4:
            even: Ink = np.abs(turned - paper).astype(np.float32)
            return even if turned is page else even.T
    return page


def undo_impulses(page: Ink) -> Ink:
    """Single pixels that are much unlike those around them, if there are many even on the paper: salt and pepper."""
    off = page - _median3(page)
    if float((np.abs(off[_ring(page.shape)]) > 64).mean()) < 0.03:
        return page
    # Struck is what stands alone; of a line's pixels each has two neighbours on its side of the median.
    struck = np.zeros(page.shape, bool)
    for side in (off, -off):
        stands = (side > 64).astype(np.float32)
        struck |= (stands > 0) & (_sum3(stands) < 3)
    # In place of each the mean of its sound neighbours.
    sound = (~struck).astype(np.float32)
    return np.where(struck, _sum3(page * sound) / np.maximum(_sum3(sound), 1), page).astype(np.float32)


def undo_lines(ink: Ink) -> Ink:
    """Without thin lines that run across the frame and out of the box that MNIST's digits keep to."""
    if not _overflows(ink):
        return ink
    broad = _opening(ink, 2)
    broad, _ = separate(np.where(broad > 0.45 * broad.max(), broad, 0).astype(np.float32))
    if not broad.any() or _overflows(broad):
        return ink
    for axis in (0, 1):
        broad = _extreme(broad, 3, axis, least=False)
    return np.minimum(ink, broad)


def _overflows(ink: Ink) -> bool:
    return any(np.ptp(axis) > BOX + 1 for axis in np.nonzero(ink))


def separate(ink: Ink) -> tuple[Ink, int]:
    """The ink without specks, and how many digits it may be."""
    pieces = _pieces(ink)
    if len(pieces) < 2:
        return ink, 1
    least = SPECK * max(piece.mass for piece in pieces)
    if any(piece.mass < least for piece in pieces):
        ink = ink.copy()
        for piece in pieces:
            if piece.mass < least:
                for row, start, end in piece.runs:
                    ink[row, start:end] = 0
    return ink, _digits([piece for piece in pieces if piece.mass >= least])


def _digits(pieces: list[Piece]) -> int:
    """How many digits stand beside or above each other: parts of like size with clear paper between them."""
    height = max(piece.bottom for piece in pieces) - min(piece.top for piece in pieces)
    width = max(piece.right for piece in pieces) - min(piece.left for piece in pieces)
    total = sum(piece.mass for piece in pieces)
    count = 1
    for start, end in (("left", "right"), ("top", "bottom")):
        parts: list[tuple[int, int, float]] = []
        for piece in sorted(pieces, key=lambda piece: getattr(piece, start)):
            first, last = getattr(piece, start), getattr(piece, end)
            if parts and first - parts[-1][1] < APART * min(height, width):
                parts[-1] = (parts[-1][0], max(parts[-1][1], last), parts[-1][2] + piece.mass)
            else:
                parts.append((first, last, piece.mass))
        count = max(count, sum(mass >= 0.2 * total for _, _, mass in parts))
    return count


def is_outline(ink: Ink) -> bool:
    """Whether the ink is lines of one pixel: of MNIST's digits none has so few pixels in squares of four."""
    line = ink > 0
    fours = line[:-1, :-1] & line[1:, :-1] & line[:-1, 1:] & line[1:, 1:]
    return float(fours.sum()) < 0.15 * float(line.sum())


def fill_outline(ink: Ink) -> Ink:
    """A small digit drawn as an outline, its stroke filled; any other as it is."""
    if max(ink.shape) > 2 * IMAGE_SIZE or not is_outline(ink):
        return ink
    # Gaps of a pixel are closed first.
    line = _opening(-np.pad(ink, 2), 2) < 0
    edge = np.zeros(line.shape, bool)
    edge[0] = edge[-1] = edge[:, 0] = edge[:, -1] = True
    outside = _flood(~line, edge, corners=False)
    outline = _flood(line, _grown(outside), corners=True)
    inside = _flood(~line, _grown(outline) & ~outside, corners=False)
    filled = line | inside
    # In a digit of one line the lines have no stroke beside them, or its loop is too broad for a stroke.
    beside = line & _grown(inside)
    broad = round(0.3 * max(np.ptp(axis) for axis in np.nonzero(filled)))
    if beside.sum() < 0.7 * line.sum() or (_opening(filled.astype(np.float32), broad + 1) > 0).any():
        return ink
    return np.where(filled, ink.max(), 0).astype(np.float32)


def even_stroke(ink: Ink) -> Ink:
    """The ink with strokes of at least the breadth that MNIST's have, in a box of twenty."""
    side = _side(ink)
    line = np.pad(ink > 0.5 * _strongest(ink), 1)
    edges = np.count_nonzero(line[1:] != line[:-1]) + np.count_nonzero(line[:, 1:] != line[:, :-1])
    # A line's area over half its length in edges; pi / 4 is what a slanted line's steps add to its length.
    breadth = 2 * np.count_nonzero(line) / max(1.0, edges * np.pi / 4)
    missing = THINNEST * side / BOX - breadth
    if missing <= 0:
        return ink
    if side < 3 * BOX:
        # A pixel of this would be too much.
        factor = 3 * BOX / side
        ink, missing = np.maximum(_resized(ink, factor), 0), missing * factor
    size = 1 + round(missing)
    ink = np.pad(ink, size)
    for axis in (0, 1):
        ink = _extreme(ink, size, axis, least=False)
    return ink


def _sum3(x: Ink) -> Ink:
    """Each pixel and its eight neighbours added up."""
    x = np.pad(x, 1)
    rows = x[:-2] + x[1:-1] + x[2:]
    sums: Ink = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return sums


def _grown(mask: Mask) -> Mask:
    """The mask and the eight neighbours of each of its pixels."""
    return _sum3(mask.astype(np.float32)) > 0


def _flood(free: Mask, seed: Mask, *, corners: bool) -> Mask:
    """What can be reached from ``seed`` within ``free``."""
    reached = seed & free
    while True:
        if corners:
            grown = _grown(reached) & free
        else:
            grown = reached.copy()
            grown[1:] |= reached[:-1]
            grown[:-1] |= reached[1:]
            grown[:, 1:] |= reached[:, :-1]
            grown[:, :-1] |= reached[:, 1:]
            grown &= free
        if (grown == reached).all():
            return reached
        reached = grown


def _side(ink: Ink) -> int:
    """The longer side of the box around the ink."""
    return max(int(np.ptp(axis)) for axis in np.nonzero(ink)) + 1


def _strongest(ink: Ink) -> float:
    """The most ink over 2x2 pixels, a single one being noise."""
    rows = ink[:-1] + ink[1:]
    return float((rows[:, :-1] + rows[:, 1:]).max()) / 4


def _opening(x: Ink, size: int) -> Ink:
    """Minimum, then maximum, over squares: what remains is as broad as ``size``."""
    for least in (True, False):
        for axis in (0, 1):
            x = _extreme(x, size, axis, least)
    return x


def _blurred(x: Ink, size: int) -> Ink:
    """The mean over squares, by differences of running sums."""
    for _ in range(2):  # down the columns, then, turned, along the rows
        sums = np.pad(x, [(size // 2 + 1, size - 1 - size // 2), (0, 0)], mode="edge").cumsum(axis=0, dtype=np.float64)
        x = ((sums[size:] - sums[:-size]) / size).T
    return x.astype(np.float32)


def _median3(x: Ink) -> Ink:
    return np.asarray(Image.fromarray(x).filter(ImageFilter.MedianFilter(3)))


class Piece:
    """Ink that hangs together, corners included."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, int]] = []
        """Row, first column and column after the last."""
        self.mass = 0.0
        self.top, self.bottom, self.left, self.right = 1 << 30, 0, 1 << 30, 0


def _pieces(ink: Ink) -> list[Piece]:
    """Connected pieces: runs of ink row by row, joined where they touch."""
    height, width = ink.shape
    flat = np.zeros((height, width + 2), np.int8)
    flat[:, 1:-1] = ink > 0
    steps = np.diff(flat, axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    sums = np.concatenate([[0.0], np.cumsum(ink, dtype=np.float64)])
    masses = (sums[rows * width + ends] - sums[rows * width + starts]).tolist()
    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
    parent = list(range(len(runs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    above = 0
    for i, (row, start, end) in enumerate(runs):
        # The first run of the row above that may still touch this one or a later one.
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start):
            above += 1
        j = above
        while runs[j][0] == row - 1 and runs[j][1] <= end:
            parent[root(j)] = root(i)
            j += 1
    pieces: dict[int, Piece] = {}
    for i, (run, mass) in enumerate(zip(runs, masses, strict=True)):
        piece = pieces.setdefault(root(i), Piece())
        row, start, end = run
        piece.runs.append(run)
        piece.mass += mass
        piece.top, piece.bottom = min(piece.top, row), max(piece.bottom, row + 1)
        piece.left, piece.right = min(piece.left, start), max(piece.right, end)
    return list(pieces.values())


def _extreme(x: Ink, size: int, axis: int, least: bool) -> Ink:
    """The least or greatest of ``size`` neighbours along an axis, by van Herk's prefixes and suffixes of blocks."""
    extreme = np.minimum if least else np.maximum
    x = x if axis == 0 else x.T
    length = len(x)
    before = size // 2 if least else size - 1 - size // 2
    blocks = -(-(length + size - 1) // size)
    padded = np.pad(x, [(before, blocks * size - length - before), (0, 0)], mode="edge").reshape(blocks, size, -1)
    first = extreme.accumulate(padded, axis=1).reshape(blocks * size, -1)
    last = extreme.accumulate(padded[:, ::-1], axis=1)[:, ::-1].reshape(blocks * size, -1)
    result: Ink = extreme(last[:length], first[size - 1 : size - 1 + length])
    return result if axis == 0 else result.T


def _thickened(grey: Ink) -> Ink:
    """At least four pixels either way, so that every pixel has neighbours."""
    if min(grey.shape) >= 4:
        return grey
    return np.pad(grey, [(0, max(0, 4 - size)) for size in grey.shape], mode="edge")


def _resized(grey: Ink, factor: float) -> Ink:
    height, width = (max(1, round(size * factor)) for size in grey.shape)
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.LANCZOS))


def _reduced(grey: Ink, longest: int) -> Ink:
    """Averaged down so that no side is over ``longest``."""
    factor = max(grey.shape) / longest
    if factor <= 1:
        return grey
    height, width = (max(1, round(size / factor)) for size in grey.shape)
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))


def _around(grey: Ink, ink: Ink) -> Ink:
    """The part of the picture around the ink found in its reduced form, with as much paper as MNIST has."""
    factor = max(grey.shape) / max(ink.shape)
    box = []
    for axis in (0, 1):
        found = np.flatnonzero(ink.any(axis=1 - axis))
        box.append((found[0], found[-1] + 1))
    margin = 1 + 0.3 * max(end - start for start, end in box)
    (top, bottom), (left, right) = (
        (max(0, int((start - margin) * factor)), min(size, int((end + margin) * factor)))
        for (start, end), size in zip(box, grey.shape, strict=True)
    )
    return grey[top:bottom, left:right]


def is_mnist(ink: Ink) -> bool:
    """Whether the picture is 28x28 as MNIST has them: black around, ink in the middle, centred by mass."""
    if ink.shape != (IMAGE_SIZE, IMAGE_SIZE) or ink.min() < 0 or not ink.any():
        return False
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    centred = longest <= BOX + 1 and all(abs(centre - 14.5) <= 0.75 for centre in _centre(ink))
    return bool(centred) and not is_outline(ink)


def shrink(ink: Ink) -> Ink:
    """The square around the ink, averaged to ``[20, 20]`` and stretched to 0..255."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = ink[top : top + height, left : left + width]
    method = Image.Resampling.BOX if side >= BOX else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(square).resize((BOX, BOX), method))
    stretched: Ink = np.clip(small * (255 / small.max()), 0, 255).astype(np.float32)
    return stretched


def center(digit: Ink) -> Images:
    """Paste ``[20, 20]`` into 28x28 by whole pixels, its centre of mass nearest to the pixel (14, 14)."""
    frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    # Centres in edge coordinates. A digit with its mass at a corner keeps its ink: the box stays inside.
    y, x = (min(max(int(np.floor(15 - centre)), 0), IMAGE_SIZE - BOX) for centre in _centre(digit))
    frame[y : y + BOX, x : x + BOX] = np.rint(digit)
    return frame


def _centre(ink: Ink) -> tuple[float, float]:
    """Centre of mass (row, column) in edge coordinates: the middle of pixel i is i + 0.5."""
    total = float(ink.sum())
    return tuple(  # type: ignore[return-value]
        float((ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum()) / total for axis in (0, 1)
    )
