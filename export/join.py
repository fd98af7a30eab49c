"""Join the ONNX files of the two graphs of a cascade."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.cascade import Cascade

# The constants of the joined file, by their names in it.
CONSTANTS = SHARE, LEAST_CONFIDENCE, HIGHEST_NOVELTY = "share", "least confidence", "highest novelty"


def join(first: ModelProto, second: ModelProto, cascade: Cascade) -> ModelProto:
    """Return one model that does what ``cascade`` does, from the models of its graphs.

    The second graph is in the branch of an ``If``, so it costs nothing if the first one is sure about all images.
    """
    first = onnx.compose.add_prefix(first, "first/", rename_inputs=False)
    second = onnx.compose.add_prefix(second, "second/")
    names = cascade.outputs
    images = first.graph.input[0].name
    decide = [
        helper.make_node("ReduceMax", ["first/probabilities", "classes"], ["confidence"], keepdims=0),
        helper.make_node("Less", ["confidence", LEAST_CONFIDENCE], ["is unsure"]),
        helper.make_node("Greater", ["first/novelty", HIGHEST_NOVELTY], ["is novel"]),
        helper.make_node("Or", ["is unsure", "is novel"], ["is left"]),
        # ReduceMax takes no booleans.
        helper.make_node("Cast", ["is left"], ["left as number"], to=TensorProto.UINT8),
        helper.make_node("ReduceMax", ["left as number"], ["any as number"], keepdims=0),
        helper.make_node("Cast", ["any as number"], ["any is left"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["any is left"],
            names,
            then_branch=_joining(second, first, images, names),
            else_branch=helper.make_graph(
                [helper.make_node("Identity", [f"first/{name}"], [f"else/{name}"]) for name in names],
                "the first graph is sure about all images",
                [],
                [_renamed(output, f"else/{name}") for output, name in zip(first.graph.output, names, strict=True)],
            ),
        ),
    ]
    constants = [
        helper.make_tensor("classes", TensorProto.INT64, [1], [1]),
        helper.make_tensor(LEAST_CONFIDENCE, TensorProto.FLOAT, [], [cascade.sure]),
        helper.make_tensor(HIGHEST_NOVELTY, TensorProto.FLOAT, [], [cascade.highest_novelty]),
        helper.make_tensor(SHARE, TensorProto.FLOAT, [], [cascade.share]),
    ]
    graph = helper.make_graph(
        [*first.graph.node, *decide],
        "cascade",
        first.graph.input,
        [_renamed(output, name) for output, name in zip(first.graph.output, names, strict=True)],
        [*first.graph.initializer, *constants],
    )
    return helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)


def settings_of(model: ModelProto) -> dict[str, float]:
    """Return ``share``, ``sure`` and ``familiar`` of the cascade that a file holds. Older files have no share."""
    found = {each.name: each for each in model.graph.initializer}
    values = {name: numpy_helper.to_array(found[name]).item() if name in found else 0.0 for name in CONSTANTS}
    share, sure, highest_novelty = values.values()
    return {"share": share, "sure": sure, "familiar": 1 / (1 + math.exp(highest_novelty))}


def _joining(second: ModelProto, first: ModelProto, images: str, names: Sequence[str]) -> onnx.GraphProto:
    """Return the branch that runs the second graph on the images that are left, and joins the outputs of both."""
    logits, probabilities, novelty = names
    return helper.make_graph(
        [
            helper.make_node("NonZero", ["is left"], ["row of places"]),
            helper.make_node("Transpose", ["row of places"], ["places"]),
            helper.make_node("GatherND", [images, "places"], [second.graph.input[0].name]),
            # Leave out the softmax of the second graph: the probabilities are those of the mean logits of both graphs.
            *(node for node in second.graph.node if f"second/{probabilities}" not in node.output),
            *_mean(logits),
            *_mean(novelty),
            helper.make_node("Softmax", [f"both/{logits}"], [f"both/{probabilities}"], axis=1),
            *(
                helper.make_node("ScatterND", [f"first/{name}", "places", f"both/{name}"], [f"then/{name}"])
                for name in names
            ),
        ],
        "both graphs decide the images that are left",
        [],
        [_renamed(output, f"then/{name}") for output, name in zip(first.graph.output, names, strict=True)],
        second.graph.initializer,
    )


def _mean(name: str) -> list[NodeProto]:
    """Return the nodes for the weighted mean of an output of both graphs, second + share * (first - second)."""
    return [
        helper.make_node("GatherND", [f"first/{name}", "places"], [f"left/{name}"]),
        helper.make_node("Sub", [f"left/{name}", f"second/{name}"], [f"difference/{name}"]),
        helper.make_node("Mul", [f"difference/{name}", SHARE], [f"part/{name}"]),
        helper.make_node("Add", [f"second/{name}", f"part/{name}"], [f"both/{name}"]),
    ]


def _renamed(output: ValueInfoProto, name: str) -> ValueInfoProto:
    copied = ValueInfoProto()
    copied.CopyFrom(output)
    copied.name = name
    return copied
