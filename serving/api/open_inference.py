"""The Open Inference Protocol v2 over REST, with its extensions.

Sources: kserve/open-inference-protocol (inference_rest.md), and Triton's extensions for binary tensors, raw
requests, classification, the model repository, configuration and statistics.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from litestar import get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.types import ASGIApp
from msgspec import UNSET, UnsetType

from serving.api.context import AnyRequest, Service, context_of, read_body
from serving.api.handlers import prediction
from serving.api.problems import ProtocolError, documented
from serving.api.responses import Response
from serving.contract import IMAGE_SIZE, Floats, Images, ModelOutput
from serving.errors import (
    InputError,
    InputTooLargeError,
    ModelNotFoundError,
    ModelUnavailableError,
    UnsupportedInputError,
)
from serving.inference.admission import INFER_ROUTE, INFER_VERSION_ROUTE
from serving.models.bundle import Tensor
from serving.models.classifier import INPUTS
from serving.models.model import Model
from serving.telemetry.timing import Timing

EXTENSIONS = [
    *("binary_tensor_data", "raw_request", "classification", "model_repository"),
    *("model_configuration", "statistics"),
]
PLATFORM = "onnx_onnxv1"
HEADER = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}

# ModelOutput below this many bytes are not worth compressing.
COMPRESS_FROM = 1024

# Bytes of a list of numbers that are read at once.
JSON_CHUNK_BYTES = 1 << 16

INPUT = INPUTS[0]

Parameters = dict[str, Any]


class RequestInput(msgspec.Struct):
    """An input tensor of a request: its data here, or its size where it follows in binary."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw | UnsetType = UNSET


class RequestOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct):
    """A request; members that the protocol does not know are passed over."""

    inputs: list[RequestInput]
    id: str | UnsetType = UNSET
    parameters: Parameters = {}
    outputs: list[RequestOutput] = []


class ResponseOutput(msgspec.Struct, omit_defaults=True):
    """An output tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = {}
    data: list[Any] | UnsetType = UNSET


class InferResponse(msgspec.Struct):
    """An answer."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | UnsetType = UNSET


class ServerMetadata(msgspec.Struct):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """A tensor of a model; -1 is an axis of any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """What a model is."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(msgspec.Struct):
    """Whether a model answers."""

    name: str
    ready: bool


class IndexEntry(msgspec.Struct):
    """A version in the repository."""

    name: str
    version: str
    state: str
    reason: str


_decode = msgspec.json.Decoder(InferRequest).decode
_decode_flat = msgspec.json.Decoder(list[int]).decode
_decode_images = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_image = msgspec.json.Decoder(list[list[int]]).decode
_encode = msgspec.json.Encoder().encode


# Health and metadata


@get("/v2/health/live", operation_id="live", summary="The process answers", tags=["health"])
async def live() -> dict[str, bool]:
    """For a liveness probe: never touches a model."""
    return {"live": True}


@get(
    "/v2/health/ready",
    operation_id="ready",
    summary="Predictions are answered",
    tags=["health"],
    responses=documented(503, form=ProtocolError),
)
async def ready(request: AnyRequest) -> dict[str, bool]:
    """For a readiness probe: whether the default model can infer."""
    service = context_of(request).service
    if service.draining:
        raise ModelUnavailableError("the service is being stopped")
    try:
        service.repository.get(service.settings.model)
    except ModelNotFoundError as error:
        raise ModelUnavailableError(str(error)) from error
    return {"ready": True}


@get("/v2", operation_id="serverMetadata", summary="What the server is", tags=["metadata"])
async def server_metadata() -> ServerMetadata:
    """Name, version and extensions."""
    return ServerMetadata("mnist-service", importlib.metadata.version("mnist-service"), EXTENSIONS)


def model_paths(ending: str = "") -> list[str]:
    """A path with and without the version."""
    return [f"/v2/models/{{name:str}}{ending}", f"/v2/models/{{name:str}}/versions/{{version:str}}{ending}"]


def model_of(request: AnyRequest) -> Model:
    """The model that the path names."""
    parameters = request.path_params
    return context_of(request).service.repository.get(parameters["name"], parameters.get("version"))


