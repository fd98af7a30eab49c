"""Find the ink of a single digit in two steps: where it lies, on a reduced page, and then what it is, in a close-up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from serving.pictures.ink import LEAST_SIDE, STROKE, Ink, measure_ink, spans_of, strongest
from serving.pictures.page import Grey, Page, pad_to, reduce, resize

# The ink is located on a reduced page and then measured on a close-up. These are their longer sides, in pixels.
# The digit ends up in a box of 20 pixels, so more pixels than these would only take time.
OVERVIEW = 96
CLOSE_UP = 80
# Paper kept on each side of the ink in the close-up, as a share of the ink's longer side. MNIST has at least 0.2.
CLOSE_UP_MARGIN = 0.3
# What lies along the border of a page, such as a desk, touches the border with at least this share of its own longer
# side, and takes at most this share of the page across. A digit on a page that is cropped to the digit takes more.
CONTACT, STRIP = 0.5, 0.25
# A picture whose longer side has fewer pixels than this is enlarged first. The filters have windows of 3 pixels, which
# would be broader than the strokes of a smaller picture.
ENLARGE_BELOW = 28
ENLARGED = 42


class Place(NamedTuple):
    """Where a part of a page lies, in shares of the height and width of the page."""

    top: float = 0.0
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0

    def within(self, outer: Place) -> Place:
        """Return this place, given in shares of the part ``outer`` of a page, in shares of the whole page."""
        height, width = outer.bottom - outer.top, outer.right - outer.left
        return Place(
            outer.top + self.top * height,
            outer.left + self.left * width,
            outer.top + self.bottom * height,
            outer.left + self.right * width,
        )


class CloseUp(NamedTuple):
    """The part of a page in which its ink lies."""

    page: Grey
    ink: Ink
    """Of the same shape."""
    place: Place
    """Where it lies on the page."""


def find_close_up(page: Grey | Page, overview: Grey | None = None) -> CloseUp | None:
    """Return the part of a page in which its ink lies, or None if the page is empty.

    A page with more than ``OVERVIEW`` pixels a side is reduced first, and the result is a close-up of its ink.

    Args:
        overview: the page, reduced to ``OVERVIEW``, if it is known already.
    """
    longest = max(page.shape)
    if longest < ENLARGE_BELOW:
        # Such a picture shows too little paper to judge whether the light is even.
        small = _enlarge(reduce(page, longest))
        return _close_up(small, measure_ink(small, even=True), Place())
    small = reduce(page, OVERVIEW) if overview is None else overview
    ink = measure_ink(small)
    if ink is None or longest <= OVERVIEW:
        return _close_up(small, ink, Place())
    part, place = crop_to_ink(page, ink)
    small = reduce(part, CLOSE_UP)
    return _close_up(small, measure_ink(small), place)


def _close_up(page: Grey, ink: Ink | None, place: Place) -> CloseUp | None:
    # The ink of a very narrow page is wider than the page, because measuring it needs some pixels.
    return None if ink is None else CloseUp(pad_to(page, LEAST_SIDE), ink, place)


def _enlarge(page: Grey) -> Grey:
    """Scale a small page to ``ENLARGED`` pixels. The edges of a picture in black and white are smoothed."""
    is_grey = len(np.unique(page)) > 2
    method = Image.Resampling.LANCZOS if is_grey else Image.Resampling.BILINEAR
    return resize(page, ENLARGED / max(page.shape), method)


def crop_to_ink(page: Grey | Page, ink: Ink) -> tuple[Grey | Page, Place]:
    """Crop a page to the ink that was found on the reduced page, with ``CLOSE_UP_MARGIN`` of paper around it."""
    factor = max(page.shape) / max(ink.shape)
    spans = spans_of(ink)
    margin = 1 + CLOSE_UP_MARGIN * max(end - start for start, end in spans)
    rows, columns = (
        slice(max(0, int((start - margin) * factor)), min(size, int((end + margin) * factor)))
        for (start, end), size in zip(spans, page.shape, strict=True)
    )
    return page[rows, columns], place_of(page.shape, rows, columns)


def find_closer(page: Grey | Page, close_up: CloseUp, ink: Ink) -> CloseUp | None:
    """Return a close-up of some of the ink of another close-up of a page, or None if it is empty."""
    height, width = page.shape
    top, left, bottom, right = close_up.place
    shown = page[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    part, place = crop_to_ink(shown, ink)
    closer = find_close_up(part)
    return closer and closer._replace(place=closer.place.within(place).within(close_up.place))


def place_of(shape: tuple[int, ...], rows: slice, columns: slice) -> Place:
    """Return where some rows and columns lie on a page of ``shape``."""
    height, width = shape
    return Place(rows.start / height, columns.start / width, rows.stop / height, columns.stop / width)


def is_along_border(ink: Ink, place: Place) -> bool:
    """Return whether ink is a strip along the border of the page, or a line from one border to the opposite one.

    Args:
        place: where the ink lies on the page.
    """
    strong = ink > STROKE * strongest(ink)
    rows, columns = (slice(*span) for span in spans_of(strong))
    strip = place_of(strong.shape, rows, columns).within(place)
    longest = max(rows.stop - rows.start, columns.stop - columns.start)
    at_top, at_bottom, at_left, at_right = (
        int(np.count_nonzero(side)) if at_border else 0
        for side, at_border in (
            (strong[0], place.top <= 0),
            (strong[-1], place.bottom >= 1),
            (strong[:, 0], place.left <= 0),
            (strong[:, -1], place.right >= 1),
        )
    )
    is_low, is_narrow = strip.bottom - strip.top <= STRIP, strip.right - strip.left <= STRIP
    least = CONTACT * longest
    return (is_narrow and (max(at_left, at_right) >= least or min(at_top, at_bottom) > 0)) or (
        is_low and (max(at_top, at_bottom) >= least or min(at_left, at_right) > 0)
    )
