"""Measure the time and the memory that pictures of common sizes take before inference, stage by stage. Linux only.

    python -m benchmarks.pictures [--repeat 20] [--save FILE]

A time is the CPU time of one thread, the minimum of the repetitions. Freed memory is kept as in the service: for the
first three pictures as a worker keeps it, and for photos as the process that decodes large pictures does. The memory is
the peak during one picture minus the memory before it.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from PIL import Image

from benchmarks.drawings import Array, encode
from benchmarks.footprint import forget_peak, peak, resident
from benchmarks.report import conditions, save_option, tell
from serving.inference.decoder_process import KEPT_BYTES
from serving.pictures.close_up import find_close_up
from serving.pictures.decode import decode_in_colour
from serving.pictures.mnist_form import digit_on, to_mnist_form
from serving.server.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, settle
from serving.settings import Settings
from training.data.digits import load

T = TypeVar("T")

# Seconds over which the calls of a function are spread at least, because other programs may disturb some of them.
LEAST_SECONDS = 0.3


def drawing(digit: Array) -> bytes:
    """Return a digit as a paint program saves it: 28x28, dark on white, off centre."""
    return encode(255 - np.roll(digit, 2, axis=0))


def canvas(digit: Array, side: int = 280) -> bytes:
    """Return a digit as a web page saves its canvas: black on transparent."""
    opacity = np.asarray(Image.fromarray(digit).resize((side, side)))
    return encode(np.dstack([np.zeros_like(opacity)] * 3 + [opacity]))


def photo(digit: Array, width: int, height: int) -> bytes:
    """Return a photo in colour, lit from one side, with grain."""
    random = np.random.default_rng(0)
    page = np.full((height, width), 215, np.float32) * np.linspace(0.8, 1, width, dtype=np.float32)
    side = height // 2
    ink = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    page[height // 4 : height // 4 + side, width // 3 : width // 3 + side] -= 0.6 * ink
    # The grain of a few rows is repeated, because random numbers for all pixels would take longest of all.
    grain = np.resize(random.normal(0, 3, (97, width)).astype(np.float32), page.shape)
    grey = np.clip(page + grain, 0, 255).astype(np.uint8)
    return encode(np.dstack([grey, grey, grey - grey // 8]), "JPEG", quality=90)


# A canvas with a drawn 7 that Chromium has saved. It is decoded faster than a PNG that Pillow has saved.
CANVAS = Path(__file__).with_name("canvas.png")

PICTURES: dict[str, Callable[[Array], bytes]] = {
    "28x28 PNG": drawing,
    "280x280 PNG, RGBA, of Chromium": lambda _: CANVAS.read_bytes(),
    "280x280 PNG, RGBA, of Pillow": canvas,
    **{
        f"{width}x{height} JPEG": partial(photo, width=width, height=height)
        for width, height in ((640, 480), (1920, 1080), (4000, 3000), (5760, 4320), (8064, 6048))
    },
}


def fastest(function: Callable[[], T], repeat: int) -> tuple[T, float]:
    """Return the result and the shortest time in milliseconds of ``repeat`` calls, or of more if they are short."""
    seconds: list[float] = []
    while len(seconds) < repeat or sum(seconds) < LEAST_SECONDS:
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return result, 1000 * min(seconds)


def in_child(function: Callable[[], object]) -> float:
    """Return the megabytes that a function adds to a copy of this process, which frees and keeps no memory before."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            forget_peak(os.getpid())
            before = resident(os.getpid())
            function()
            os.write(writer, str(peak(os.getpid()) - before).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        text = result.read()
    os.waitpid(child, 0)
    return float(text)


def rows(repeat: int) -> Iterator[str]:
    digit = load("mnist").test.images.numpy()[5]
    most = Settings.max_pixels
    yield "| picture | file | decode | find the ink | bring to 28x28 | all | memory |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, make in PICTURES.items():
        content = make(digit)
        if name.endswith("JPEG"):
            for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
                ctypes.CDLL(None).mallopt(parameter, KEPT_BYTES)
        memory = in_child(partial(to_mnist_form, content, most))
        _, whole = fastest(partial(to_mnist_form, content, most), repeat)
        (page, _), decode = fastest(partial(decode_in_colour, content, most), repeat)
        close_up, find = fastest(partial(find_close_up, page), repeat)
        assert close_up
        _, form = fastest(partial(digit_on, close_up.ink), repeat)
        size = f"{len(content) / 1000:,.1f} kB"
        yield (
            f"| {name} | {size} | {decode:.2f} ms | {find:.2f} ms | {form:.2f} ms | {whole:.2f} ms | {memory:.0f} MB |"
        )


@click.command()
@click.option(
    "--repeat", default=20, show_default=True, type=click.IntRange(min=1), help="Least number of repetitions."
)
@save_option
def main(repeat: int, save: Path | None) -> None:
    """Measure time and memory of each stage of the picture code, and print a table."""
    settle()
    tell([conditions("numpy", "pillow"), "", *rows(repeat)], save)


if __name__ == "__main__":
    main()
