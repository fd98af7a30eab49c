"""Bring every sample to 28x28, with the very code that the service uses.

This is the only file of ``training`` that imports ``serving``, and it passes on what other files need of it. A second
version of this code would differ from the first one sooner or later, and the network would then be given other images
than it has learnt from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from serving.errors import InputError
from serving.pictures import prepare as pictures
from serving.pictures.pixels import to_bytes
from serving.pictures.signatures import MAX_FILE_BYTES, conversion_advice, is_picture_name
from training.data.own.samples import Sample
from training.reports import Report, no_report

__all__ = ["MAX_FILE_BYTES", "Prepared", "code_digest", "is_picture_name", "prepare_all", "to_bytes"]

Image = npt.NDArray[np.uint8]
# How many pictures are prepared between two reports.
REPORT_EVERY = 64


class Prepared(NamedTuple):
    """A sample as the network sees it."""

    sample: Sample
    digest: str
    """SHA-256 of the file."""
    image: Image | None
    """Uint8 ``[28, 28]``, or None if the picture cannot be read."""
    error: str = ""
    """Why it cannot be read."""
    is_foreign: bool = False
    """Whether it is a file of a known format that is not read, so that it must be converted."""
    is_several: bool = False
    """Whether the ink is in several pieces, each of them large enough for a symbol of its own."""
    loses_dots: bool = False
    """Whether specks were left out that may be dots of the symbol."""

    @property
    def is_empty(self) -> bool:
        """Whether the picture can be read, and no ink is left of it."""
        return self.image is not None and not self.image.any()


def prepare_all(samples: Sequence[Sample], how: str, report: Report = no_report) -> list[Prepared]:
    """Return the samples as images, in their order. A picture that cannot be read has no image.

    Args:
        how: ``symbol``, ``dotted`` or ``as-is``.
        report: called now and then with the share that is done, 0..1.
    """
    done: list[Prepared] = []
    # Pillow and NumPy release the lock of Python while they decode and scale.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(samples), REPORT_EVERY):
            report(start / len(samples))
            done += pool.map(lambda sample: _prepared(sample, how), samples[start : start + REPORT_EVERY])
    report(1.0)
    return done


def _prepared(sample: Sample, how: str) -> Prepared:
    digest = ""
    try:
        content = sample.read()
        digest = hashlib.sha256(content).hexdigest()
        found = pictures.prepare(content, cast(Literal["symbol", "dotted", "as-is"], how))
    except OSError as error:
        return Prepared(sample, digest, None, error.strerror or str(error))
    except InputError as error:
        return Prepared(sample, digest, None, str(error), is_foreign=bool(conversion_advice(content)))
    except MemoryError:
        return Prepared(sample, digest, None, "the picture takes too much memory")
    return Prepared(sample, digest, found.image, is_several=found.reason == "several", loses_dots=found.loses_dots)


def code_digest() -> str:
    """Return the digest of the code that prepares pictures. Other code may make other images."""
    files = sorted(Path(pictures.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()
