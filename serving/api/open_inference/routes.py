"""All routes except inference: health, metadata, configuration, statistics, and the model repository."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import msgspec
from litestar import get, post

from serving.api.background import on_own_thread
from serving.api.context import AnyRequest, context_of, read_body
from serving.api.json_images import JSON_ERRORS
from serving.api.open_inference.messages import (
    DATATYPES,
    IndexEntry,
    IndexRequest,
    LoadRequest,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    TensorMetadata,
)
from serving.api.open_inference.paths import model_of, model_paths, operation_ids
from serving.api.open_inference.statistics import model_statistics
from serving.api.problems import ProtocolError, documented
from serving.errors import InputError, ModelNotFoundError, ModelUnavailableError, quoted
from serving.models.bundle import Tensor

EXTENSIONS = [
    *("binary_tensor_data", "raw_request", "classification", "model_repository"),
    *("model_configuration", "statistics"),
]
# Triton's name for an ONNX model that onnxruntime runs.
PLATFORM = "onnx_onnxv1"

MODEL_ERRORS = documented(404, 503, form=ProtocolError)
STATISTICS_ERRORS = documented(401, 404, 503, form=ProtocolError)
ADMIN_ERRORS = documented(401, 403, 404, 503, form=ProtocolError)
LOAD_ERRORS = documented(400, 401, 403, 404, 413, 503, form=ProtocolError)


# Health


@get("/v2/health/live", operation_id="live", summary="Whether the process responds", tags=["health"])
async def live() -> dict[str, bool]:
    """Respond to a liveness probe with 200, whether a model is loaded or not."""
    return {"live": True}


@get(
    "/v2/health/ready",
    operation_id="ready",
    summary="Whether the service can predict",
    tags=["health"],
    responses=documented(503, form=ProtocolError),
)
async def ready(request: AnyRequest) -> dict[str, bool]:
    """Respond to a readiness probe: 200 if the default model is loaded and the service is not about to stop."""
    service = context_of(request).service
    if service.draining:
        raise ModelUnavailableError("the service is about to stop")
    try:
        service.repository.get(service.settings.model)
    except ModelNotFoundError as error:
        raise ModelUnavailableError(str(error)) from error
    return {"ready": True}


@get(
    model_paths("/ready"), operation_id=operation_ids("modelReady"), summary="Whether a model can infer",
    tags=["health"], responses=MODEL_ERRORS,
)  # fmt: skip
async def model_ready(request: AnyRequest) -> ModelReady:
    return ModelReady(model_of(request).name, True)


# Metadata


@get("/v2", operation_id="serverMetadata", summary="Name, version and extensions of the server", tags=["metadata"])
async def server_metadata() -> ServerMetadata:
    return ServerMetadata("mnist-service", importlib.metadata.version("mnist-service"), EXTENSIONS)


@get(
    model_paths(), operation_id=operation_ids("modelMetadata"), summary="Versions, inputs and outputs of a model",
    tags=["metadata"], responses=MODEL_ERRORS,
)  # fmt: skip
async def model_metadata(request: AnyRequest) -> ModelMetadata:
    model = model_of(request)
    manifest = model.bundle.manifest
    return ModelMetadata(
        model.name,
        context_of(request).service.repository.versions(model.name),
        PLATFORM,
        [_tensor_metadata(tensor) for tensor in manifest.inputs],
        [_tensor_metadata(tensor) for tensor in manifest.outputs],
    )


@get(
    model_paths("/config"), operation_id=operation_ids("modelConfiguration"), summary="Configuration of a model",
    tags=["metadata"], responses=MODEL_ERRORS,
)  # fmt: skip
async def model_configuration(request: AnyRequest) -> dict[str, Any]:
    """Return the configuration of a model in Triton's format."""
    model = model_of(request)
    manifest = model.bundle.manifest
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": context_of(request).service.settings.max_batch,
        "input": [_tensor_configuration(tensor) for tensor in manifest.inputs],
        "output": [_tensor_configuration(tensor) for tensor in manifest.outputs],
        "default_model_filename": manifest.serve,
        "parameters": {"precision": {"string_value": model.precision}},
    }


