"""Export a ServingGraph, or a Cascade of two, to an ONNX file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from export import opset as opsets
from export.cascade import Cascade
from export.fuse import FusedGraph
from export.graph import ServingGraph
from export.join import join
from training.checkpoint import write_atomically
from training.networks import IMAGE_SIZE


def export_onnx(graph: ServingGraph | Cascade, path: Path, labels: Sequence[str], opset: int = opsets.DEFAULT) -> None:
    """Write ``graph`` to ``path`` with the names of its classes. The same weights give the same bytes.

    Args:
        opset: the version of the operators. The IR version is the lowest that has this opset.
    """
    if isinstance(graph, Cascade):
        model = join(_converted(graph.first, opset), _converted(graph.second, opset), graph)
    else:
        model = _converted(graph, opset)
    onnx.helper.set_model_props(model, {"labels": "\n".join(labels)})
    write_atomically(path, model.SerializeToString())
    # From memory, because onnx takes no path that is not UTF-8.
    onnx.checker.check_model(path.read_bytes(), full_check=True)


def _converted(graph: nn.Module, opset: int) -> onnx.ModelProto:
    """Return the ONNX model of a :class:`ServingGraph`."""
    assert isinstance(graph, ServingGraph)  # noqa: S101 (also each part of a Cascade that is exported)
    # With a batch of one, the exporter could take the batch size for a constant.
    example = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with warnings.catch_warnings():
        # While torch 2.13 copies the graph, it calls one of its deprecated functions.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        program = torch.onnx.export(
            FusedGraph(graph),
            (example,),
            input_names=["images"],
            output_names=graph.outputs,
            dynamic_shapes={"images": {0: "batch"}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 (it is None only with dynamo=False)
    # The nodes hold stack traces, which show file paths of the machine that made them.
    ClearMetadataAndDocStringPass()(program.model)
    for tensor in program.model.graph.inputs:
        tensor.metadata_props.clear()
    program.model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    return program.model_proto
