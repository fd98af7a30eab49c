"""Turn a picture of numbers into candidates: every group of neighbouring parts of a line that may be one digit.

    decode -> find the ink -> lines, upright -> parts -> candidates in MNIST's form

The network then judges the candidates, and ``serving/inference/path.py`` chooses those that make up the line.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from serving.contract import IMAGE_SIZE, Images
from serving.pictures.colours import decode_colours
from serving.pictures.cuts import Integers, find_cuts
from serving.pictures.decode import decode_grey
from serving.pictures.grain import is_texture, shrink, without_grain
from serving.pictures.header import read_header
from serving.pictures.ink import Ink
from serving.pictures.lines import Line, find_lines
from serving.pictures.normalize import BOX, LEAST_STROKE, centre_in_frame, shrink_to_box, stroke_width, widen_strokes
from serving.pictures.page import Grey, pad_to, reduce
from serving.pictures.page_ink import LONGEST, find_page_ink
from serving.pictures.signs import LARGEST_SIGN, Blob, Sign, find_signs
from serving.pictures.work import Work

# A JPEG is decoded at a share of its size if both sides keep this many pixels: a page has many small digits.
NUMBER_JPEG_SIDE = 2048
# A line whose digits are higher is reduced to this height. MNIST's digits have 20 pixels.
LINE_HEIGHT = 40
# A candidate has at most this many parts. All other lengths are shares of the line's height.
MOST_PARTS = 8
# The widest candidate of several parts. A 2 that is written alone may be twice as wide as high.
WIDEST = 2.2
# The highest candidate. Digits of one line differ in height by less: the highest of 300,000 candidates in the rows of
# benchmarks/numbers.py has 1.65. Without a limit, each part of an outline around the line would be as high as the page.
HIGHEST = 3.0
# The widest gap inside a candidate. A digit of two pieces has a narrower one.
WIDEST_GAP = 0.3
# A digit's longer side has at least this length. A smaller part may be a dot, or a piece of a digit.
LEAST_SIDE = 0.3
# The shorter side of a candidate has at least this many pixels.
LEAST_PIXELS = 2

Box = tuple[int, int, int, int]
"""Left, top, right and bottom; right and bottom are exclusive. The pixels are the picture's own, or those of a line."""


def around(boxes: Sequence[Box]) -> Box:
    """Return the box around several boxes."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


class Part(NamedTuple):
    """The smallest unit of which candidates are made: the ink between two neighbouring cuts."""

    height: float
    """Height and width of the ink, as a share of the line's height; 0 if there is no ink."""
    width: float
    box: Box
    """In the picture's own pixels."""
    mass: float = 0.0
    """Its ink, as a share of the strongest ink of the line times the square of the line's height."""


class Candidate(NamedTuple):
    """A group of neighbouring parts that may be one digit."""

    first: int
    """The first part."""
    end: int
    """The part after the last one."""
    height: float
    """Height and width of the ink, as a share of the line's height."""
    width: float
    box: Box
    """In the picture's own pixels."""


class LineParts(NamedTuple):
    """A line of a picture, from left to right. Cut ``i`` lies between part ``i`` and part ``i + 1``."""

    parts: list[Part]
    crossed: list[float]
    """The ink that each cut crosses, as a share of the line's height."""
    gaps: list[float]
    """The width of the gap at each cut; 0 for a cut through ink."""
    candidates: list[Candidate]
    signs: list[Sign]
    """Ink between two gaps that may be a sign, such as a slash, instead of digits."""


@dataclass(slots=True)
class NumberPage:
    """The lines of a picture, and the images of all their candidates."""

    width: int
    height: int
    """Size of the picture in its own pixels, upright."""
    lines: list[LineParts]
    pixels: bytes
    """Uint8 ``[N, 28, 28]``: one image per candidate, line after line."""
    is_empty: bool = False
    """Whether there is no ink."""

    @property
    def images(self) -> Images:
        """Uint8 ``[N, 28, 28]``."""
        return np.frombuffer(self.pixels, np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)

    def to_bytes(self) -> bytes:
        """Return the page as a line of JSON and the pixels after it."""
        # The process that decodes large pictures has no msgspec, to start fast.
        return json.dumps([self.width, self.height, self.lines, self.is_empty]).encode() + b"\n" + self.pixels

    @classmethod
    def from_bytes(cls, content: bytes) -> NumberPage:
        """Return the page that :meth:`to_bytes` wrote."""
        text, _, pixels = content.partition(b"\n")
        width, height, lines, is_empty = json.loads(text)
        return cls(width, height, [_line_of(*line) for line in lines], pixels, is_empty)


