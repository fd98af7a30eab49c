"""All routes except inference: health, metadata, configuration, statistics, and the model repository."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, post

from serving.api.context import AnyRequest, context_of, read_body
from serving.api.json_images import JSON_ERRORS
from serving.api.key_schemes import IF_CONFIGURED, REQUIRED
from serving.api.open_inference.messages import IndexRequest, LoadRequest, ModelReady
from serving.api.open_inference.paths import model_of, model_paths, operation_ids
from serving.api.problems import ProtocolError, documented
from serving.errors import InputError
from serving.inference.threads import INLINE_BYTES
from serving.open_inference import models
from serving.open_inference.messages import IndexEntry, ModelMetadata, ServerMetadata
from serving.service.background import on_own_thread

MODEL_ERRORS = documented(400, 404, 503, form=ProtocolError)


# Health


@get(
    "/v2/health/live",
    operation_id="live",
    summary="Whether the process responds",
    response_description="The process responds.",
    tags=["health"],
    responses=documented(form=ProtocolError),
)
async def live() -> dict[str, bool]:
    """Respond to a liveness probe with 200, whether a model is loaded or not."""
    return {"live": True}


@get(
    "/v2/health/ready",
    operation_id="ready",
    summary="Whether the service can predict",
    response_description="The default model can predict.",
    tags=["health"],
    responses=documented(503, form=ProtocolError),
)
async def ready(request: AnyRequest) -> dict[str, bool]:
    """Respond to a readiness probe: 200 if the default model is loaded and the service is not about to stop."""
    models.check_ready(context_of(request).service)
    return {"ready": True}


@get(
    model_paths("/ready"), operation_id=operation_ids("modelReady"), summary="Whether a model can infer",
    response_description="The model can infer.", tags=["health"], responses=MODEL_ERRORS,
)  # fmt: skip
async def model_ready(request: AnyRequest) -> ModelReady:
    return ModelReady(model_of(request).name, True)


# Metadata


@get(
    "/v2",
    operation_id="serverMetadata",
    summary="Name, version and extensions of the server",
    response_description="Name, version and extensions.",
    tags=["metadata"],
    responses=documented(form=ProtocolError),
)
async def server_metadata() -> ServerMetadata:
    return models.server_metadata()


@get(
    model_paths(), operation_id=operation_ids("modelMetadata"), summary="Versions, inputs and outputs of a model",
    response_description="Versions, inputs and outputs.", tags=["metadata"], responses=MODEL_ERRORS,
)  # fmt: skip
async def model_metadata(request: AnyRequest) -> ModelMetadata:
    return models.model_metadata(context_of(request).service, model_of(request))


@get(
    model_paths("/config"), operation_id=operation_ids("modelConfiguration"), summary="Configuration of a model",
    response_description="The configuration, in Triton's form.", tags=["metadata"], responses=MODEL_ERRORS,
)  # fmt: skip
async def model_configuration(request: AnyRequest) -> dict[str, Any]:
    """Return the configuration of a model in Triton's format."""
    return models.model_configuration(context_of(request).service, model_of(request))


def _statistics_id(handler: Any, method: Any, components: list[Any]) -> str:
    if components == ["v2", "models", "stats"]:
        return "statistics"
    return operation_ids("modelStatistics")(handler, method, components)


@get(
    ["/v2/models/stats", *model_paths("/stats")],
    operation_id=_statistics_id,
    security=IF_CONFIGURED,
    summary="Number and duration of inferences by model version",
    response_description="The statistics of each version.",
    tags=["metadata"],
    responses=documented(400, 401, 404, 503, form=ProtocolError),
)
async def statistics(request: AnyRequest) -> dict[str, Any]:
    """Return the statistics of all models, of one model, or of one version: sums of all workers since the start."""
    context = context_of(request)
    context.service.keys.check_prediction(context)
    parameters = request.path_params
    return await models.statistics(context.service, parameters.get("name"), parameters.get("version"))


# The model repository


@post(
    "/v2/repository/index",
    status_code=200,
    operation_id="repositoryIndex",
    security=IF_CONFIGURED,
    summary="List every version in the repository",
    response_description="Every version, with its state.",
    tags=["repository"],
    responses=documented(400, 401, 413, form=ProtocolError),
)
async def repository_index(request: AnyRequest) -> list[IndexEntry]:
    """Return the state of every version at the last scan, and the reason why a version is not ready."""
    context = context_of(request)
    context.service.keys.check_prediction(context)
    body = await read_body(request, INLINE_BYTES)
    try:
        only_ready = msgspec.json.decode(body, type=IndexRequest).ready if body.strip() else False
    except JSON_ERRORS as error:
        raise InputError(f'the body must be empty, {{}} or {{"ready": true}}: {error}') from error
    return models.repository_index(context.service, only_ready=bool(only_ready))


@post(
    "/v2/repository/models/{name:str}/load",
    status_code=200,
    operation_id="loadModel",
    security=REQUIRED,
    summary="Load an unloaded model, and try its rejected versions again",
    response_description="Every worker has loaded the model.",
    tags=["repository"],
    responses=documented(400, 401, 403, 404, 413, 503, form=ProtocolError),
)
async def load_model(request: AnyRequest) -> dict[str, str]:
    """Respond when the model is loaded. The request needs an admin key."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    check_load(await read_body(request, INLINE_BYTES))
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
    models.check_load_parameters((request and request.parameters) or {})


@post(
    "/v2/repository/models/{name:str}/unload",
    status_code=200,
    operation_id="unloadModel",
    security=REQUIRED,
    summary="Unload a model",
    response_description="Every worker has unloaded the model.",
    tags=["repository"],
    responses=documented(400, 401, 403, 404, 503, form=ProtocolError),
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
