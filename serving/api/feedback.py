"""POST /feedback stores what a visitor says a picture shows; GET /feedback counts what is stored."""

from __future__ import annotations

import functools
import unicodedata
from datetime import UTC, datetime

import msgspec
from litestar import get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.types import ASGIApp

from serving.api.bodies import UNSPECIFIC, decode_pictures, unsupported_type
from serving.api.context import AnyRequest, RequestContext, context_of, query_of, read_body
from serving.api.described import TEXT, described
from serving.api.key_schemes import IF_CONFIGURED, REQUIRED
from serving.api.problems import documented
from serving.api.responses import JSON, Response
from serving.errors import ForbiddenError, InputError, PictureError, UnsupportedInputError, quoted
from serving.feedback.records import Answer, FeedbackReport, ModelVersion, Outcome, Record
from serving.feedback.store import Store, is_folder_name
from serving.inference.admission import FEEDBACK_ROUTE
from serving.inference.comparison import answers
from serving.models.bundle import ONNX
from serving.models.model import Model
from serving.pictures.containers import PNG_SIGNATURE, bare_png
from serving.service.background import on_own_thread
from serving.service.service import Service
from serving.telemetry.logs import request_fields

PNG = "image/png"
CONSENT = "yes"
PARAMETERS = ("label", "consent", "version")
HOW_TO_SEND = (
    f"send one uncompressed {PNG}; with curl: -H 'content-type: {PNG}' --data-binary @FILE; convert a JPEG or another "
    "picture to PNG first"
)
# Browsers add one of these headers to every POST request of a page.
OF_A_PAGE = (b"origin", b"sec-fetch-site")


class Feedback(msgspec.Struct):
    """The response: what was stored."""

    outcome: Outcome
    """``stored``; ``known``, if this picture has this label already; ``disputed``, if it has another one."""
    label: str
    answer: Answer
    model: ModelVersion


DESCRIPTIONS = (
    Parameter("label", "query", schema=TEXT, required=True, description="What the picture shows: a class."),
    Parameter(
        "consent",
        "query",
        schema=Schema(type=OpenAPIType.STRING, enum=[CONSENT]),
        required=True,
        description="yes: the visitor knows that the picture is stored, and agrees.",
    ),
    Parameter(
        "version",
        "query",
        schema=TEXT,
        description="Version of the default model that made the prediction. "
        "The default is the newest, with --rollout the stable one.",
    ),
)
PICTURE = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="The picture.")


@post(
    FEEDBACK_ROUTE,
    status_code=201,
    operation_id="giveFeedback",
    operation_class=described(*DESCRIPTIONS, body={PNG: OpenAPIMediaType(PICTURE)}),
    security=IF_CONFIGURED,
    summary="Say what a picture shows, so that a later model learns it",
    tags=["feedback"],
    responses={
        200: ResponseSpec(Feedback, description="It was already stored.", generate_examples=False),
        201: ResponseSpec(Feedback, description="What was stored.", generate_examples=False),
        **documented(400, 401, 403, 404, 413, 415, 429, 503, 504, 507),
    },
)
async def give_feedback(request: AnyRequest) -> ASGIApp:
    """Store a picture with its label, the 28x28 image, the prediction, the model, the request ID and the time.

    The service predicts the picture again, and so trusts no prediction of a client. The X-Request-ID may be that of
    the first prediction.
    """
    context = context_of(request)
    service = context.service
    store = store_of(service)
    service.keys.check_feedback(context)
    query = query_of(request, PARAMETERS)
    model = service.repository.get(service.settings.model, query.get("version"))
    label = label_of(query.get("label"), model)
    if query.get("consent") != CONSENT:
        raise InputError(
            f"{_stated('consent', query.get('consent'))} must be {CONSENT}, after the visitor has agreed that the "
            "picture is stored"
        )
    check_type(context)
    body = await read_body(request, service.settings.max_body)
    context.check_admitted()
    if not body.startswith(PNG_SIGNATURE):
        raise PictureError(f"the body is not a PNG; {HOW_TO_SEND}")
    # The prediction is for what is stored.
    picture = await service.pipeline.threads.run_by_size(functools.partial(bare_png, body), len(body))
    images, reasons = await decode_pictures([picture], context, None, model)
    if not images.any():
        raise InputError("the picture is empty, so there is nothing to learn from")
    with model:
        [answer] = answers(model, images, model.classifier.classify(images), reasons)
    record = Record(
        label=label,
        answer=answer,
        model=ModelVersion(model.name, model.version),
        request_id=request_fields.get()["request_id"],
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        image=images[0].tolist(),
        model_sha256=model.bundle.manifest.files[ONNX].sha256,
    )
    context.finished()  # A correction that waits to be stored must not keep predictions out.
    deadline = context.deadline()
    outcome = await service.storing.do(functools.partial(store.add, picture, record, deadline), deadline)
    body = msgspec.json.encode(Feedback(outcome, label, record.answer, record.model))
    return Response(body, [JSON], 200 if outcome == "known" else 201)


@get(
    FEEDBACK_ROUTE,
    operation_id="feedback",
    security=REQUIRED,
    summary="Count the stored corrections",
    response_description="The counts, and the corrections that disagree.",
    tags=["feedback"],
    responses=documented(401, 403, 507),
)
async def feedback(request: AnyRequest) -> FeedbackReport:
    """Count the pictures of each label, and list those that got several labels. This needs an admin key."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    return await on_own_thread(store_of(context.service).report)


def store_of(service: Service) -> Store:
    """Return the store.

    Raises:
        ForbiddenError: nothing may be stored.
    """
    if service.feedback is None:
        raise ForbiddenError("feedback is off: the operator can start the service with --feedback DIR")
    return service.feedback


def check_type(context: RequestContext) -> None:
    """Check that the headers of a correction say that its body is a PNG, or that they leave it open.

    A browser sends image/png to another host only with its permission, so no foreign page can add corrections. It sends
    other types without asking, so a page must name this type. A program such as curl need not.

    Raises:
        UnsupportedInputError: they say something else.
    """
    kind = context.media_type()
    is_of_page = any(context.header(name) is not None for name in OF_A_PAGE)
    if kind != PNG and (is_of_page or kind not in UNSPECIFIC):
        raise unsupported_type(kind, HOW_TO_SEND)
    if encoding := context.encoding():
        raise UnsupportedInputError(f"Content-Encoding {quoted(encoding)}: not supported here; {HOW_TO_SEND}")


def label_of(label: str | None, model: Model) -> str:
    """Return the label if it is a class of ``model``.

    Raises:
        InputError: it is none, or it cannot be the name of a folder.
    """
    if label and label not in model.labels:
        # Some systems write an accent as a character of its own. mnist-train has joined both in the names of classes.
        label = unicodedata.normalize("NFC", label)
    if label not in model.labels:
        classes = ", ".join(model.labels[:10]) + (", ..." if len(model.labels) > 10 else "")
        raise InputError(f"{_stated('label', label)} must be a class of {model.name}: {classes}")
    if not is_folder_name(label):
        raise InputError(f"label {quoted(label)}: cannot be the name of a folder of corrections; rename this class")
    return label


def _stated(name: str, value: str | None) -> str:
    return f"{name}: is missing;" if value is None else f"{name} {quoted(value)}:"