@get(
    ["/v2/models/stats", *model_paths("/stats")],
    operation_id=lambda _, __, components: "statistics" + str(len(components)),
    summary="Number and duration of inferences by model version",
    tags=["metadata"],
    responses=STATISTICS_ERRORS,
)
async def statistics(request: AnyRequest) -> dict[str, Any]:
    """Return the statistics of all models, of one model, or of one version: sums of all workers since the start."""
    context = context_of(request)
    service = context.service
    service.keys.check_prediction(context)
    name, version = request.path_params.get("name"), request.path_params.get("version")
    if name is not None:
        service.repository.get(name, version)  # Raises the error if there is no such model.
    snapshots = await service.peers.snapshots()
    totals = await service.report(lambda: service.recorder.totals(snapshots))
    return {
        "model_stats": [
            model_statistics(model, totals[model.name, model.version])
            for model in service.repository.models()
            if name in (None, model.name) and version in (None, model.version)
        ]
    }


def _tensor_metadata(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(tensor.name, DATATYPES[tensor.dtype], list(tensor.shape))


def _tensor_configuration(tensor: Tensor) -> dict[str, Any]:
    # Triton leaves out the first axis, the batch axis, because max_batch_size describes it. An output with one number
    # per image has no other axis, but Triton wants at least one.
    dims = list(tensor.shape[1:])
    form: dict[str, Any] = {"dims": dims} if dims else {"dims": [1], "reshape": {"shape": []}}
    return {"name": tensor.name, "data_type": f"TYPE_{DATATYPES[tensor.dtype]}"} | form


# The model repository


@post(
    "/v2/repository/index",
    status_code=200,
    operation_id="repositoryIndex",
    summary="List every version in the repository",
    tags=["repository"],
    responses=documented(400, 401, 413, form=ProtocolError),
)
async def repository_index(request: AnyRequest) -> list[IndexEntry]:
    """Return the state of every version at the last scan, and the reason why a version is not ready."""
    context = context_of(request)
    context.service.keys.check_prediction(context)
    body = await request.body()
    try:
        only_ready = msgspec.json.decode(body, type=IndexRequest).ready if body.strip() else False
    except JSON_ERRORS as error:
        raise InputError(f'the body must be empty, {{}} or {{"ready": true}}: {error}') from error
    return [
        IndexEntry(entry.name, entry.version, entry.state, entry.reason)
        for entry in context.service.repository.index()
        if entry.state == "READY" or not only_ready
    ]


@post(
    "/v2/repository/models/{name:str}/load",
    status_code=200,
    operation_id="loadModel",
    summary="Load a model, or look for its new versions now",
    tags=["repository"],
    responses=LOAD_ERRORS,
)
async def load_model(request: AnyRequest) -> dict[str, str]:
    """Respond when the model is loaded. The request needs an admin key."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    check_load(await read_body(request, context.service.settings.max_body))
    await on_own_thread(lambda: context.service.load_model(request.path_params["name"]))
    return {}


def check_load(body: bytes) -> None:
    """Check that the body of a request to load a model asks for nothing that this service does not do.

    Raises:
        InputError: it brings its own configuration or files, or it is not JSON.
    """
    try:
        request = msgspec.json.decode(body, type=LoadRequest | None) if body.strip() else None
    except JSON_ERRORS as error:
        raise InputError(f"the body must be empty or a JSON object such as {{}}: {error}") from error
    for name, value in ((request and request.parameters) or {}).items():
        if value is not None and (name in ("config", "files") or name.startswith("file:")):
            raise InputError(
                f"parameter {quoted(name)}: not supported, because a model is loaded as it is in the repository; "
                "publish a new version there, and send the request without this parameter"
            )


@post(
    "/v2/repository/models/{name:str}/unload",
    status_code=200,
    operation_id="unloadModel",
    summary="Unload a model",
    tags=["repository"],
    responses=ADMIN_ERRORS,
)
async def unload_model(request: AnyRequest) -> dict[str, str]:
    """Respond when the model is unloaded and no request uses it any more. The request needs an admin key."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    await on_own_thread(lambda: context.service.unload_model(request.path_params["name"]))
    return {}


HANDLERS: list[Any] = [
    *(live, ready, server_metadata, model_metadata, model_ready, model_configuration, statistics),
    *(repository_index, load_model, unload_model),
]