UNAVAILABLE = documented(404, 503, form=ProtocolError)


def operation_ids(name: str) -> Callable[[Any, Any, list[Any]], str]:
    """One handler has two paths, and each wants an id of its own."""

    def operation_id(_: Any, __: Any, components: list[Any]) -> str:
        return f"{name}Version" if "versions" in components else name

    return operation_id


@get(
    model_paths(), operation_id=operation_ids("modelMetadata"), summary="What a model is", tags=["metadata"],
    responses=UNAVAILABLE,
)  # fmt: skip
async def model_metadata(request: AnyRequest) -> ModelMetadata:
    """Its versions, inputs and outputs."""
    model = model_of(request)
    manifest = model.bundle.manifest
    return ModelMetadata(
        model.name,
        context_of(request).service.repository.versions(model.name),
        PLATFORM,
        [_metadata(tensor) for tensor in manifest.inputs],
        [_metadata(tensor) for tensor in manifest.outputs],
    )


@get(
    model_paths("/ready"), operation_id=operation_ids("modelReady"), summary="Whether a model answers",
    tags=["health"], responses=UNAVAILABLE,
)  # fmt: skip
async def model_ready(request: AnyRequest) -> ModelReady:
    """200 if it does."""
    return ModelReady(model_of(request).name, True)


@get(
    model_paths("/config"), operation_id=operation_ids("modelConfiguration"), summary="A model's configuration",
    tags=["metadata"], responses=UNAVAILABLE,
)  # fmt: skip
async def model_configuration(request: AnyRequest) -> dict[str, Any]:
    """In Triton's form."""
    model = model_of(request)
    manifest = model.bundle.manifest
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": context_of(request).service.settings.max_batch,
        "input": [_configuration(tensor) for tensor in manifest.inputs],
        "output": [_configuration(tensor) for tensor in manifest.outputs],
        "default_model_filename": manifest.serve,
        "parameters": {"precision": {"string_value": model.precision}},
    }


@get(
    ["/v2/models/stats", *model_paths("/stats")],
    operation_id=lambda _, __, components: "statistics" + str(len(components)),
    summary="How often and how long models have answered",
    tags=["metadata"],
    responses=UNAVAILABLE,
)
async def statistics(request: AnyRequest) -> dict[str, Any]:
    """Since the service began, all its workers together."""
    service = context_of(request).service
    name, version = request.path_params.get("name"), request.path_params.get("version")
    if name is None:
        models = service.repository.models()
    else:
        service.repository.get(name, version)
        models = [
            model
            for model in service.repository.models()
            if model.name == name and version in (None, model.version)
        ]  # fmt: skip
    return {"model_stats": service.recorder.statistics(models)}


def _metadata(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(tensor.name, DATATYPES[tensor.dtype], list(tensor.shape))


def _configuration(tensor: Tensor) -> dict[str, Any]:
    # The first axis is the batch, which max_batch_size stands for. Of one number an image nothing remains, and
    # Triton wants at least one axis.
    dims = list(tensor.shape[1:])
    form: dict[str, Any] = {"dims": dims} if dims else {"dims": [1], "reshape": {"shape": []}}
    return {"name": tensor.name, "data_type": f"TYPE_{DATATYPES[tensor.dtype]}"} | form


# The model repository


class IndexRequest(msgspec.Struct):
    """Which versions to list."""

    ready: bool = False


@post(
    "/v2/repository/index",
    status_code=200,
    operation_id="repositoryIndex",
    summary="Every version in the repository",
    tags=["repository"],
    responses=documented(400, 413, form=ProtocolError),
)
async def repository_index(request: AnyRequest) -> list[IndexEntry]:
    """Their states, and why one is not ready."""
    body = await request.body()
    try:
        only_ready = msgspec.json.decode(body, type=IndexRequest).ready if body.strip() else False
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f'the body is {{}} or {{"ready": true}}: {error}') from error
    return [
        IndexEntry(entry.name, entry.version, entry.state, entry.reason)
        for entry in await asyncio.to_thread(context_of(request).service.repository.index)
        if entry.state == "READY" or not only_ready
    ]


