"""ServingGraph to an ONNX file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from export.graph import ServingGraph
from training.networks import IMAGE_SIZE

# Stated, because torch's own default moves from version to version.
OPSET = 20


def export_onnx(graph: ServingGraph, path: Path, labels: Sequence[str]) -> None:
    """Write ``graph`` to ``path``, its class names inside. The same weights give the same bytes."""
    example = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch 2.13 trips over a deprecation of its own while it copies the graph.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=["images"],
            output_names=graph.outputs,
            dynamic_shapes={"images": {0: "batch"}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 (None only without dynamo)
    # The nodes carry stack traces with the paths of the machine they were made on.
    ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props["labels"] = "\n".join(labels)
    program.save(path, external_data=False)
    onnx.checker.check_model(path, full_check=True)
