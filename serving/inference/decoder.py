"""Decode the pictures of a request. The cost of a picture decides where it is decoded.

| pictures | where |
|---|---|
| a small one | at once, on the event loop |
| a moderate one, or several | on a thread, one by one; it checks the deadline before each and inside pages of numbers |
| a large one, or one with a slow decoder | in a process that is killed at the deadline |

A file of a kilobyte can have millions of pixels, so the cost is estimated from the header of the file and its size. A
small picture that turns out to have thousands of pieces of ink goes to a thread, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from serving.contract import SYMBOL, Preparation
from serving.errors import InputError, InputTooLargeError
from serving.inference.decoder_process import DecoderProcess, too_late
from serving.inference.threads import INLINE_BYTES, ThreadPool, turn
from serving.pictures.header import JPEG_SIDE, Header, check_header, read_header
from serving.pictures.mnist_form import Digit
from serving.pictures.number_form import NUMBER_JPEG_SIDE, NumberPage, to_number_page
from serving.pictures.pieces import TooManyRunsError, at_most_runs
from serving.pictures.prepare import prepare
from serving.settings import Settings

T = TypeVar("T")

# A picture with up to this many pixels, each counted once per scan, is decoded on the event loop. Decoding then takes
# at most 15 ms and the later steps 10 ms, and usually both take far less than 1 ms.
INLINE_PIXELS = 1 << 17
# But if its ink has more runs than this, it is decoded on a thread after all. That is found out within 15 ms. A page
# with one digit has 50 to 1500, each counted once per search for pieces. A picture of 2 kB may have 20,000.
INLINE_RUNS = 2000
# A picture beyond one of these numbers is decoded in the decoder process. Other pictures keep a thread busy for up to
# 0.2 s, and the worst known pages of numbers for 1.2 s, in which the deadline is checked at least every 0.4 s.
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
        self._several = asyncio.Lock()

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
        watch = _Watch(deadline)
        if len(pictures) == 1 and len(pictures[0]) <= INLINE_BYTES:
            [header] = self._checked_headers(pictures, watch)
            if _cost(header) <= INLINE_PIXELS:
                with contextlib.suppress(TooManyRunsError), at_most_runs(INLINE_RUNS):
                    return [prepare(pictures[0], how, self._settings.max_pixels)]
        with self._threads.place():
            digits = await self._threads.do(lambda: self._decode_on_thread(pictures, watch, how))
            large = [index for index in range(len(pictures)) if index not in digits]
            if large:
                async with self._process.session(deadline) as session:
                    for index in large:
                        with _numbered(index, len(pictures)):
                            digits[index] = await session.decode(pictures[index], how)
            return [digits[index] for index in range(len(pictures))]

    async def read_numbers(self, pictures: Sequence[bytes], deadline: float) -> list[NumberPage]:
        """Return the lines of digits in each picture file.

        Raises: as :meth:`decode`; InputTooLargeError also if the pictures have too many candidates together.
        """
        with self._threads.place():
            watch = _Watch(deadline)
            headers = await self._threads.do(lambda: self._checked_headers(pictures, watch, NUMBER_JPEG_SIDE))
            small, large = list[tuple[int, bytes]](), list[tuple[int, bytes]]()
            for index, (picture, header) in enumerate(zip(pictures, headers, strict=True)):
                (large if _is_large(picture, header) else small).append((index, picture))
            found = _Pages()
            if small:
                await self._read_on_thread(small, len(pictures), watch, found)
            if large:
                async with self._process.session(deadline) as session:
                    for index, picture in large:
                        with _numbered(index, len(pictures)):
                            page = await session.read_numbers(picture)
                        found.add(index, page)
            return found.in_order()

    async def read_pages(self, pages: npt.NDArray[np.uint8], deadline: float) -> list[NumberPage]:
        """Return the lines of digits in each page, uint8 ``[N, H, W]``, as of a picture with these grey values.

        Raises: as :meth:`read_numbers`.
        """
        with self._threads.place():
            watch, found = _Watch(deadline), _Pages()
            if pages[0].size > THREAD_PIXELS:
                async with self._process.session(deadline) as session:
                    for index, page in enumerate(pages):
                        found.add(index, await session.read_numbers(_picture_of(page)))
            else:
                pictures = ((index, _picture_of(page)) for index, page in enumerate(pages))
                await self._read_on_thread(pictures, len(pages), watch, found)
            return found.in_order()

    async def close(self) -> None:
        """End the process that decodes large pictures."""
        await self._process.close()

    def _decode_on_thread(self, pictures: Sequence[bytes], watch: _Watch, how: Preparation) -> dict[int, Digit]:
        """Return the digits by the index of the picture, without the pictures that belong in the process."""
        digits: dict[int, Digit] = {}
        for index, header in watch.each(enumerate(self._checked_headers(pictures, watch))):
            if not _is_large(pictures[index], header):
                with _numbered(index, len(pictures)):
                    digits[index] = prepare(pictures[index], how, self._settings.max_pixels)
        return digits

    async def _read_on_thread(
        self, pictures: Iterable[tuple[int, bytes]], count: int, watch: _Watch, found: _Pages
    ) -> None:
        """Read pictures of a request, given with their index, into ``found``. The request has ``count`` pictures.

        Requests with several pictures take turns. If their pictures took turns instead, or shared the interpreter of
        two threads, all of the requests could pass their deadlines.
        """

        def read() -> None:
            for index, picture in watch.each(pictures):
                with _numbered(index, count):
                    page = to_number_page(picture, self._settings.max_pixels, watch.check)
                found.add(index, page)

        async with watch.turn(self._several) if count > 1 else nullcontext():
            await self._threads.do(read)

    def _checked_headers(self, pictures: Sequence[bytes], watch: _Watch, jpeg_side: int = JPEG_SIDE) -> list[Header]:
        headers, pixels, limit = [], 0, self._settings.max_request_pixels
        for index, picture in watch.each(enumerate(pictures)):
            with _numbered(index, len(pictures)):
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


class _Watch:
    """Ends the work for a request when its deadline has passed.

    Args:
        deadline: in the time of ``time.monotonic``.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._seconds = deadline - time.monotonic()
        self._before = 0.0  # The time of the thread at which its work began.

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items to one thread, and check the deadline before each.

        Raises: as :meth:`check`.
        """
        self._before = time.thread_time()
        for item in items:
            self.check()
            yield item

    def check(self) -> None:
        """Check the deadline, on the thread to which :meth:`each` yields.

        Raises:
            DeadlineExceededError, OverloadedError: it has passed. See :func:`too_late`.
        """
        if time.monotonic() > self._deadline:
            raise too_late(self._seconds, time.thread_time() - self._before)

    def turn(self, lock: asyncio.Lock) -> AbstractAsyncContextManager[None]:
        """Hold ``lock`` inside the ``async with`` statement.

        Raises:
            DeadlineExceededError, OverloadedError: the deadline passes before. See :func:`too_late`.
        """
        return turn(lock, self._deadline, lambda: too_late(self._seconds, 0.0))


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


@contextmanager
def _numbered(index: int, count: int) -> Iterator[None]:
    """Say in the message of an InputError which of ``count`` pictures it is about, if there are several."""
    try:
        yield
    except InputError as error:
        if count == 1:
            raise
        raise type(error)(f"picture {index + 1} of {count}: {error}") from error


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
