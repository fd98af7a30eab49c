"""FusedGraph: fewer steps, and the same numbers."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from export.fuse import FusedGraph
from export.graph import ServingGraph
from export.onnx import export_onnx
from training.networks import NETWORKS, Cnn, build
from training.trust.calibrate import Calibration
from training.trust.novelty import Novelty

CNNS = [name for name in NETWORKS if isinstance(build(name), Cnn)]


def serving_graph(name, *, with_maps):
    """The graph of a network with random weights, in which no normalization leaves its values as they are."""
    torch.manual_seed(0)
    network = build(name)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(values)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    maps = network.eval().features(torch.zeros(1, 1, 28, 28)).maps
    novelty = Novelty(network.head.in_features + 10, maps.shape[1] if with_maps else 0).eval()
    return ServingGraph(network, Calibration(1.3, novelty, 0.0))


@pytest.mark.parametrize(
    ("name", "with_maps"), [*((name, False) for name in NETWORKS), *((name, True) for name in CNNS)]
)
def test_fused_graph_gives_the_same_numbers(name, with_maps, digits):
    graph = serving_graph(name, with_maps=with_maps)
    images = torch.from_numpy(digits[:50])
    with torch.inference_mode():
        for fused, expected in zip(FusedGraph(graph)(images), graph(images), strict=True):
            torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-4)


def test_fused_graph_leaves_the_other_as_it_is(digits):
    graph = serving_graph("cnn-light", with_maps=True)
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    FusedGraph(graph)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


@pytest.mark.parametrize(("name", "scalings"), [("cnn-light", 0), ("mlp", 0), ("cnn", 1)])
def test_first_layer_scales_the_pixels_unless_it_pads_the_image(name, scalings, tmp_path):
    export_onnx(serving_graph(name, with_maps=False), tmp_path / "model.onnx", "0123456789")
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operators.count("Mul") == scalings
    assert operators.count("Div") == 0


def test_features_are_joined_once(tmp_path):
    export_onnx(serving_graph("cnn-light", with_maps=True), tmp_path / "model.onnx", "0123456789")
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operators.count("Concat") == 1
