"""Convert a picture of a digit to MNIST's form: a 28x28 image, bright ink on black, scaled and centred as in MNIST.

    decode -> find the ink -> remove specks, count digits -> widen thin strokes -> shrink to 20x20 -> centre in 28x28

The last two steps made MNIST itself. The steps before them handle what MNIST's scans of black ink did not contain:
bright ink on dark paper, uneven paper, dirt and thin pens. If something may surround the digit, the result has other
readings of the picture, without the surroundings. The table "step switched off" in
``benchmarks/results/robustness.md`` shows what each step gains.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from serving.contract import IMAGE_SIZE, Images, RejectionReason
from serving.pictures.close_up import OVERVIEW, CloseUp, find_close_up, find_closer, is_along_border
from serving.pictures.colours import decode_colours
from serving.pictures.decode import BLACK, WHITE, decode_in_colour
from serving.pictures.desk import fills_side, is_edge
from serving.pictures.dots import joined_dots
from serving.pictures.doubt import Properties, properties_of
from serving.pictures.ink import Ink, shade_of_border
from serving.pictures.neighbours import (
    encloses_several,
    has_line,
    is_filled,
    rings_of,
    without_border,
    without_neighbours,
)
from serving.pictures.normalize import centre_in_frame, is_mnist_form, shrink_to_box, widen_strokes
from serving.pictures.page import Colours, Grey, Page, reduce
from serving.pictures.pieces import Piece, count_digits, dots_among, erase, find_pieces, mask_of, split_specks
from serving.pictures.surroundings import is_mostly_weak, other_pages

# Digits side by side differ in length by at most this factor.
ALIKE = 1.4
# A page with this many parts of similar mass side by side or in lines shows a text or many digits.
MANY_PARTS = 5
# So does a page with this many pieces. What surrounds a single digit, such as the boxes of a form, makes fewer of them.
MANY_PIECES = 12


class Digit(NamedTuple):
    """A picture in MNIST's form."""

    image: Images
    """Uint8 ``[28, 28]``, bright ink on black; zeros if the picture is empty."""
    reason: RejectionReason | None = None
    """Why the picture does not show one digit, or None if no such reason was found."""
    properties: Properties = Properties()
    """How unlike ink on paper the picture is where the digit was found."""
    others: tuple[Digit, ...] = ()
    """Other readings of the picture, without what may surround the digit. The network has to choose."""
    loses_dots: bool = False
    """Whether specks were left out that may be dots of a symbol. Only the check of a data set asks."""


class Source(NamedTuple):
    """Where the ink of a reading comes from."""

    close_up: CloseUp
    colours: Colours | None
    """Of the whole picture; None if it is grey."""
    is_dotted: bool = False
    """Whether specks that may be dots of the symbol belong to it."""


def to_mnist_form(content: bytes, max_pixels: int, *, is_dotted: bool = False) -> Digit:
    """Return the digit in a picture file as a 28x28 image.

    Args:
        content: the bytes of a PNG, JPEG, GIF, BMP, WebP or PNM file.
        max_pixels: limit on width times height.
        is_dotted: keep specks that may be dots of the symbol, such as those of Ä.

    Raises:
        InputTooLargeError: the picture has more than ``max_pixels`` pixels.
        PictureError: the bytes are not a picture in a known format, or they are damaged.
    """
    page, colours = decode_in_colour(content, max_pixels)
    if not isinstance(page, Page) and page.shape == (IMAGE_SIZE, IMAGE_SIZE):
        image = _on_black(page)
        if is_mnist_form(image):
            return Digit(image.astype(np.uint8))
    digit = _digit_on_page(page, colours, is_dotted)
    if digit.reason != "empty":
        return digit
    del page  # The second decoding needs its memory.
    difference = decode_colours(content)
    return digit if difference is None else _digit_on_page(difference, colours, is_dotted, may_be_weak=False)


def _digit_on_page(page: Grey | Page, colours: Colours | None, is_dotted: bool, *, may_be_weak: bool = True) -> Digit:
    """Return the digit on a page, and other readings of the page.

    Args:
        may_be_weak: with False, mostly weak ink is no digit: a stain or coloured light fades towards its edges.
    """
    overview = reduce(page, OVERVIEW)
    close_up = find_close_up(page, overview)
    if close_up is None or (not may_be_weak and is_mostly_weak(close_up.ink)):
        return digit_on(None)
    source, ink = Source(close_up, colours, is_dotted), close_up.ink
    pieces = find_pieces(ink)
    digit = _digit_of(ink, pieces, source)
    large, specks = split_specks(pieces)
    dotted = digit_on(joined_dots(ink, large))
    if dotted.reason is None:
        return digit._replace(others=(dotted,))
    if len(large) >= MANY_PIECES or (digit.reason == "several" and _are_no_surroundings(large, ink.shape)):
        return digit
    has_edge = any(is_edge(piece, ink.shape) for piece in pieces)
    others = list(_readings_inside(page, source, pieces)) if has_edge else []
    is_with_border = any(other.reason is None for other in others) or _is_with_border(large, ink.shape)
    others += _readings_without(source, pieces)
    for part, place in other_pages(page, overview, close_up, pieces):
        its_close_up = find_close_up(part)
        if its_close_up is not None:
            its_source = source._replace(close_up=its_close_up._replace(place=its_close_up.place.within(place)))
            its_pieces = find_pieces(its_close_up.ink)
            others.append(_another(its_close_up.ink, its_pieces, its_source))
            others += _readings_without(its_source, its_pieces, at_border=False)
    readings = tuple(other for other in others if other.reason is None)
    if readings and digit.reason is None and is_with_border:
        return readings[0]._replace(others=readings[1:])
    if has_edge and digit.reason is None and is_along_border(erase(ink, specks), close_up.place):
        digit = digit._replace(reason="no digit")
    return digit._replace(others=readings)


