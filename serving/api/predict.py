"""POST /predict: decode the body, run the model, encode the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIMediaType, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, UnsetType

from serving.api.bodies import read_images, read_pictures
from serving.api.context import AnyRequest, RequestContext, context_of, query_of
from serving.api.described import TEXT, VERSION_PARAMETER, described
from serving.api.handlers import prediction
from serving.api.key_schemes import IF_CONFIGURED
from serving.api.problems import documented
from serving.api.responses import JSON, Response
from serving.contract import IMAGE_SIZE, Floats, Images, ModelOutput, Reasons, RejectionReason
from serving.errors import InputError, quoted
from serving.feedback.records import ModelVersion
from serving.inference.admission import PREDICT_ROUTE
from serving.inference.numbers import (
    DIGIT_MODE,
    MODEL_INPUT,
    MODES,
    NUMBER_MODE,
    NumberPrediction,
    NumberReading,
    check_reads_numbers,
)
from serving.models.model import Model
from serving.telemetry.timing import Timing

# A large batch is encoded in pieces of this many predictions, or of this many with their images. Each piece takes less
# than 0.2 ms, and other threads run between two pieces.
ENCODE_PIECE, ENCODE_PIECE_OF_IMAGES = 64, 16

# The query parameters that choose the model, and all of /predict.
MODEL_PARAMETERS = ("model", "version")
PARAMETERS = (*MODEL_PARAMETERS, "include", "mode", "timeout")
# The values of the query parameter ``include``.
INCLUDES = ("image",)

# The formats of serving/pictures. PNM has three names, for its three kinds of pixels.
PICTURE_TYPES = (
    *("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"),
    *("image/x-portable-bitmap", "image/x-portable-graymap", "image/x-portable-pixmap"),
)

# A one: a bar in the middle.
EXAMPLE_IMAGE = [[255 if 4 <= row < 24 and column in (13, 14) else 0 for column in range(28)] for row in range(28)]

HINT = "to read all digits, send the picture to /predict?mode=number"


class Prediction(msgspec.Struct, kw_only=True):
    """The prediction for one image."""

    digit: Annotated[
        int | UnsetType, Meta(description="The digit. It is left out if the classes of the model are not digits.")
    ] = UNSET
    label: Annotated[str, Meta(description="Name of the most probable class.")]
    confidence: Annotated[float, Meta(description="Probability of the label, from 0 to 1.")]
    probabilities: Annotated[list[float], Meta(description="Probability of every class, in the order of the classes.")]
    accepted: Annotated[bool, Meta(description="Whether to rely on the prediction. If not, reason says why.")]
    reason: Annotated[
        RejectionReason | None,
        Meta(
            description=(
                "null: accepted. empty: there is no ink. several: there are several digits. no digit: the novelty "
                "score is above the novelty threshold. unsure: the confidence is below the confidence threshold."
            )
        ),
    ]
    image: Annotated[list[list[int]] | UnsetType, MODEL_INPUT] = UNSET
    hint: Annotated[str | UnsetType, Meta(description="With the reason several: how to read all digits.")] = UNSET


class Predictions(msgspec.Struct):
    """The response: a prediction for each image, in the order of the images."""

    model: ModelVersion
    predictions: list[Prediction]


class NumberPredictions(msgspec.Struct):
    """The response with ``mode=number``: the numbers in each picture, in the order of the pictures."""

    model: ModelVersion
    predictions: list[NumberPrediction]


# A dict would lose its null: Litestar removes it.
EXAMPLE_RESPONSE = Predictions(
    model=ModelVersion("mnist", "1"),
    predictions=[
        Prediction(
            digit=7,
            label="7",
            confidence=0.991,
            probabilities=[0.001] * 7 + [0.991] + [0.001] * 2,
            accepted=True,
            reason=None,
        )
    ],
)

_encode_json = msgspec.json.Encoder().encode


MODEL_DESCRIPTIONS = (
    Parameter("model", "query", schema=TEXT, description="Name of the model. Without it, the default is used."),
    VERSION_PARAMETER,
)
NUMBER = Schema(type=OpenAPIType.NUMBER, minimum=0)
DESCRIPTIONS = (
    *MODEL_DESCRIPTIONS,
    Parameter(
        "include",
        "query",
        schema=Schema(type=OpenAPIType.STRING, enum=list(INCLUDES)),
        description="With image, each prediction also has the 28x28 pixels of the model's input.",
    ),
    Parameter(
        "mode",
        "query",
        schema=Schema(type=OpenAPIType.STRING, enum=list(MODES), default=DIGIT_MODE),
        description="With number, the service reads all lines of digits in each picture.",
    ),
    Parameter(
        "timeout",
        "query",
        schema=NUMBER,
        description="Microseconds after which the client no longer wants a response. 0 means none.",
    ),
    Parameter(
        "X-Request-Deadline",
        "header",
        schema=NUMBER,
        description="Time after which the client no longer wants a response, in seconds since 1970.",
    ),
)


def described_body() -> dict[str, OpenAPIMediaType]:
    """Return the OpenAPI description of the body, by its media type."""
    square = Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=255)
    for _ in range(2):
        square = Schema(type=OpenAPIType.ARRAY, items=square, min_items=IMAGE_SIZE, max_items=IMAGE_SIZE)
    images = Schema(type=OpenAPIType.ARRAY, items=square, min_items=1)
    files = Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY))
    return {
        **{kind: _binary("A picture of a digit or symbol.") for kind in PICTURE_TYPES},
        "multipart/form-data": OpenAPIMediaType(
            Schema(type=OpenAPIType.OBJECT, properties={"files": files}, required=["files"])
        ),
        "application/octet-stream": _binary("784 bytes per image, row by row from the top, bright ink on black."),
        "application/json": OpenAPIMediaType(
            Schema(type=OpenAPIType.OBJECT, properties={"images": images}, required=["images"]),
            example={"images": [EXAMPLE_IMAGE]},
        ),
    }


def _binary(description: str) -> OpenAPIMediaType:
    return OpenAPIMediaType(Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description=description))


@prediction(
    PREDICT_ROUTE,
    operation_id="predict",
    operation_class=described(*DESCRIPTIONS, body=described_body()),
    security=IF_CONFIGURED,
    summary="Recognise the digits or symbols in pictures or pixels",
    responses={
        200: ResponseSpec(
            cast(Any, Predictions | NumberPredictions),  # Litestar takes a union, but does not declare it.
            description="A prediction for each image or picture, in their order.",
            generate_examples=False,
            examples=[Example(summary="One picture of a seven", value=EXAMPLE_RESPONSE)],
        ),
        **documented(400, 401, 404, 413, 415, 429, 503, 504),
    },
)
async def predict(request: AnyRequest) -> ASGIApp:
    """Respond with a prediction for each image in the body."""
    context = context_of(request)
    timing = context.timing = Timing()
    service = context.service
    service.keys.check_prediction(context)
    query = query_of(request, PARAMETERS)
    model = context.route(query.get("model", service.settings.model), query.get("version"))
    timeout = query.get("timeout")
    context.deadline(timeout)  # Raises InputError before the body is read.
    include, mode = query.get("include"), query.get("mode", DIGIT_MODE)
    if include not in (None, *INCLUDES):
        raise InputError(f"include {quoted(include)}: must be {' or '.join(INCLUDES)}")
    if mode not in MODES:
        raise InputError(f"mode {quoted(mode)}: must be {' or '.join(MODES)}")
    if mode == NUMBER_MODE:
        check_reads_numbers(model)
        return await predict_numbers(request, model, timing, timeout, with_images=include == "image")
    images, reasons = await read_images(request, timeout, model)
    timing.end("decode")
    body = await service.pipeline.run(
        model,
        images,
        timing,
        context.deadline(timeout),
        lambda output: encode(context, model, images, reasons, output, with_images=include == "image"),
        comparison=context.comparison,
        reasons=reasons,
    )
    return Response(body, [JSON, timing.header()])


async def predict_numbers(
    request: AnyRequest, model: Model, timing: Timing, timeout: str | None, *, with_images: bool
) -> ASGIApp:
    """Respond with the numbers in each picture in the body."""
    context = context_of(request)
    pictures = await read_pictures(request)
    pages = await context.service.decoder.read_numbers(pictures, context.deadline(timeout))
    timing.end("decode")
    body = await context.service.pipeline.read_numbers(
        NumberReading(model, pages, with_images=with_images),
        timing,
        context.deadline(timeout),
        lambda predictions: encode_numbers(context, model, predictions),
        context.comparison,
    )
    return Response(body, [JSON, timing.header()])


def encode_numbers(context: RequestContext, model: Model, predictions: list[NumberPrediction]) -> bytes:
    """Return the response as JSON: a :class:`NumberPredictions`."""
    context.judged(prediction.reason for prediction in predictions)
    return _encode_json(NumberPredictions(ModelVersion(model.name, model.version), predictions))


def encode(
    context: RequestContext,
    model: Model,
    images: Images,
    reasons: Reasons,
    output: ModelOutput,
    *,
    with_images: bool,
) -> bytes:
    """Return the response as JSON: a :class:`Predictions`."""
    rejections = model.judge(images, output, reasons)
    context.judged(rejections)
    pieces = []
    size = ENCODE_PIECE_OF_IMAGES if with_images else ENCODE_PIECE
    for start in range(0, len(images), size):
        piece = slice(start, start + size)
        shown = images[piece] if with_images else None
        pieces.append(_encode_piece(model, output.probabilities[piece], rejections[piece], shown))
    model_version = _encode_json(ModelVersion(model.name, model.version))
    return b'{"model":%b,"predictions":[%b]}' % (model_version, b",".join(pieces))


def _encode_piece(
    model: Model, probabilities: Floats, rejections: Sequence[RejectionReason | None], images: Images | None
) -> bytes:
    """Return predictions as the inside of a JSON array."""
    classes = probabilities.argmax(axis=1).tolist()
    digits, hint = model.digits, HINT if model.reads_numbers else UNSET
    predictions = [
        Prediction(
            digit=digits[best] if digits else UNSET,
            label=model.labels[best],
            confidence=row[best],
            probabilities=row,
            accepted=reason is None,
            reason=reason,
            hint=hint if reason == "several" else UNSET,
        )
        for best, row, reason in zip(classes, probabilities.tolist(), rejections, strict=True)
    ]
    if images is not None:
        for prediction, image in zip(predictions, images.tolist(), strict=True):
            prediction.image = image
    return _encode_json(predictions)[1:-1]
