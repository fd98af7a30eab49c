"""What the protocol says about the server and its models: readiness, metadata, configuration, statistics, the index."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from serving.errors import InputError, ModelNotFoundError, ModelUnavailableError, quoted
from serving.models.bundle import Tensor
from serving.models.model import Model
from serving.open_inference.messages import DATATYPES, IndexEntry, ModelMetadata, ServerMetadata, TensorMetadata
from serving.open_inference.statistics import model_statistics
from serving.service.service import Service

EXTENSIONS = [
    *("binary_tensor_data", "raw_request", "classification", "model_repository"),
    *("model_configuration", "statistics"),
]
# Triton's name for an ONNX model that onnxruntime runs.
PLATFORM = "onnx_onnxv1"


def check_ready(service: Service) -> None:
    """Check that the default model is loaded and that the service is not about to stop.

    Raises:
        ModelUnavailableError: one of both is not so.
    """
    if service.draining:
        raise ModelUnavailableError("the service is about to stop")
    try:
        service.repository.get(service.settings.model)
    except ModelNotFoundError as error:
        raise ModelUnavailableError(str(error)) from error


def server_metadata() -> ServerMetadata:
    return ServerMetadata("mnist-service", importlib.metadata.version("mnist-service"), EXTENSIONS)


def model_metadata(service: Service, model: Model) -> ModelMetadata:
    manifest = model.bundle.manifest
    return ModelMetadata(
        model.name,
        service.repository.versions(model.name),
        PLATFORM,
        [_tensor_metadata(tensor) for tensor in manifest.inputs],
        [_tensor_metadata(tensor) for tensor in manifest.outputs],
    )


def model_configuration(service: Service, model: Model) -> dict[str, Any]:
    """Return the configuration of a model in Triton's format."""
    manifest = model.bundle.manifest
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": service.settings.max_batch,
        "input": [_tensor_configuration(tensor) for tensor in manifest.inputs],
        "output": [_tensor_configuration(tensor) for tensor in manifest.outputs],
        "default_model_filename": manifest.serve,
        "parameters": {"precision": {"string_value": model.precision}},
    }


async def statistics(service: Service, name: str | None, version: str | None) -> dict[str, Any]:
    """Return the statistics of all models, of one model, or of one version: sums of all workers since the start.

    Raises:
        ModelNotFoundError, ModelUnavailableError: there is no such model.
    """
    if name is not None:
        service.repository.get(name, version)
    snapshots = await service.peers.snapshots()
    totals = await service.report(lambda: service.recorder.totals(snapshots))
    return {
        "model_stats": [
            model_statistics(model, totals[model.name, model.version])
            for model in service.repository.models()
            if name in (None, model.name) and version in (None, model.version)
        ]
    }


def repository_index(service: Service, *, only_ready: bool) -> list[IndexEntry]:
    """Return the state of every version at the last scan, and the reason why a version is not ready."""
    return [
        IndexEntry(entry.name, entry.version, entry.state, entry.reason)
        for entry in service.repository.index()
        if entry.state == "READY" or not only_ready
    ]


def check_load_parameters(parameters: Mapping[str, Any]) -> None:
    """Check that a request to load a model asks for nothing that this service does not do.

    Raises:
        InputError: it brings its own configuration or files.
    """
    for name, value in parameters.items():
        if value is not None and (name in ("config", "files") or name.startswith("file:")):
            raise InputError(
                f"parameter {quoted(name)}: not supported, because a model is loaded as it is in the repository; "
                "publish a new version there, and send the request without this parameter"
            )


def _tensor_metadata(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(tensor.name, DATATYPES[tensor.dtype], list(tensor.shape))


def _tensor_configuration(tensor: Tensor) -> dict[str, Any]:
    # Triton leaves out the first axis, the batch axis, because max_batch_size describes it. An output with one number
    # per image has no other axis, but Triton wants at least one.
    dims = list(tensor.shape[1:])
    form: dict[str, Any] = {"dims": dims} if dims else {"dims": [1], "reshape": {"shape": []}}
    return {"name": tensor.name, "data_type": f"TYPE_{DATATYPES[tensor.dtype]}"} | form