ADMINISTRATION = documented(401, 403, 404, 503, form=ProtocolError)


@post(
    "/v2/repository/models/{name:str}/load",
    status_code=200,
    operation_id="loadModel",
    summary="Load a model, or look for its new versions now",
    tags=["repository"],
    responses=ADMINISTRATION,
)
async def load_model(request: AnyRequest) -> dict[str, str]:
    """ModelOutput when it is done."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    await asyncio.to_thread(context.service.load_model, request.path_params["name"])
    return {}


@post(
    "/v2/repository/models/{name:str}/unload",
    status_code=200,
    operation_id="unloadModel",
    summary="Take a model out of service",
    tags=["repository"],
    responses=ADMINISTRATION,
)
async def unload_model(request: AnyRequest) -> dict[str, str]:
    """ModelOutput when the requests that use it are answered."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    await asyncio.to_thread(context.service.unload_model, request.path_params["name"])
    return {}


# Inference: decode -> infer -> encode


@dataclass
class InferOperation(Operation):
    """The body, which the handler reads by itself."""

    def __post_init__(self) -> None:
        text, number = Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.INTEGER)
        shape = Schema(type=OpenAPIType.ARRAY, items=number)
        data = Schema(type=OpenAPIType.ARRAY, description="Pixels, nested as the shape or flat.")
        tensor = Schema(
            type=OpenAPIType.OBJECT,
            properties={"name": text, "shape": shape, "datatype": text, "data": data},
            required=["name", "shape", "datatype"],
        )
        request = Schema(
            type=OpenAPIType.OBJECT,
            properties={"id": text, "inputs": Schema(type=OpenAPIType.ARRAY, items=tensor)},
            required=["inputs"],
        )
        self.request_body = RequestBody(
            required=True,
            content={
                "application/json": OpenAPIMediaType(request),
                BINARY: OpenAPIMediaType(
                    Schema(type=OpenAPIType.STRING, description=f"JSON of {HEADER} bytes, then tensors.")
                ),
            },
        )


@prediction(
    [route.replace("}", ":str}") for route in (INFER_ROUTE, INFER_VERSION_ROUTE)],
    operation_id=operation_ids("infer"),
    operation_class=InferOperation,
    summary="Infer",
    responses={
        200: ResponseSpec(InferResponse, description="The outputs asked for.", generate_examples=False),
        **documented(400, 401, 404, 413, 415, 429, 503, 504, form=ProtocolError),
    },
)
async def infer_model(request: AnyRequest) -> ASGIApp:
    """Response with the outputs asked for."""
    timing = Timing()
    context = context_of(request)
    service = context.service
    service.keys.check_prediction(context)
    model = model_of(request)
    packed = await read_body(request, service.settings.max_body)
    context.check_admitted()
    length, encoding = context.header(HEADER.lower().encode()), context.header(b"content-encoding") or ""
    accepted = context.header(b"accept-encoding") or ""

    def decode_body() -> tuple[InferRequest, Images]:
        return decode(decompress(packed, encoding, service.settings.max_body), length, service)

    asked, images = await service.pipeline.threads.run_by_size(decode_body, len(packed))
    wanted = requested(asked, model)
    deadline = context.deadline(asked.parameters.get("timeout"))
    timing.end("decode")

    def encode_answer(answers: ModelOutput) -> tuple[bytes, dict[str, str]]:
        content, headers = encode(asked, wanted, model, answers._asdict())
        content, compressed = compress(content, accepted)
        return content, headers | compressed

    content, headers = await service.pipeline.run(model, images, timing, deadline, encode_answer)
    headers["Content-Type"] = BINARY if HEADER in headers else "application/json"
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Response(content, [*encoded, timing.header()])


