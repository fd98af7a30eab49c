"""Read and decode the picture of one input, or say why that is not possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from serving import files
from serving.batch.inputs import STDIN, Input
from serving.errors import InputError
from serving.pictures.signatures import MAX_FILE_BYTES
from serving.settings import Settings

T = TypeVar("T")


def decoded(each: Input, stdin: bytes | None, folder: str, decode: Callable[[bytes, int], T]) -> T | str:
    """Return ``decode(content, max_pixels)``, or the reason why the picture cannot be read.

    Args:
        stdin: the content of standard input, if it is a picture.
        folder: the folder that the names of pictures start from.
    """
    if each.error is not None:
        return each.error
    try:
        content = stdin if each.name == STDIN else None
        if content is None:
            content = files.read(Path(folder, each.name), MAX_FILE_BYTES)
        return decode(content, Settings.max_pixels)
    except OSError as error:
        return error.strerror or str(error)
    # A name with a zero byte is a ValueError.
    except (InputError, ValueError) as error:
        return str(error)
    except MemoryError:
        return "the picture takes too much memory"
