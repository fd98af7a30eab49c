"""All methods except ModelInfer: health, metadata, configuration, statistics, and the model repository.

Each takes a call and its parsed request, and returns the response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict

from serving.errors import InputError, ModelNotFoundError, ModelUnavailableError
from serving.grpc.infer import values_of
from serving.grpc.messages import RESPONSES
from serving.open_inference import models
from serving.service.background import on_own_thread
from serving.service.call import Call

Method = Callable[[Call, Any], Awaitable[Any]]


async def server_live(call: Call, request: Any) -> Any:
    return RESPONSES["ServerLive"](live=True)


async def server_ready(call: Call, request: Any) -> Any:
    return RESPONSES["ServerReady"](ready=is_ready(lambda: models.check_ready(call.service)))


async def model_ready(call: Call, request: Any) -> Any:
    repository = call.service.repository
    return RESPONSES["ModelReady"](ready=is_ready(lambda: repository.get(request.name, request.version or None)))


def is_ready(check: Callable[[], object]) -> bool:
    """Return whether ``check`` does not say that a model is missing or unavailable."""
    try:
        check()
    except (ModelNotFoundError, ModelUnavailableError):
        return False
    return True


async def server_metadata(call: Call, request: Any) -> Any:
    return written("ServerMetadata", msgspec.to_builtins(models.server_metadata()))


async def model_metadata(call: Call, request: Any) -> Any:
    model = call.service.repository.get(request.name, request.version or None)
    return written("ModelMetadata", msgspec.to_builtins(models.model_metadata(call.service, model)))


async def model_config(call: Call, request: Any) -> Any:
    model = call.service.repository.get(request.name, request.version or None)
    return written("ModelConfig", {"config": models.model_configuration(call.service, model)})


async def model_statistics(call: Call, request: Any) -> Any:
    call.service.keys.check_prediction(call)
    found = await models.statistics(call.service, request.name or None, request.version or None)
    return written("ModelStatistics", found)


async def repository_index(call: Call, request: Any) -> Any:
    call.service.keys.check_prediction(call)
    check_repository(request)
    entries = models.repository_index(call.service, only_ready=request.ready)
    return written("RepositoryIndex", {"models": msgspec.to_builtins(entries)})


async def repository_model_load(call: Call, request: Any) -> Any:
    call.service.keys.check_admin(call)
    check_repository(request)
    models.check_load_parameters(values_of(request.parameters))
    await on_own_thread(lambda: call.service.load_model(request.model_name))
    return RESPONSES["RepositoryModelLoad"]()


async def repository_model_unload(call: Call, request: Any) -> Any:
    call.service.keys.check_admin(call)
    check_repository(request)
    await on_own_thread(lambda: call.service.unload_model(request.model_name))
    return RESPONSES["RepositoryModelUnload"]()


def check_repository(request: Any) -> None:
    if request.repository_name:
        raise InputError("repository_name: this service has a single repository; leave the name out")


def written(method: str, values: Any) -> Any:
    """Return the response of a method with these values, which are named like its fields."""
    return ParseDict(values, RESPONSES[method]())


METHODS: dict[str, Method] = {
    "ServerLive": server_live,
    "ServerReady": server_ready,
    "ModelReady": model_ready,
    "ServerMetadata": server_metadata,
    "ModelMetadata": model_metadata,
    "ModelConfig": model_config,
    "ModelStatistics": model_statistics,
    "RepositoryIndex": repository_index,
    "RepositoryModelLoad": repository_model_load,
    "RepositoryModelUnload": repository_model_unload,
}