def decode(body: bytes, header: str | None, service: Service) -> tuple[InferRequest, Images]:
    """The request, and its images as uint8 ``[N, 28, 28]``."""
    if header is None:
        size = len(body)
    elif header.isascii() and header.isdigit() and int(header) <= len(body):
        size = int(header)
    else:
        raise InputError(f"{HEADER} is {header!r}; it is the number of bytes of the JSON in front of a body")
    if header is not None and size == 0:
        asked = raw_request(body)
    else:
        try:
            asked = _decode(memoryview(body)[:size])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the JSON is not an inference request: {error}") from error
    if len(asked.inputs) != 1 or asked.inputs[0].name != INPUT.name:
        names = [tensor.name for tensor in asked.inputs]
        raise InputError(f"the inputs are {names}; this model takes one, {INPUT.name!r}")
    tensor = asked.inputs[0]
    check_tensor(tensor, service.settings.max_batch)
    if tensor.data is UNSET:
        values = binary_values(tensor, body[size:])
    else:
        if len(body) > size:
            raise InputError(f"{len(body) - size} bytes follow the JSON, but no input has a binary_data_size")
        if "binary_data_size" in tensor.parameters:
            raise InputError(f"input {tensor.name!r} has both data and a binary_data_size")
        values = json_values(tensor)
    return asked, np.frombuffer(values, np.uint8).reshape(tensor.shape)


def raw_request(body: bytes) -> InferRequest:
    """The whole body is the only input, its variable axis taken as 1; all outputs come back binary."""
    tensor = RequestInput(INPUT.name, [1, *INPUT.shape[1:]], "UINT8", {"binary_data_size": len(body)})
    return InferRequest([tensor], parameters={"binary_data_output": True})


def check_tensor(tensor: RequestInput, max_batch: int) -> None:
    """Refuse what is not uint8 ``[N, 28, 28]`` with 1 to ``max_batch`` images."""
    if tensor.datatype != "UINT8":
        raise InputError(f"input {tensor.name!r} has datatype {tensor.datatype!r}; it is UINT8")
    if len(tensor.shape) != 3 or tuple(tensor.shape[1:]) != INPUT.shape[1:] or tensor.shape[0] < 1:
        raise InputError(f"input {tensor.name!r} has shape {tensor.shape}; it is [N, 28, 28], N from 1 on")
    if tensor.shape[0] > max_batch:
        raise InputTooLargeError(f"input {tensor.name!r} has {tensor.shape[0]} images; at most {max_batch} are taken")


def binary_values(tensor: RequestInput, rest: bytes) -> bytes:
    """The bytes of the only binary tensor."""
    size = tensor.parameters.get("binary_data_size")
    if type(size) is not int:
        raise InputError(f"input {tensor.name!r} has neither data nor a binary_data_size")
    expected = math.prod(tensor.shape)
    if not size == len(rest) == expected:
        raise InputError(
            f"input {tensor.name!r} of shape {tensor.shape} is {expected} bytes; "
            f"its binary_data_size is {size}, and {len(rest)} bytes came"
        )
    return rest


def json_values(tensor: RequestInput) -> bytes:
    """The numbers of a tensor, nested as its shape or flat in row-major order."""
    assert tensor.data is not UNSET  # noqa: S101 (the caller has looked)
    text = bytes(tensor.data)
    nested = text.translate(None, b" \t\r\n")[:2] == b"[[" if text[1:2].isspace() else text[1:2] == b"["
    try:
        if nested:
            images = [_decode_image(image) for image in _decode_images(text)]
            if any(len(image) != IMAGE_SIZE or any(len(row) != IMAGE_SIZE for row in image) for image in images):
                raise InputError(f"input {tensor.name!r}: its data is not nested as its shape {tensor.shape}")
            values = b"".join(bytes(row) for image in images for row in image)
        else:
            values = b"".join(bytes(_decode_flat(part)) for part in _parts(text))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"input {tensor.name!r}: its data is no list of integers: {error}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"input {tensor.name!r}: its data has a number outside of 0..255") from error
    if len(values) != math.prod(tensor.shape):
        raise InputError(
            f"input {tensor.name!r}: its data has {len(values)} numbers; its shape {tensor.shape} takes "
            f"{math.prod(tensor.shape)}"
        )
    return values


