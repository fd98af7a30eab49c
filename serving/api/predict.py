"""POST /predict: decode -> classify -> encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from litestar import post
from litestar.datastructures import UploadFile
from litestar.exceptions import ClientException, HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.types import ASGIApp

from serving.api.errors import TooLarge, UnsupportedMediaType, documented
from serving.classifier import IMAGE_SIZE, Answers, Images
from serving.http import Answer, AnyRequest, header, read_body
from serving.images import PictureError, PictureTooLargeError, decode
from serving.inference import Timing, check_admitted, deadline_of, infer
from serving.keys import check_prediction_key
from serving.repository import Model, Reasons
from serving.service import INLINE_BYTES, Service, service_of
from serving.settings import Settings

PIXELS = IMAGE_SIZE * IMAGE_SIZE


class Prediction(msgspec.Struct):
    """What one image was taken for."""

    digit: int
    """Index of the most probable class; of a digit, the digit itself."""
    label: str
    """Name of that class."""
    confidence: float
    """Its probability."""
    probabilities: list[float]
    """Of every class in order."""
    accepted: bool
    """Whether it is one digit, as far as can be told; the rest is to be taken with care if not."""
    reason: Literal["empty", "several", "no digit"] | None
    """Why it was not accepted."""


class ModelVersion(msgspec.Struct):
    """Which model answered."""

    name: str
    version: str


class Predictions(msgspec.Struct):
    """A prediction for each image, in order."""

    model: ModelVersion
    predictions: list[Prediction]


Pixel = Annotated[int, msgspec.Meta(ge=0, le=255)]
Row = Annotated[list[Pixel], msgspec.Meta(min_length=IMAGE_SIZE, max_length=IMAGE_SIZE)]
Square = Annotated[list[Row], msgspec.Meta(min_length=IMAGE_SIZE, max_length=IMAGE_SIZE)]


class JsonImages(msgspec.Struct):
    """Images as nested lists of pixels 0..255, ink bright on dark."""

    images: Annotated[list[Square], msgspec.Meta(min_length=1)]


class AnyImages(msgspec.Struct):
    """The same without its rules."""

    images: list[list[list[int]]]


_decode_fast = msgspec.json.Decoder(AnyImages).decode
_decode_strictly = msgspec.json.Decoder(JsonImages).decode
_encode = msgspec.json.Encoder().encode


TAKEN = (
    "send a picture (image/png, image/jpeg, ...), several (multipart/form-data), raw pixels "
    '(application/octet-stream, 784 bytes an image) or JSON ({"images": [[[0..255, 28 times], 28 times], ...]})'
)


def _binary(description: str) -> OpenAPIMediaType:
    return OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description=description))


@dataclass
class PredictOperation(Operation):
    """The four kinds of body and the query, which the handler reads by itself."""

    def __post_init__(self) -> None:
        text, number = Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.NUMBER, minimum=0)
        self.parameters = [
            Parameter(
                "model", "query", schema=text, description="Name of the model; the service's default without it."
            ),
            Parameter("version", "query", schema=text, description="Its version; the newest without it."),
            Parameter("timeout", "query", schema=number, description="Microseconds after which an answer is no use."),
            Parameter("X-Request-Deadline", "header", schema=number, description="The same, in seconds since 1970."),
        ]
        square = Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=255)
        for _ in range(2):
            square = Schema(type=OpenAPIType.ARRAY, items=square, min_items=IMAGE_SIZE, max_items=IMAGE_SIZE)
        images = Schema(type=OpenAPIType.ARRAY, items=square, min_items=1)
        files = Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY))
        self.request_body = RequestBody(
            required=True,
            content={
                "image/png": _binary("One picture of a digit."),
                "image/jpeg": _binary("One picture of a digit."),
                "multipart/form-data": OpenAPIMediaType(
                    Schema(type=OpenAPIType.OBJECT, properties={"files": files}, required=["files"])
                ),
                "application/octet-stream": _binary("784 bytes an image, rows from the top, ink bright on dark."),
                "application/json": OpenAPIMediaType(
                    Schema(type=OpenAPIType.OBJECT, properties={"images": images}, required=["images"])
                ),
            },
        )


@post(
    "/predict",
    status_code=200,
    operation_id="predict",
    operation_class=PredictOperation,
    summary="Recognise the digits in pictures or pixels",
    tags=["prediction"],
    responses={
        200: ResponseSpec(Predictions, description="A prediction for each image, in order.", generate_examples=False),
        **documented(400, 401, 404, 413, 415, 429, 503, 504),
    },
)
async def predict(request: AnyRequest) -> ASGIApp:
    """Answer with a prediction for each image in the body."""
    timing = Timing()
    check_prediction_key(request)
    service = service_of(request)
    query = request.query_params if request.scope["query_string"] else {}
    model = service.repository.get(query.get("model", service.settings.model), query.get("version"))
    deadline = deadline_of(request, query.get("timeout"))
    images, reasons = await decode_request(request, service)
    timing.end("decode")
    body = await infer(
        request, model, images, timing, deadline, lambda answers: encode(model, images, reasons, answers)
    )
    return Answer(body, [(b"content-type", b"application/json"), timing.header()])


async def decode_request(request: AnyRequest, service: Service) -> tuple[Images, Reasons]:
    """The images in a body of any of the four kinds, uint8 ``[N, 28, 28]``; of pictures, why they are no digit."""
    settings = service.settings
    encoding = header(request, b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {encoding!r} is not taken; send the body uncompressed")
    kind = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        pictures = await pictures_in(request)
        check_admitted(request)
        large = sum(map(len, pictures)) > INLINE_BYTES
        return await service.do(lambda: decode_pictures(pictures, settings), large=large)
    body = await read_body(request, settings.max_body)
    check_admitted(request)
    large = len(body) > INLINE_BYTES
    if kind.startswith("image/"):
        return await service.do(lambda: decode_pictures([body], settings), large=large)
    if kind == "application/octet-stream":
        return decode_pixels(body, settings.max_batch), {}
    if kind == "application/json":
        return await service.do(lambda: decode_json(body, settings.max_batch), large=large), {}
    raise UnsupportedMediaType(f"Content-Type {kind or 'missing'!r} is not taken; {TAKEN}")


async def pictures_in(request: AnyRequest) -> list[bytes]:
    """The files of a form, in order."""
    try:
        form = await request.form()
    except HTTPException:
        raise
    except Exception as error:  # the form parser raises errors of its own on malformed bodies
        raise ClientException(f"the form cannot be read: {error}") from error
    return [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]


def decode_pictures(pictures: Sequence[bytes], settings: Settings) -> tuple[Images, Reasons]:
    """One image a picture."""
    check_count(len(pictures), settings.max_batch)
    try:
        digits = [decode(picture, settings.max_pixels) for picture in pictures]
    except PictureTooLargeError as error:
        raise TooLarge(str(error)) from error
    except PictureError as error:
        raise ClientException(str(error)) from error
    return np.stack([digit.image for digit in digits]), {i: digit.reason for i, digit in enumerate(digits)}


def decode_pixels(body: bytes, max_batch: int) -> Images:
    """Raw pixels, 784 bytes an image."""
    count, rest = divmod(len(body), PIXELS)
    if rest:
        raise ClientException(f"the body has {len(body)} bytes, not a multiple of {PIXELS} (28x28) bytes an image")
    check_count(count, max_batch)
    return np.frombuffer(body, np.uint8).reshape(count, IMAGE_SIZE, IMAGE_SIZE)


def decode_json(body: bytes, max_batch: int) -> Images:
    """``{"images": [...]}``."""
    try:
        images = _decode_fast(body).images
        pixels = b"".join([bytes(row) for image in images for row in image])
        right = {len(row) for image in images for row in image} | {len(image) for image in images} == {IMAGE_SIZE}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
        right = False
    if not right:
        # Only now with every rule, which takes as long again, to say where it is wrong.
        try:
            _decode_strictly(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ClientException(f"the JSON is not as it should be: {error}; {TAKEN}") from error
        raise AssertionError("the two readings of the JSON differ")
    check_count(len(images), max_batch)
    return np.frombuffer(pixels, np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def check_count(count: int, max_batch: int) -> None:
    """Refuse an empty batch and one over the limit."""
    if count == 0:
        raise ClientException(f"the body holds no image; {TAKEN}")
    if count > max_batch:
        raise TooLarge(f"the body holds {count} images; at most {max_batch} are taken in one request")


def encode(model: Model, images: Images, reasons: Reasons, answers: Answers) -> bytes:
    """The answer as JSON."""
    digits = answers.probabilities.argmax(axis=1).tolist()
    judged = model.judge(images, answers, reasons)
    predictions = [
        Prediction(digit, model.labels[digit], row[digit], row, reason is None, reason)
        for digit, row, reason in zip(digits, answers.probabilities.tolist(), judged, strict=True)
    ]
    return _encode(Predictions(ModelVersion(model.name, model.version), predictions))
