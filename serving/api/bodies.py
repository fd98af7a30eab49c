"""Decode a body of ``/predict`` to images. It is a picture, a form with pictures, raw pixels, or JSON."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import msgspec
import numpy as np

from serving.api.context import AnyRequest, RequestContext, context_of, read_body
from serving.api.forms import files_in_form
from serving.api.json_images import JSON_ERRORS, decode_whole, pixels_of, reason_of
from serving.contract import IMAGE_SIZE, Images, Reasons
from serving.errors import InputError, InputTooLargeError, UnsupportedInputError, quoted
from serving.inference.readings import choose, count_readings
from serving.models.model import Model
from serving.pictures.signatures import conversion_advice, is_picture

PIXELS_PER_IMAGE = IMAGE_SIZE * IMAGE_SIZE

FORM = "multipart/form-data"
HOW_TO_SEND = (
    "send a picture (image/png, image/jpeg, ...), several pictures (multipart/form-data), raw pixels "
    '(application/octet-stream, 784 bytes per image) or JSON ({"images": [[[0..255, 28 times], 28 times], ...]})'
)

CURL_TYPE = "application/x-www-form-urlencoded"
# Content types that programs send when nobody has chosen one: none, curl's own, and that of any bytes.
UNSPECIFIC = ("", CURL_TYPE, "application/octet-stream", "*/*")

# The name of a file, where the file itself should be.
FILE_NAME = re.compile(rb"[^\0\r\n]{1,1000}\.(?:png|jpe?g|gif|bmp|webp|p[bgp]m|tiff?|heic|json|bin)", re.IGNORECASE)
# The beginnings of picture files, and the bytes that `curl -d @FILE` removes from every file.
STRIPPED_PICTURES = (b"\x89PNG\x1a", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"RIFF", b"BM")
REMOVED_BY_CURL = (b"\0", b"\r", b"\n")


class JsonImages(msgspec.Struct):
    """A JSON body. The list of images stays JSON text at first."""

    images: msgspec.Raw


_decode_body = msgspec.json.Decoder(JsonImages).decode


async def read_images(request: AnyRequest, timeout: object, model: Model) -> tuple[Images, Reasons]:
    """Return the images in the body of ``request``, and the reasons why pictures in it do not show one digit.

    The images are uint8 ``[N, 28, 28]``. A large body is decoded on a thread.

    Args:
        timeout: the client's timeout, as :meth:`RequestContext.deadline` takes it.
        model: chooses between several readings of a picture.

    Raises:
        DeadlineExceededError: the deadline passed before all pictures were decoded.
        UnsupportedInputError: the body has another Content-Type, or it is compressed.
        InputTooLargeError: the body, a picture or the number of images is over its limit.
        InputError: the body is not what its Content-Type says.
        OverloadedError: too many other predictions are in flight.
    """
    context = context_of(request)
    settings, threads = context.service.settings, context.service.pipeline.threads
    kind, body = await _read(request)
    if _holds_pictures(kind, body):
        pictures = await pictures_in(context, kind, body)
        del body  # The files of a form are copies, and decoding them takes long.
        return await decode_pictures(pictures, context, timeout, model)
    if kind == "application/octet-stream":
        return decode_raw_pixels(body, settings.max_batch), {}
    if kind == "application/json":
        return await threads.run_by_size(lambda: decode_json(body, settings.max_batch), len(body)), {}
    with_curl = "; with curl, add -H 'content-type: TYPE' and --data-binary @FILE" if kind == CURL_TYPE else ""
    raise unsupported_type(kind, HOW_TO_SEND + with_curl)


async def read_pictures(request: AnyRequest) -> list[bytes]:
    """Return the picture files in the body of ``request``: one, or those in a form.

    Raises: as :func:`read_images`.
    """
    context = context_of(request)
    kind, body = await _read(request)
    if not _holds_pictures(kind, body):
        way_out = "send a picture (image/png, image/jpeg, ...) or several pictures (multipart/form-data)"
        raise unsupported_type(kind, f"mode=number reads pictures only; {way_out}")
    pictures = await pictures_in(context, kind, body)
    check_count(len(pictures), context.service.settings.max_batch)
    return pictures


def unsupported_type(kind: str, way_out: str) -> UnsupportedInputError:
    """Return the error for a body of this media type, which is empty if the client has named none."""
    problem = f"Content-Type {quoted(kind)}: not supported here" if kind else "Content-Type: is missing"
    return UnsupportedInputError(f"{problem}; {way_out}")


def _holds_pictures(kind: str, body: bytes) -> bool:
    # A format that is not read is named where pictures are decoded, whatever the client calls it.
    return (
        kind == FORM
        or kind.startswith("image/")
        or (kind in UNSPECIFIC and is_picture(body))
        or bool(conversion_advice(body))
    )


async def _read(request: AnyRequest) -> tuple[str, bytes]:
    """Return the media type of the body, without its parameters, and the body."""
    context = context_of(request)
    if encoding := context.encoding():
        raise UnsupportedInputError(
            f"Content-Encoding {quoted(encoding)}: not supported here; send the body uncompressed"
        )
    kind = context.media_type()
    body = await read_body(request, context.service.settings.max_body)
    context.check_admitted()
    if not body:
        raise InputError(f"the body is empty; {HOW_TO_SEND}")
    is_raw = kind == "application/octet-stream" and len(body) % PIXELS_PER_IMAGE == 0
    if kind != FORM and not is_raw:
        _check_curl(body)
    return kind, body


def _check_curl(body: bytes) -> None:
    """Check that the body is neither the name of a file nor a file from which curl has removed bytes.

    Raises:
        InputError: it is one of both; the message gives the right option of curl.
    """
    if FILE_NAME.fullmatch(body):
        name = body.decode(errors="replace")
        raise InputError(f"the body is the name {quoted(name)} and not a file; with curl, write --data-binary @FILE")
    # A regular expression would take 80 ms for a body of 8 MB, and these searches take 1 ms.
    if body.startswith(STRIPPED_PICTURES) and not any(removed in body for removed in REMOVED_BY_CURL):
        raise InputError(
            "the body is a picture without its zero bytes and line breaks, which curl -d removes; "
            "write --data-binary @FILE instead of -d @FILE"
        )


async def pictures_in(context: RequestContext, kind: str, body: bytes) -> list[bytes]:
    """Return the picture files in a body: the files of a form, or the body itself."""
    if kind != FORM:
        return [body]
    settings, threads = context.service.settings, context.service.pipeline.threads
    content_type = context.header(b"content-type") or ""
    read_form = functools.partial(files_in_form, body, content_type, settings.max_batch)
    return await threads.run_by_size(read_form, len(body))


async def decode_pictures(
    pictures: Sequence[bytes], context: RequestContext, timeout: object, model: Model
) -> tuple[Images, Reasons]:
    """Return one image per picture file, and by its index the reason why a picture does not show one digit, or None."""
    check_count(len(pictures), context.service.settings.max_batch)
    # The time counts from the arrival of the whole body, so the deadline is known only now.
    deadline = context.deadline(timeout)
    digits = await context.service.decoder.decode(pictures, deadline, model.bundle.manifest.prepare)
    threads, size = context.service.pipeline.threads, PIXELS_PER_IMAGE * count_readings(digits)
    chosen = await threads.run_by_size(lambda: choose(model, digits, deadline), size)
    reasons = {i: digit.reason for i, digit in enumerate(chosen)}
    if comparison := context.comparison:
        comparison.pictures, comparison.digits, comparison.reasons = pictures, digits, reasons
    return np.stack([digit.image for digit in chosen]), reasons


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
        images = decode_whole(lambda text: bytes(_decode_body(text).images), body)
    except JSON_ERRORS as error:
        raise InputError(f"the JSON cannot be used: {reason_of(error, body)}; {HOW_TO_SEND}") from error
    return decode_raw_pixels(pixels_of(images, "$.images", max_batch), max_batch)


def check_count(count: int, max_batch: int) -> None:
    """Check that a body has 1 to ``max_batch`` images."""
    if count == 0:
        raise InputError(f"the body has no image; {HOW_TO_SEND}")
    if count > max_batch:
        raise InputTooLargeError(
            f"the body has {count} images: must be at most {max_batch}; divide them among several requests"
        )
