"""POST /predict: decode -> classify -> encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.types import ASGIApp
from msgspec import UNSET, UnsetType

from serving.api.auth import check_prediction_key
from serving.api.http import AnyRequest, Response, header, prediction, read_body
from serving.api.problems import documented
from serving.errors import InputError, InputTooLargeError, UnsupportedInputError
from serving.inference.pipeline import check_admitted, deadline_of, infer
from serving.inference.service import INLINE_BYTES, Service, service_of
from serving.models.classifier import IMAGE_SIZE, Floats, Images, ModelOutput
from serving.models.repository import Judgement, Model, Reasons
from serving.pictures.mnist_form import to_mnist_form
from serving.settings import Settings
from serving.telemetry.metrics import Timing

PIXELS = IMAGE_SIZE * IMAGE_SIZE

# So many predictions are encoded at once.
ENCODE_CHUNK = 64

# What an answer can carry besides the predictions.
INCLUDES = ("image",)


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
    reason: Judgement
    """Why it was not accepted."""
    image: list[list[int]] | UnsetType = UNSET
    """With ``include=image``: the 28 rows of 28 pixels 0..255 that the network saw, ink bright on dark."""


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


class RawImages(msgspec.Struct):
    """The same, each image still as text."""

    images: list[msgspec.Raw]


_decode_fast = msgspec.json.Decoder(AnyImages).decode
_decode_raw = msgspec.json.Decoder(RawImages).decode
_decode_image = msgspec.json.Decoder(list[list[int]]).decode
_decode_strictly = msgspec.json.Decoder(JsonImages).decode
_encode = msgspec.json.Encoder().encode


TAKEN = (
    "send a picture (image/png, image/jpeg, ...), several (multipart/form-data), raw pixels "
    '(application/octet-stream, 784 bytes an image) or JSON ({"images": [[[0..255, 28 times], 28 times], ...]})'
)


def _binary(description: str) -> OpenAPIMediaType:
    return OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description=description))


def model_parameters() -> list[Parameter]:
    """What :func:`model_of` reads."""
    text = Schema(type=OpenAPIType.STRING)
    return [
        Parameter("model", "query", schema=text, description="Name of the model; the service's default without it."),
        Parameter("version", "query", schema=text, description="Its version; the newest without it."),
    ]


def model_of(service: Service, query: Mapping[str, str]) -> Model:
    """The model that the query names, the default one without it.

    Raises:
        ModelNotFoundError, ModelUnavailableError: there is none.
    """
    return service.repository.get(query.get("model", service.settings.model), query.get("version"))


@dataclass
class PredictOperation(Operation):
    """The four kinds of body and the query, which the handler reads by itself."""

    def __post_init__(self) -> None:
        number = Schema(type=OpenAPIType.NUMBER, minimum=0)
        self.parameters = [
            *model_parameters(),
            Parameter(
                "include",
                "query",
                schema=Schema(type=OpenAPIType.STRING, enum=list(INCLUDES)),
                description="image: each prediction also carries the 28x28 pixels that the network saw.",
            ),
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


@prediction(
    "/predict",
    operation_id="predict",
    operation_class=PredictOperation,
    summary="Recognise the digits in pictures or pixels",
    responses={
        200: ResponseSpec(Predictions, description="A prediction for each image, in order.", generate_examples=False),
        **documented(400, 401, 404, 413, 415, 429, 503, 504),
    },
)
async def predict(request: AnyRequest) -> ASGIApp:
    """Response with a prediction for each image in the body."""
    timing = Timing()
    check_prediction_key(request)
    service = service_of(request)
    query = request.query_params if request.scope["query_string"] else {}
    model = model_of(service, query)
    deadline = deadline_of(request, query.get("timeout"))
    include = query.get("include")
    if include not in (None, *INCLUDES):
        raise InputError(f"include is {include!r}; it can be: {', '.join(INCLUDES)}")
    images, reasons = await decode_request(request, service)
    timing.end("decode")
    body = await infer(
        request,
        model,
        images,
        timing,
        deadline,
        lambda answers: encode(model, images, reasons, answers, with_images=include == "image"),
    )
    return Response(body, [(b"content-type", b"application/json"), timing.header()])


async def decode_request(request: AnyRequest, service: Service) -> tuple[Images, Reasons]:
    """The images in a body of any of the four kinds, uint8 ``[N, 28, 28]``; of pictures, why they are no digit."""
    settings = service.settings
    encoding = header(request, b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise UnsupportedInputError(f"Content-Encoding {encoding!r} is not taken; send the body uncompressed")
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
    raise UnsupportedInputError(f"Content-Type {kind or 'missing'!r} is not taken; {TAKEN}")


async def pictures_in(request: AnyRequest) -> list[bytes]:
    """The files of a form, in order."""
    try:
        form = await request.form()
    except HTTPException:
        raise
    except Exception as error:  # the form parser raises errors of its own on malformed bodies
        raise InputError(f"the form cannot be read: {error}") from error
    return [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]


def decode_pictures(pictures: Sequence[bytes], settings: Settings) -> tuple[Images, Reasons]:
    """One image a picture."""
    check_count(len(pictures), settings.max_batch)
    digits = [to_mnist_form(picture, settings.max_pixels) for picture in pictures]
    return np.stack([digit.image for digit in digits]), {i: digit.reason for i, digit in enumerate(digits)}


def decode_pixels(body: bytes, max_batch: int) -> Images:
    """Raw pixels, 784 bytes an image."""
    count, rest = divmod(len(body), PIXELS)
    if rest:
        raise InputError(f"the body has {len(body)} bytes, not a multiple of {PIXELS} (28x28) bytes an image")
    check_count(count, max_batch)
    return np.frombuffer(body, np.uint8).reshape(count, IMAGE_SIZE, IMAGE_SIZE)


def decode_json(body: bytes, max_batch: int) -> Images:
    """``{"images": [...]}``."""
    try:
        # One call would keep the interpreter to itself, and everyone else waiting, until it has read thousands.
        large = len(body) > INLINE_BYTES
        images = [_decode_image(image) for image in _decode_raw(body).images] if large else _decode_fast(body).images
        pixels = b"".join([bytes(row) for image in images for row in image])
        right = {len(row) for image in images for row in image} | {len(image) for image in images} == {IMAGE_SIZE}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
        right = False
    if not right:
        # Only now with every rule, which takes as long again, to say where it is wrong.
        try:
            _decode_strictly(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the JSON is not as it should be: {error}; {TAKEN}") from error
        raise AssertionError("the two readings of the JSON differ")
    check_count(len(images), max_batch)
    return np.frombuffer(pixels, np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def check_count(count: int, max_batch: int) -> None:
    """Refuse an empty batch and one over the limit."""
    if count == 0:
        raise InputError(f"the body holds no image; {TAKEN}")
    if count > max_batch:
        raise InputTooLargeError(f"the body holds {count} images; at most {max_batch} are taken in one request")


def encode(model: Model, images: Images, reasons: Reasons, answers: ModelOutput, *, with_images: bool) -> bytes:
    """The answer as JSON."""
    judged = model.judge(images, answers, reasons)
    parts = [
        _encode_part(model, answers.probabilities[part], judged[part], images[part] if with_images else None)
        # Between two parts other threads have their turn.
        for part in (slice(start, start + ENCODE_CHUNK) for start in range(0, len(images), ENCODE_CHUNK))
    ]
    return b'{"model":%b,"predictions":[%b]}' % (_encode(ModelVersion(model.name, model.version)), b",".join(parts))


def _encode_part(model: Model, probabilities: Floats, judged: Sequence[Judgement], images: Images | None) -> bytes:
    digits = probabilities.argmax(axis=1).tolist()
    predictions = [
        Prediction(digit, model.labels[digit], row[digit], row, reason is None, reason)
        for digit, row, reason in zip(digits, probabilities.tolist(), judged, strict=True)
    ]
    if images is not None:
        for prediction, image in zip(predictions, images.tolist(), strict=True):
            prediction.image = image
    return _encode(predictions)[1:-1]
