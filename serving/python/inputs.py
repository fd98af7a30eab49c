"""The pictures that a call of predict() is given: paths, bytes, open files, PIL images and arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from serving.batch.decoding import decoded
from serving.batch.inputs import Inputs, shown
from serving.contract import IMAGE_SIZE, Images, Preparation
from serving.errors import InputError, InputTooLargeError, PictureError
from serving.pictures.decode import reason_of
from serving.pictures.mnist_form import Digit
from serving.pictures.number_form import NumberPage, to_number_page
from serving.pictures.pixels import to_bytes
from serving.pictures.prepare import prepare
from serving.pictures.signatures import MAX_FILE_BYTES
from serving.settings import Settings

WHAT = "must be a path, the bytes of a picture file, an open file, a PIL image, or an array"
SHAPES = "must be [28, 28] or [N, 28, 28] for images in MNIST's form, or [H, W], [H, W, 3] or [N, H, W, 3] for pictures"


class SupportsArray(Protocol):
    """An array of NumPy, a tensor of torch, or anything else that NumPy takes for an array."""

    def __array__(self, *arguments: Any, **options: Any) -> Any: ...


class SupportsRead(Protocol):
    """A file that is open for reading bytes, such as ``io.BytesIO``."""

    def read(self, size: int, /) -> bytes: ...


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | SupportsRead | Image.Image | SupportsArray
Pictures = Picture | Iterable[Picture]
Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Reader(Generic[T]):
    """What becomes of a picture."""

    file: Callable[[bytes, int], T]
    """Takes the bytes of a picture file, and the largest number of pixels."""
    image: Callable[[Images], T]
    """Takes an image in MNIST's form."""


def digits_in(pictures: Pictures, how: Preparation) -> Iterator[tuple[str, Digit]]:
    """Yield each picture in the form of the network, with its name.

    Args:
        pictures: one picture, or an iterable of pictures.
        how: how the model wants pictures to be prepared.

    Raises:
        InputError: a picture cannot be read. The message names it.
    """
    return _read(pictures, Reader(partial(_prepare, how=how), Digit))


def pages_in(pictures: Pictures) -> Iterator[tuple[str, NumberPage]]:
    """Yield each picture with the places where it may have digits, and with its name.

    Raises:
        InputError: a picture cannot be read. The message names it.
    """
    return _read(
        pictures,
        Reader(to_number_page, lambda image: to_number_page(_png_of(Image.fromarray(image), ""), Settings.max_pixels)),
    )


def _read(pictures: Pictures, how: Reader[T]) -> Iterator[tuple[str, T]]:
    if _is_picture(pictures):
        yield from _of_one(pictures, "image", how, is_alone=True)
        return
    if not isinstance(pictures, Iterable):
        raise InputError(f"pictures: got {type(pictures).__name__}: {WHAT}, or several of them")
    for i, each in enumerate(pictures):
        yield from _of_one(each, f"image {i}", how, is_alone=False)


def _is_picture(given: Any) -> TypeGuard[Picture]:
    is_content = isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
    return is_content or _is_array(given) or _is_file(given)


def _is_array(given: Any) -> bool:
    """Return whether this is an array of NumPy or of another library, such as a tensor of torch.

    An array of paths, or a column of a table, is a list of pictures.
    """
    kind = getattr(getattr(given, "dtype", None), "kind", "")
    return hasattr(given, "__array__") and not (kind in "OUT" and getattr(given, "ndim", 0) == 1)


def _is_file(given: Any) -> TypeGuard[SupportsRead]:
    return callable(getattr(given, "read", None))


def _of_one(given: Any, name: str, how: Reader[T], *, is_alone: bool) -> Iterator[tuple[str, T]]:
    if isinstance(given, str | os.PathLike):
        yield from _of_path(os.fsdecode(given), how)
    elif isinstance(given, bytes | bytearray | memoryview):
        yield name, _prepared(bytes(given), name, how)
    elif isinstance(given, Image.Image):
        place = shown(os.fsdecode(getattr(given, "filename", "") or name))
        try:
            content = _png_of(given, place)
        except InputError:
            raise
        except Exception as error:  # Pillow reads the file only now, and raises almost any exception on damaged data
            raise PictureError(f"{place}: the picture is damaged: {reason_of(error)}") from error
        yield place, _prepared(content, place, how)
    elif _is_array(given):
        yield from _of_array(_array_of(given, name), name, how, is_alone=is_alone)
    elif _is_file(given):
        yield name, _prepared(_content_of(given, name), name, how)
    else:
        raise InputError(f"{name}: got {type(given).__name__}: {WHAT}")