def _readings_inside(page: Grey | Page, source: Source, pieces: Sequence[Piece]) -> Iterator[Digit]:
    """Yield the digit that the ink makes which does not touch the border, in a close-up of its own.

    The edge of a scan has so much ink that the digit may be a speck beside it, and so small that it is blurred.

    Args:
        pieces: those of the ink of ``source``.
    """
    ink = source.close_up.ink
    inside = [piece for piece in pieces if piece.is_inside(ink.shape)]
    if not inside:
        return
    large, _ = split_specks(inside)
    closer = find_closer(page, source.close_up, np.where(mask_of(large, ink.shape), ink, 0))
    if closer is None:
        return
    found = find_pieces(closer.ink)
    inside = [piece for piece in found if piece.is_inside(closer.ink.shape)]
    if inside:
        alone = erase(closer.ink, set(found) - set(inside))
        source = source._replace(close_up=closer._replace(ink=alone))
        yield _another(alone, inside, source)
        yield from _readings_without(source, inside)


def _is_with_border(pieces: Sequence[Piece], shape: tuple[int, ...]) -> bool:
    """Return whether some pieces lie along the border of the page, and others do not.

    Together they are no digit, although the edge of a desk on two sides of the page looks much like a 7.
    """
    along = [fills_side(piece, shape) for piece in pieces]
    return any(along) and not all(along)


def _readings_without(source: Source, pieces: Sequence[Piece], *, at_border: bool = True) -> Iterator[Digit]:
    """Yield the digit without the ink beside it or around it, if there is any."""
    ink = source.close_up.ink
    if source.is_dotted:
        # A dot is farther from the symbol than the parts of a digit are from each other.
        dots = set(dots_among(pieces))
        pieces = [piece for piece in pieces if piece not in dots]
    alone = without_neighbours(ink, pieces, at_border=at_border)
    if alone is not None:
        yield _another(alone, find_pieces(alone), source)
    inside = without_border(ink, pieces) if at_border else None
    if inside is not None and (alone is None or not np.array_equal(inside, alone)):
        yield _another(inside, find_pieces(inside), source)


def _another(ink: Ink, pieces: Sequence[Piece], source: Source) -> Digit:
    """Return the digit that some of the ink of a page makes. The edge of a desk or a fold of the paper is no digit."""
    digit = _digit_of(ink, pieces, source)
    is_at_border = is_along_border(ink, source.close_up.place) or any(
        is_edge(piece, ink.shape) for piece in split_specks(pieces)[0]
    )
    return digit._replace(reason="no digit") if is_at_border else digit


def _are_no_surroundings(pieces: Sequence[Piece], shape: tuple[int, ...]) -> bool:
    """Return whether the pieces are a text, a face or a row of digits. None of them surrounds a digit."""
    # What the border cuts off may be a desk, dark corners, or the next digits of a row.
    inside = [piece for piece in pieces if piece.is_inside(shape)]
    # Filled shapes, such as the holes of a page, are no parts of a text or a row, unless there is nothing else.
    strokes = [piece for piece in inside if not is_filled(piece)]
    is_many = count_digits(strokes or inside or pieces) >= MANY_PARTS or encloses_several(pieces, shape)
    return is_many or (not has_line(pieces) and _are_alike(pieces, shape))


def _are_alike(pieces: Sequence[Piece], shape: tuple[int, ...]) -> bool:
    """Return whether all pieces are about equally long, none touches the border, and no two boxes overlap.

    Such pieces are several digits. What surrounds a digit is longer, reaches the border, or encloses the digit. Without
    this rule a 1 beside another digit could be taken for a line on the paper.
    """
    lengths = [piece.length for piece in pieces]
    if max(lengths) > ALIKE * min(lengths):
        return False
    if not all(piece.is_inside(shape) for piece in pieces):
        return False
    return not any(
        a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom
        for a, b in itertools.combinations(pieces, 2)
    )


def digit_on(ink: Ink | None, source: Source | None = None) -> Digit:
    """Return the digit that the ink of a page makes. None is an empty page.

    Args:
        source: where the ink comes from; None if that is unknown.
    """
    if ink is None:
        return Digit(np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8), "empty")
    return _digit_of(ink, find_pieces(ink), source)


def _digit_of(ink: Ink, pieces: Sequence[Piece], source: Source | None) -> Digit:
    large, specks = split_specks(pieces)
    is_dotted = source is not None and source.is_dotted
    dots = dots_among(pieces) if specks else []
    if specks:
        ink = erase(ink, set(specks) - set(dots) if is_dotted else specks)
    digit = shrink_to_box(widen_strokes(ink))
    is_several = count_digits(large) > 1 or bool(rings_of(large)) or has_line(large)
    properties = properties_of(source.close_up, ink, source.colours) if source else Properties()
    reason: RejectionReason | None = "several" if is_several else None
    return Digit(centre_in_frame(digit), reason, properties, loses_dots=bool(dots) and not is_dotted)


def _on_black(page: Grey) -> Ink:
    """Return the page as bright ink on black paper. The paper has the shade of the border."""
    paper = shade_of_border(page)
    return page - paper if paper < (BLACK + WHITE) / 2 else paper - page