def _line_of(
    parts: list[list[Any]],
    crossed: list[float],
    gaps: list[float],
    candidates: list[list[Any]],
    signs: list[list[Any]],
) -> LineParts:
    """Return a line from its JSON, in which tuples are lists."""
    return LineParts(
        [Part(height, width, tuple(box), mass) for height, width, box, mass in parts],
        crossed,
        gaps,
        [Candidate(first, end, height, width, tuple(box)) for first, end, height, width, box in candidates],
        [Sign(first, end, tuple(properties)) for first, end, properties in signs],
    )


def to_number_page(content: bytes, max_pixels: int, check: Callable[[], None] = lambda: None) -> NumberPage:
    """Return the lines and candidates of a picture file.

    Args:
        check: see :class:`Work`.

    Raises:
        InputTooLargeError: the picture has more than ``max_pixels`` pixels, or takes more work than ``work.py`` allows.
        PictureError: the bytes are not a picture in a known format, or they are damaged.
    """
    page, size = _reduced_page(content, max_pixels)
    result = _candidates_of(page, size, check)
    colours = decode_colours(content, NUMBER_JPEG_SIDE) if result.is_empty else None
    return result if colours is None else _candidates_of(colours, size, check)


def _reduced_page(content: bytes, max_pixels: int) -> tuple[Grey, tuple[int, int]]:
    """Return a picture file as a page of at most ``LONGEST`` pixels a side, and the width and height of the picture.

    The decoded picture may take 100 MB, which are free for the next steps when this function has returned.
    """
    page = decode_grey(content, max_pixels, NUMBER_JPEG_SIDE)
    header = read_header(content)
    # A large JPEG is decoded at a half or less of its size.
    enlarged = max(header.width, header.height) / max(page.shape)
    height, width = (math.ceil(side * enlarged - 0.5) for side in page.shape)
    return reduce(page, LONGEST), (width, height)


def _candidates_of(page: Grey, size: tuple[int, int], check: Callable[[], None]) -> NumberPage:
    """Return the lines and candidates of a page.

    Args:
        page: brightness from 0 to 255, ``[H, W]``, of at most ``LONGEST`` pixels a side.
        size: width and height of the picture that was reduced to the page.
        check: see :class:`Work`.
    """
    result = NumberPage(*size, [], b"")
    ink = find_page_ink(page)
    if ink is None:
        result.is_empty = True
        return result
    # All of it may have been rules, stains or other things that are no digits.
    if not ink.any() or is_texture(ink):
        return result
    ink = without_grain(ink)
    scale = max(size) / max(ink.shape)
    images: list[Images] = []
    work = Work(check)
    for line in find_lines(ink):
        work.add_line(line.ink.size)
        grouped = _Grouping(line, scale, size)
        work.add_parts(len(grouped.result.parts))
        images += grouped.add_candidates(work)
        result.lines.append(grouped.result)
    result.pixels = b"".join(image.tobytes() for image in images)
    return result