def _array_of(given: SupportsArray, name: str) -> Array:
    try:
        return np.asarray(given)
    except Exception as error:  # torch has several, for example for a tensor that requires a gradient
        raise InputError(f"{name}: {type(given).__name__} cannot become an array of NumPy: {error}") from error


def _content_of(file: SupportsRead, name: str) -> bytes:
    """Return what is left to read in an open file."""
    kind = type(file).__name__
    try:
        content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise PictureError(f"{name}: {kind} cannot be read: {error}") from error
    if not isinstance(content, bytes):
        raise InputError(f"{name}: {kind} gives {type(content).__name__}: must give bytes; open it with mode 'rb'")
    if not content:
        raise PictureError(f"{name}: {kind} has no bytes left to read; call its seek(0) first")
    if len(content) > MAX_FILE_BYTES:
        raise InputTooLargeError(f"{name}: {kind} has more than {MAX_FILE_BYTES} bytes")
    return content


def _of_path(path: str, how: Reader[T]) -> Iterator[tuple[str, T]]:
    """Yield the picture at a path; for a folder, a pattern or a list of names all of its pictures."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InputError(f"{path!a}: is no path: {error.reason}") from error
    # Path would change names such as ./a.png.
    with Inputs([os.path.expanduser(path)], io.BytesIO()) as inputs:  # noqa: PTH111
        for each in inputs:
            found = decoded(each, None, "", how.file)
            if isinstance(found, str):
                raise PictureError(f"{shown(each.name)}: {found}")
            yield shown(each.name), found


def _of_array(array: Array, name: str, how: Reader[T], *, is_alone: bool) -> Iterator[tuple[str, T]]:
    """Yield the image or picture in an array, or all of them."""
    square = (IMAGE_SIZE, IMAGE_SIZE)
    # torch has the colours before the rows.
    if array.ndim == 4 and array.shape[1:] == (1, *square):
        array = array[:, 0]
    is_one = array.ndim == 2 or (array.ndim == 3 and array.shape[1:] != square and array.shape[2] in (1, 2, 3, 4))
    stack = array[np.newaxis] if is_one else array
    if stack.ndim == 4 and stack.shape[3] == 1:
        stack = stack[..., 0]
    is_colour = stack.ndim == 4 and stack.shape[3] in (2, 3, 4)
    if not (stack.ndim == 3 or is_colour) or 0 in stack.shape[1:]:
        raise InputError(f"{name}: has the shape {list(array.shape)}: {SHAPES}")
    for i, pixels in enumerate(to_bytes(stack, name)):
        each = name if is_one else f"image {i}" if is_alone else f"{name}[{i}]"
        if pixels.shape == square:
            yield each, how.image(pixels)
        else:
            yield each, _prepared(_png_of(Image.fromarray(pixels), each), each, how)


def _png_of(picture: Image.Image, name: str) -> bytes:
    """Return a picture as a file, so that it goes the same way as a picture that is sent to the service."""
    upright = _upright(picture)
    if upright.mode == "F":
        upright = Image.fromarray(to_bytes(np.asarray(upright), name))
    elif upright.mode.startswith("I"):
        # PNG has at most 16 bits.
        upright = Image.fromarray(np.asarray(upright).clip(0, 65535).astype(np.uint16))
    elif upright.mode == "La":  # Pillow converts it only to this.
        upright = upright.convert("LA")
    elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned upright. As in a file, damaged camera data turns nothing."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Pillow raises almost any exception on damaged camera data
        return picture


def _prepared(content: bytes, name: str, how: Reader[T]) -> T:
    try:
        return how.file(content, Settings.max_pixels)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


def _prepare(content: bytes, max_pixels: int, how: Preparation) -> Digit:
    return prepare(content, how, max_pixels)