def _parts(text: bytes) -> Iterator[bytes]:
    """A list of numbers, known to be JSON, as several shorter ones.

    One call would keep the interpreter to itself, and everyone else waiting, until it has read all of it.
    """
    start = 0
    while (comma := text.find(b",", start + JSON_CHUNK_BYTES)) >= 0:
        yield (b"[" if start else b"") + text[start:comma] + b"]"
        start = comma + 1
    yield (b"[" if start else b"") + text[start:]


def requested(asked: InferRequest, model: Model) -> list[RequestOutput]:
    """The outputs to give, each with its parameters complete."""
    known = {tensor.name: tensor for tensor in model.bundle.manifest.outputs}
    binary = asked.parameters.get("binary_data_output", False)
    wanted = []
    for output in asked.outputs or [RequestOutput(name) for name in known]:
        if output.name not in known:
            raise InputError(f"there is no output {output.name!r}; there are {', '.join(known)}")
        top = output.parameters.get("classification", 0)
        if type(top) is not int or top < 0:
            raise InputError(f"output {output.name!r}: classification is {top!r}; it is how many classes to give")
        if top and len(known[output.name].shape) == 1:
            raise InputError(f"output {output.name!r} is one number an image and has no classes to give")
        wanted.append(RequestOutput(output.name, {"binary_data": binary} | output.parameters))
    return wanted


def encode(
    asked: InferRequest, wanted: list[RequestOutput], model: Model, values: dict[str, Floats]
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the answer."""
    outputs, tensors = [], []
    for output in wanted:
        tensor = values[output.name]
        top = output.parameters.get("classification", 0)
        if top:
            texts = classification(tensor, min(top, len(model.labels)), model.labels)
            shape, datatype = [len(tensor), len(texts) // len(tensor)], "BYTES"
        else:
            texts, shape, datatype = [], list(tensor.shape), "FP32"
        if output.parameters["binary_data"]:
            packed = b"".join(map(_pack, texts)) if top else tensor.astype("<f4", copy=False).tobytes()
            tensors.append(packed)
            outputs.append(ResponseOutput(output.name, datatype, shape, {"binary_data_size": len(packed)}))
        else:
            data = texts if top else tensor.ravel().tolist()
            outputs.append(ResponseOutput(output.name, datatype, shape, data=data))
    head = _encode(InferResponse(model.name, model.version, outputs, asked.id))
    return b"".join([head, *tensors]), {HEADER: str(len(head))} if tensors else {}


def classification(tensor: Floats, top: int, labels: tuple[str, ...]) -> list[str]:
    """``value:index:label`` of the ``top`` classes of each row, highest first, row after row."""
    order = np.argsort(-tensor, axis=1, kind="stable")[:, :top]
    return [
        f"{values[index]!s}:{index}:{labels[index]}" for values, row in zip(tensor, order, strict=True) for index in row
    ]


def _pack(text: str) -> bytes:
    content = text.encode()
    return len(content).to_bytes(4, "little") + content


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before its Content-Encoding; the limit holds for what comes out."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise UnsupportedInputError(f"Content-Encoding {encoding!r} is not taken; send gzip, deflate or none")
    # 32 reads the header of either form.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InputError(f"the body is no {encoding}: {error}") from error
    if len(inflated) > limit:
        raise InputTooLargeError(f"the body is over the limit of {limit} bytes once it is decompressed")
    if not inflater.eof:
        raise InputError(f"the body is cut short: its {encoding} has no end")
    return inflated


def compress(content: bytes, accepted: str) -> tuple[bytes, dict[str, str]]:
    """The answer in an encoding that the caller accepts, and its header."""
    if len(content) < COMPRESS_FROM or not accepted:
        return content, {}
    given = {part.partition(";")[0].strip().lower(): part.partition(";")[2] for part in accepted.split(",")}
    for encoding, bits in (("gzip", zlib.MAX_WBITS | 16), ("deflate", zlib.MAX_WBITS)):
        if encoding in given and given[encoding].replace(" ", "") not in ("q=0", "q=0.0"):
            packed = zlib.compress(content, level=1, wbits=bits)
            return packed, {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
    return content, {}


HANDLERS: list[Any] = [
    *(live, ready, server_metadata, model_metadata, model_ready, model_configuration, statistics),
    *(repository_index, load_model, unload_model, infer_model),
]
