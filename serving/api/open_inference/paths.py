"""The paths that name a model, with or without a version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.api.context import AnyRequest, context_of
from serving.models.model import Model


def model_paths(ending: str = "") -> list[str]:
    """Return the two paths of a route about a model: without the version, and with it."""
    return [f"/v2/models/{{name:str}}{ending}", f"/v2/models/{{name:str}}/versions/{{version:str}}{ending}"]


def model_of(request: AnyRequest) -> Model:
    """Return the model that the path names: the newest version if the path has none, the stable one in a rollout.

    Raises:
        ModelNotFoundError, ModelUnavailableError: it is not loaded.
    """
    parameters = request.path_params
    return context_of(request).service.repository.get(parameters["name"], parameters.get("version"))


def operation_ids(name: str) -> Callable[[Any, Any, list[Any]], str]:
    """Return a function that gives each of the two paths of a route its own OpenAPI operation id."""

    def operation_id(_: Any, __: Any, components: list[Any]) -> str:
        return f"{name}Version" if "versions" in components else name

    return operation_id
