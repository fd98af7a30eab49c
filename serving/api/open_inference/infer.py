"""POST .../infer: decode the input tensor, run the model, encode the outputs."""

from __future__ import annotations

from functools import partial

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, RequestContext, context_of, read_body
from serving.api.described import TEXT, described
from serving.api.handlers import prediction
from serving.api.key_schemes import IF_CONFIGURED
from serving.api.open_inference import tensors
from serving.api.open_inference.compression import compress, decompress
from serving.api.open_inference.messages import JSON_LENGTH_HEADER, InferRequest, InferResponse
from serving.api.open_inference.paths import model_paths, operation_ids
from serving.api.problems import ProtocolError, documented
from serving.api.responses import JSON, Response
from serving.contract import Images
from serving.models.model import Model
from serving.open_inference.infer import infer, infer_numbers
from serving.open_inference.messages import OutputTensor
from serving.telemetry.timing import Timing

BINARY_TYPE = "application/octet-stream"

# One image without ink.
EXAMPLE = {"inputs": [{"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 784}]}

# The name of the header in lower case, as in ASGI.
ASGI_JSON_LENGTH = JSON_LENGTH_HEADER.lower().encode()


def described_body() -> dict[str, OpenAPIMediaType]:
    """Return the OpenAPI description of the body, by its media type."""
    shape = Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.INTEGER))
    data = Schema(type=OpenAPIType.ARRAY, description="Pixels, nested like the shape or flat in row-major order.")
    tensor = Schema(
        type=OpenAPIType.OBJECT,
        properties={"name": TEXT, "shape": shape, "datatype": TEXT, "data": data},
        required=["name", "shape", "datatype"],
    )
    request = Schema(
        type=OpenAPIType.OBJECT,
        properties={"id": TEXT, "inputs": Schema(type=OpenAPIType.ARRAY, items=tensor)},
        required=["inputs"],
    )
    binary = Schema(
        type=OpenAPIType.STRING,
        description=f"JSON with the length that the header {JSON_LENGTH_HEADER} gives, then binary tensors.",
    )
    return {"application/json": OpenAPIMediaType(request, example=EXAMPLE), BINARY_TYPE: OpenAPIMediaType(binary)}


@prediction(
    model_paths("/infer"),
    operation_id=operation_ids("infer"),
    operation_class=described(body=described_body()),
    security=IF_CONFIGURED,
    summary="Run a model",
    responses={
        200: ResponseSpec(InferResponse, description="The requested outputs.", generate_examples=False),
        **documented(400, 401, 404, 413, 415, 429, 503, 504, form=ProtocolError),
    },
)
async def infer_model(request: AnyRequest) -> ASGIApp:
    """Respond with the outputs that the request names, or with all outputs if it names none."""
    context = context_of(request)
    timing = context.timing = Timing()
    service = context.service
    service.keys.check_prediction(context)
    model = context.route(request.path_params["name"], request.path_params.get("version"))
    body = await read_body(request, service.settings.max_body)
    context.check_admitted()
    # A small body may be large once it is decompressed.
    encoding = context.encoding()
    size = service.settings.max_body if encoding else len(body)
    asked, images = await service.pipeline.threads.run_by_size(partial(decode, context, encoding, body), size)
    del body  # The images are a part of it, or a copy.
    deadline = context.deadline(asked.parameters and asked.parameters.timeout)
    run = infer_numbers if tensors.is_number_request(asked) else infer
    outputs = tensors.named_outputs(asked)
    # The connection counts the bytes of the body as it arrived.
    with service.held.hold(images.nbytes if encoding else 0):
        content, headers = await run(
            context, model, images, outputs, timing, deadline, lambda found: encode(context, model, asked, found)
        )
    return Response(content, [*headers, timing.header()])


def decode(context: RequestContext, encoding: str, body: bytes) -> tuple[InferRequest, Images]:
    """Return the request in a body that may be compressed, and its images."""
    settings = context.service.settings
    content = decompress(body, encoding, settings.max_body)
    return tensors.decode(content, context.header(ASGI_JSON_LENGTH), settings.max_batch)


def encode(
    context: RequestContext, model: Model, asked: InferRequest, found: list[OutputTensor]
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the body of the response and its headers."""
    text, binary = tensors.encode(model, asked, found)
    headers = [JSON]
    if binary:
        headers = [(b"content-type", BINARY_TYPE.encode()), (ASGI_JSON_LENGTH, b"%d" % len(text))]
    content, encoding_headers = compress(text + binary, context.header(b"accept-encoding") or "")
    return content, headers + encoding_headers
