"""Decode the pictures of a request. The cost of a picture decides where it is decoded.

| pictures | where |
|---|---|
| a small one | at once, on the event loop |
| a moderate one, or several | on a thread, which checks the deadline before each picture |
| a large one, or one with a slow decoder | in a process that is killed at the deadline |

A file of a kilobyte can have millions of pixels, so the cost is estimated from the header of the file and its size.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from serving.contract import SYMBOL, Preparation
from serving.errors import DeadlineExceededError, InputError, InputTooLargeError
from serving.inference.decoder_process import DecoderProcess
from serving.inference.threads import INLINE_BYTES, ThreadPool
from serving.pictures.header import JPEG_SIDE, Header, check_header, read_header
from serving.pictures.mnist_form import Digit
from serving.pictures.number_form import NUMBER_JPEG_SIDE, NumberPage, to_number_page
from serving.pictures.prepare import prepare
from serving.settings import Settings

T = TypeVar("T")

# A picture with up to this many pixels, each counted once per scan, is decoded on the event loop. Decoding then takes
# at most 15 ms and the later steps 10 ms, and usually both take far less than 1 ms.
INLINE_PIXELS = 1 << 17
# A picture beyond one of these numbers is decoded in the process. Other pictures keep a thread for up to 0.2 s.
THREAD_BYTES = 1 << 18
THREAD_PIXELS = 1 << 20
THREAD_DECODED_BYTES = 8_000_000
THREAD_SCANNED_PIXELS = 16 << 20
# The most candidates for digits in all pictures of one request. The network takes 0.3 s for them.
MAX_REQUEST_CANDIDATES = 4096
# Each pixel counts this many times if its decoder is slow. A decoder in Python takes up to 2 microseconds per pixel, a
# complex lossless WebP up to 1.
SLOWER = 32


class Decoder:
    """Decodes pictures for the requests of one worker."""

    def __init__(self, settings: Settings, threads: ThreadPool) -> None:
        self._settings = settings
        self._threads = threads
        self._process = DecoderProcess(settings.max_pixels)

    async def decode(self, pictures: Sequence[bytes], deadline: float, how: Preparation = SYMBOL) -> list[Digit]:
        """Return the digit in each picture file.

        Args:
            pictures: the contents of picture files.
            deadline: in the time of ``time.monotonic``.
            how: how the model wants pictures to be prepared.

        Raises:
            InputTooLargeError: a picture exceeds a limit, or all together do.
            PictureError: a picture is damaged or has another format.
            DeadlineExceededError: the deadline passed before all were decoded.
            OverloadedError: the pictures are large, and there are too many large requests, or they waited for others.
        """
        if len(pictures) == 1 and len(pictures[0]) <= INLINE_BYTES:
            [header] = self._checked_headers(pictures, deadline)
            if _cost(header) <= INLINE_PIXELS:
                return [prepare(pictures[0], how, self._settings.max_pixels)]
        with self._threads.place():
            digits = await self._threads.do(lambda: self._decode_on_thread(pictures, deadline, how))
            large = [index for index in range(len(pictures)) if index not in digits]
            if large:
                async with self._process.turn(deadline) as turn:
                    for index in large:
                        with _numbered(index, pictures):
                            digits[index] = await turn.decode(pictures[index], how)
            return [digits[index] for index in range(len(pictures))]

    async def read_numbers(self, pictures: Sequence[bytes], deadline: float) -> list[NumberPage]:
        """Return the lines of digits in each picture file.

        Raises: as :meth:`decode`; InputTooLargeError also if the pictures have too many candidates together.
        """
        with self._threads.place():
            headers = await self._threads.do(lambda: self._checked_headers(pictures, deadline, NUMBER_JPEG_SIDE))
            large = [index for index, header in enumerate(headers) if _is_large(pictures[index], header)]
            found = _Pages()
            for index in _until(deadline, sorted({*range(len(pictures))} - {*large})):
                with _numbered(index, pictures):
                    page = await self._read_on_thread(pictures[index])
                found.add(index, page)
            if large:
                async with self._process.turn(deadline) as turn:
                    for index in large:
                        with _numbered(index, pictures):
                            page = await turn.read_numbers(pictures[index])
                        found.add(index, page)
            return found.in_order()

    async def read_pages(self, pages: npt.NDArray[np.uint8], deadline: float) -> list[NumberPage]:
        """Return the lines of digits in each page, uint8 ``[N, H, W]``, as of a picture with these grey values.

        Raises: as :meth:`read_numbers`.
        """
        with self._threads.place():
            found = _Pages()
            if pages[0].size > THREAD_PIXELS:
                async with self._process.turn(deadline) as turn:
                    for index, page in enumerate(pages):
                        found.add(index, await turn.read_numbers(_picture_of(page)))
            else:
                for index, page in _until(deadline, enumerate(pages)):
                    found.add(index, await self._read_on_thread(_picture_of(page)))
            return found.in_order()

    async def _read_on_thread(self, picture: bytes) -> NumberPage:
        return await self._threads.do(partial(to_number_page, picture, self._settings.max_pixels))

    async def close(self) -> None:
        """End the process that decodes large pictures."""
        await self._process.close()

    def _decode_on_thread(self, pictures: Sequence[bytes], deadline: float, how: Preparation) -> dict[int, Digit]:
        """Return the digits by the index of the picture, without the pictures that belong in the process."""
        digits: dict[int, Digit] = {}
        for index, header in enumerate(self._checked_headers(pictures, deadline)):
            _check_deadline(deadline)
            if not _is_large(pictures[index], header):
                with _numbered(index, pictures):
                    digits[index] = prepare(pictures[index], how, self._settings.max_pixels)
        return digits

    def _checked_headers(self, pictures: Sequence[bytes], deadline: float, jpeg_side: int = JPEG_SIDE) -> list[Header]:
        headers, pixels, limit = [], 0, self._settings.max_request_pixels
        for index, picture in enumerate(pictures):
            _check_deadline(deadline)
            with _numbered(index, pictures):
                header = read_header(picture, jpeg_side)
                check_header(header, self._settings.max_pixels)
            headers.append(header)
            pixels += header.pixels
        if pixels > limit:
            raise InputTooLargeError(
                f"the pictures have {pixels} pixels together: must be at most {limit} in one request; "
                "send fewer or smaller pictures"
            )
        return headers


class _Pages:
    """The pages of a request, which may have ``MAX_REQUEST_CANDIDATES`` together."""

    def __init__(self) -> None:
        self._pages: dict[int, NumberPage] = {}
        self._candidates = 0

    def add(self, index: int, page: NumberPage) -> None:
        """Add the page of a picture.

        Raises:
            InputTooLargeError: the pages have too many candidates together.
        """
        self._pages[index] = page
        self._candidates += len(page.images)
        if self._candidates > MAX_REQUEST_CANDIDATES:
            raise InputTooLargeError(
                f"the pictures have more than {MAX_REQUEST_CANDIDATES} groups of strokes that may be digits; "
                "send fewer pictures in one request"
            )

    def in_order(self) -> list[NumberPage]:
        """Return the pages in the order of their pictures."""
        return [self._pages[index] for index in sorted(self._pages)]


def _picture_of(page: npt.NDArray[np.uint8]) -> bytes:
    """Return a page, uint8 ``[H, W]``, as a picture file (PGM)."""
    height, width = page.shape
    return b"P5 %d %d 255\n%b" % (width, height, page.tobytes())


def _until(deadline: float, items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and check the deadline before each."""
    for item in items:
        _check_deadline(deadline)
        yield item


@contextmanager
def _numbered(index: int, pictures: Sequence[bytes]) -> Iterator[None]:
    """Say in the message of an InputError which of several pictures it is about."""
    try:
        yield
    except InputError as error:
        if len(pictures) == 1:
            raise
        raise type(error)(f"picture {index + 1} of {len(pictures)}: {error}") from error


def _check_deadline(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise DeadlineExceededError


def _cost(header: Header) -> int:
    """Return the cost of decoding a picture: the number of pixels of a plain picture that takes as long."""
    return header.pixels * header.scans * (SLOWER if header.is_slow else 1)


def _is_large(picture: bytes, header: Header) -> bool:
    return (
        len(picture) > THREAD_BYTES
        or header.pixels > THREAD_PIXELS
        or header.pixels * header.bytes_per_pixel > THREAD_DECODED_BYTES
        or _cost(header) > (THREAD_SCANNED_PIXELS if header.scans > 1 else THREAD_PIXELS)
    )