class _Grouping:
    """Groups the parts of a line.

    Args:
        scale: pixels of the picture per pixel of the line.
        size: width and height of the picture.
    """

    def __init__(self, line: Line, scale: float, size: tuple[int, int]) -> None:
        self._line, self._scale, self._size = line, scale, size
        self._factor = max(1.0, line.height / LINE_HEIGHT)
        # The filters need two pixels; a hairline may have one.
        self._ink = pad_to(shrink(line.ink, self._factor), LEAST_PIXELS)
        self._height = line.height / self._factor
        # One pen wrote the line, so its strokes are measured once.
        self._is_thin = stroke_width(self._ink) < LEAST_STROKE * self._height / BOX
        self._cuts = find_cuts(self._ink, self._height)
        part_of = self._cuts.part_of
        self._boxes = _boxes(part_of, self._ink, len(self._cuts.crossed) + 1)
        masses = _masses(part_of, self._ink, len(self._boxes), self._height)
        parts = list(map(self._part, self._boxes, masses))
        signs = find_signs(self._blobs(), self._height)
        self.result = LineParts(parts, self._cuts.crossed, self._cuts.gaps, [], signs)

    def add_candidates(self, work: Work) -> list[Images]:
        """Add the candidates to the result, and return the image of each."""
        images: list[Images] = []
        count = len(self._boxes)
        for first in range(count):
            for end in range(first + 1, min(first + MOST_PARTS, count) + 1):
                is_group = end > first + 1
                if is_group and self._cuts.gaps[end - 2] > WIDEST_GAP:
                    break
                # A group without ink in its first or last part is the same as a smaller group.
                if self._boxes[first] is None or self._boxes[end - 1] is None:
                    continue
                box = left, top, right, bottom = around([part for part in self._boxes[first:end] if part])
                height, width = self._shape(box)
                if height > HIGHEST or (is_group and width > WIDEST):
                    break
                if max(height, width) < LEAST_SIDE or min(right - left, bottom - top) < LEAST_PIXELS:
                    continue
                work.add_candidate((right - left) * (bottom - top))
                self.result.candidates.append(Candidate(first, end, height, width, self._on_picture(box)))
                digit = self._ink_of(first, end, box)
                # Shrinking may lose a line of one pixel, also beside broader strokes.
                is_thin = self._is_thin or np.count_nonzero(digit) <= 2 * sum(digit.shape)
                images.append(centre_in_frame(shrink_to_box(widen_strokes(digit) if is_thin else digit)))
        return images

    def _blobs(self) -> Iterator[Blob]:
        """Yield the ink between neighbouring gaps."""
        edges = [0, *(at + 1 for at, gap in enumerate(self._cuts.gaps) if gap > 0), len(self._boxes)]
        for first, end in itertools.pairwise(edges):
            boxes = [box for box in self._boxes[first:end] if box]
            if boxes:
                box = around(boxes)
                ink = self._ink_of(first, end, box) if max(self._shape(box)) <= LARGEST_SIGN else None
                yield Blob(first, end, ink, box[1] / self._height, box[3] / self._height)

    def _part(self, box: Box | None, mass: float) -> Part:
        return Part(*self._shape(box), self._on_picture(box), mass) if box else Part(0, 0, (0, 0, 0, 0))

    def _shape(self, box: Box) -> tuple[float, float]:
        """Return height and width of a box of the line, as a share of the line's height."""
        left, top, right, bottom = box
        return (bottom - top) / self._height, (right - left) / self._height

    def _ink_of(self, first: int, end: int, box: Box) -> Ink:
        """Return the ink of the parts from ``first`` to before ``end``, which lies in ``box``."""
        left, top, right, bottom = box
        part_of = self._cuts.part_of[top:bottom, left:right]
        return np.where((part_of >= first) & (part_of < end), self._ink[top:bottom, left:right], 0)

    def _on_picture(self, box: Box) -> Box:
        """Return the box in the picture's own pixels of a box of the line."""
        on_page = self._line.box_on_page(*(self._factor * side for side in box))
        x, y, right, bottom = (side * self._scale for side in on_page)
        width, height = self._size
        return (
            max(0, math.floor(x)),
            max(0, math.floor(y)),
            min(width, math.ceil(right)),
            min(height, math.ceil(bottom)),
        )


def _boxes(part_of: Integers, ink: Ink, count: int) -> list[Box | None]:
    """Return the box around the ink of each part, or None if it has no ink."""
    rows, columns = np.nonzero(ink)
    parts = part_of[rows, columns]
    edges = []
    for places, side in ((columns, ink.shape[1]), (rows, ink.shape[0])):
        first, end = np.full(count, side), np.zeros(count, int)
        np.minimum.at(first, parts, places)
        np.maximum.at(end, parts, places + 1)
        edges += [first.tolist(), end.tolist()]
    return [
        (left, top, right, bottom) if left < right else None for left, right, top, bottom in zip(*edges, strict=True)
    ]


def _masses(part_of: Integers, ink: Ink, count: int, height: float) -> list[float]:
    """Return the ink of each part: see ``Part.mass``."""
    masses: list[float] = (np.bincount(part_of.ravel(), ink.ravel(), count) / (float(ink.max()) * height**2)).tolist()
    return masses
