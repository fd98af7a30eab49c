"""Decode a body of ``/predict`` to images. It is a picture, a form with pictures, raw pixels, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
import numpy as np
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException

from serving.api.context import AnyRequest, RequestContext, context_of, read_body
from serving.contract import IMAGE_SIZE, Images
from serving.errors import InputError, InputTooLargeError, UnsupportedInputError
from serving.models.model import Reasons

PIXELS_PER_IMAGE = IMAGE_SIZE * IMAGE_SIZE

HOW_TO_SEND = (
    "send a picture (image/png, image/jpeg, ...), several pictures (multipart/form-data), raw pixels "
    '(application/octet-stream, 784 bytes per image) or JSON ({"images": [[[0..255, 28 times], 28 times], ...]})'
)

JSON_IMAGE_RULE = "an image is a list of 28 rows of 28 integers in 0..255"

JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a body that is not the JSON it expects."""


class JsonImages(msgspec.Struct):
    """A JSON body. The images stay JSON text at first, so that they can be decoded one after the other."""

    images: list[msgspec.Raw]


_Row = Annotated[list[int], msgspec.Meta(min_length=IMAGE_SIZE, max_length=IMAGE_SIZE)]
_JsonImage = Annotated[list[_Row], msgspec.Meta(min_length=IMAGE_SIZE, max_length=IMAGE_SIZE)]

_decode_images = msgspec.json.Decoder(JsonImages).decode
_decode_image = msgspec.json.Decoder(_JsonImage).decode


async def read_images(request: AnyRequest, timeout: object) -> tuple[Images, Reasons]:
    """Return the images in the body of ``request``, and the reasons why pictures in it do not show one digit.

    The images are uint8 ``[N, 28, 28]``. A large body is decoded on a thread.

    Args:
        timeout: the caller's timeout, as :meth:`RequestContext.deadline` takes it.

    Raises:
        DeadlineExceededError: the deadline passed before all pictures were decoded.
        UnsupportedInputError: the body has another Content-Type, or it is compressed.
        InputTooLargeError: the body, a picture or the number of images is over its limit.
        InputError: the body is not what its Content-Type says.
        OverloadedError: too many other predictions are in flight.
    """
    context = context_of(request)
    settings, threads = context.service.settings, context.service.pipeline.threads
    encoding = context.header(b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise UnsupportedInputError(f"Content-Encoding {encoding!r}: not supported here; send the body uncompressed")
    kind = (context.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        pictures = await pictures_in_form(request)
        context.check_admitted()
        return await decode_pictures(pictures, context, timeout)
    body = await read_body(request, settings.max_body)
    context.check_admitted()
    if kind.startswith("image/"):
        return await decode_pictures([body], context, timeout)
    if kind == "application/octet-stream":
        return decode_raw_pixels(body, settings.max_batch), {}
    if kind == "application/json":
        return await threads.run_by_size(lambda: decode_json(body, settings.max_batch), len(body)), {}
    raise UnsupportedInputError(f"Content-Type {kind or 'missing'!r}: not supported; {HOW_TO_SEND}")


async def pictures_in_form(request: AnyRequest) -> list[bytes]:
    """Return the contents of the files in a form. Other fields are ignored."""
    try:
        form = await request.form()
    except HTTPException:
        raise
    except Exception as error:  # For a malformed body, the parser of forms raises errors of several libraries.
        raise InputError(f"the form cannot be parsed: {error}") from error
    return [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]


async def decode_pictures(
    pictures: Sequence[bytes], context: RequestContext, timeout: object
) -> tuple[Images, Reasons]:
    """Return one image per picture file, and by its index the reason why a picture does not show one digit, or None."""
    check_count(len(pictures), context.service.settings.max_batch)
    # The time counts from the arrival of the whole body, so the deadline is known only now.
    digits = await context.service.decoder.decode(pictures, context.deadline(timeout))
    return np.stack([digit.image for digit in digits]), {i: digit.reason for i, digit in enumerate(digits)}


def decode_raw_pixels(body: bytes, max_batch: int) -> Images:
    """Return the images in a body of 784 bytes per image."""
    count, rest = divmod(len(body), PIXELS_PER_IMAGE)
    if rest:
        raise InputError(f"the body has {len(body)} bytes: must be a multiple of {PIXELS_PER_IMAGE} (28x28) per image")
    check_count(count, max_batch)
    return np.frombuffer(body, np.uint8).reshape(count, IMAGE_SIZE, IMAGE_SIZE)


def decode_json(body: bytes, max_batch: int) -> Images:
    """Return the images in a body ``{"images": [image, ...]}``."""
    try:
        images = _decode_images(body).images
    except JSON_ERRORS as error:
        raise InputError(f"the JSON cannot be used: {error}; {HOW_TO_SEND}") from error
    check_count(len(images), max_batch)
    return np.frombuffer(pixels_of(images, "$.images"), np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def pixels_of(images: Iterable[msgspec.Raw], path: str) -> bytes:
    """Return the pixels of images in JSON: each is a list of 28 rows of 28 integers in 0..255.

    The images are decoded one at a time, so that other threads run in between. One call for a whole batch would hold
    the interpreter lock until thousands of images are decoded.

    Args:
        path: where the list of images is in the body, for error messages.

    Raises:
        InputError: an image is not such a list.
    """
    rows: list[bytes] = []
    for index, image in enumerate(images):
        try:
            # bytes() checks the range of the pixels faster than a rule of msgspec would.
            rows += map(bytes, _decode_image(image))
        except JSON_ERRORS as error:
            raise InputError(f"{_with_path(str(error), f'{path}[{index}]')}; {JSON_IMAGE_RULE}") from error
        except (ValueError, OverflowError) as error:
            raise InputError(f"a pixel is out of range - at `{path}[{index}]`; {JSON_IMAGE_RULE}") from error
    return b"".join(rows)


def _with_path(message: str, path: str) -> str:
    """Return msgspec's error message about a part of a body, with the place of that part in the whole body."""
    return message.replace("`$", f"`{path}") if "`$" in message else f"{message} - at `{path}`"


def check_count(count: int, max_batch: int) -> None:
    """Check that a body has 1 to ``max_batch`` images."""
    if count == 0:
        raise InputError(f"the body has no image; {HOW_TO_SEND}")
    if count > max_batch:
        raise InputTooLargeError(f"the body has {count} images: must be at most {max_batch} in one request")
