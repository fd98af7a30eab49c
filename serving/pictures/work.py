"""Limit the work on a picture of numbers.

A file of a few kilobytes can hold thousands of groups of strokes, and lines as high as the page that overlap. The work
on them is counted before it is done.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.errors import InputTooLargeError
from serving.pictures.page_ink import LONGEST

# The most pixels of all lines of a picture together: twice the largest page. Lines of digits have less than one page,
# but an outline makes each line that it reaches as high as itself.
MAX_LINE_PIXELS = 2 * LONGEST * LONGEST
# The most parts of all lines of a picture: what lies between two cuts. A page of 200 digits has about 400.
MAX_PARTS = 4096
# The most candidates of a picture. A page of 200 digits that do not touch has about 600.
MAX_CANDIDATES = 2048
# The most pixels of all candidates together. In rows of large digits that touch, MAX_CANDIDATES have about 4,000,000.
MAX_CANDIDATE_PIXELS = 6 << 20


class Work:
    """The work on one picture.

    Args:
        check: is called before each line and each candidate. It ends the work by an exception, as at a deadline.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._line_pixels = self._parts = self._candidates = self._candidate_pixels = 0

    def add_line(self, pixels: int) -> None:
        """Count a line by the pixels of the box around it.

        Raises:
            InputTooLargeError: the lines have too many pixels together.
        """
        self._check()
        self._line_pixels += pixels
        _at_most(MAX_LINE_PIXELS, self._line_pixels, "pixels in the boxes around its lines")

    def add_parts(self, count: int) -> None:
        """Count the parts of a line.

        Raises:
            InputTooLargeError: the lines have too many parts together.
        """
        self._parts += count
        _at_most(MAX_PARTS, self._parts, "strokes and dots in its lines")

    def add_candidate(self, pixels: int) -> None:
        """Count a candidate by the pixels of the box around it.

        Raises:
            InputTooLargeError: there are too many candidates, or they have too many pixels together.
        """
        self._check()
        self._candidates += 1
        self._candidate_pixels += pixels
        _at_most(MAX_CANDIDATES, self._candidates, "groups of strokes that may be digits")
        _at_most(MAX_CANDIDATE_PIXELS, self._candidate_pixels, "pixels in groups of strokes that may be digits")


def _at_most(limit: int, count: int, things: str) -> None:
    if count > limit:
        raise InputTooLargeError(f"the picture has more than {limit} {things}; send a part of the picture")
