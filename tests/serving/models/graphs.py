"""ONNX files with the tensors of a digit model, each wrong in its own way."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = numpy_helper.from_array(np.zeros((784, 10), np.float32), "weights")
AXIS = numpy_helper.from_array(np.array([1], np.int64), "axis")
TRUE = numpy_helper.from_array(np.array(True), "true")

# The pixels of each image as one row of numbers.
ROWS = [
    helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
    helper.make_node("Flatten", ["numbers"], ["rows"]),
]
PRODUCT = helper.make_node("MatMul", ["rows", "weights"], ["product"])
# The outputs from the tensor "result".
OUTPUTS = [
    helper.make_node("Identity", ["result"], ["logits"]),
    helper.make_node("Softmax", ["logits"], ["probabilities"]),
    helper.make_node("ReduceMax", ["logits", "axis"], ["novelty"], keepdims=0),
]


def tensor(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes, weights=WEIGHTS, kind=TensorProto.FLOAT, images=TensorProto.UINT8):
    """Return the bytes of an ONNX file with these operators."""
    outputs = [tensor("logits", "batch", 10, kind=kind), tensor("probabilities", "batch", 10, kind=kind)]
    made = helper.make_graph(
        nodes,
        "digits",
        [tensor("images", "batch", 28, 28, kind=images)],
        [*outputs, tensor("novelty", "batch", kind=kind)],
        [weights, AXIS, TRUE],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def other_model():
    """A valid model that gives every digit the same probability."""
    return graph([*ROWS, PRODUCT, helper.make_node("Identity", ["product"], ["result"]), *OUTPUTS])


def double_precision():
    """A model whose outputs are float64."""
    wide = helper.make_node("Cast", ["product"], ["result"], to=TensorProto.DOUBLE)
    return graph([*ROWS, PRODUCT, wide, *OUTPUTS], kind=TensorProto.DOUBLE)


def endless_loop():
    """A model that never ends: a loop whose condition stays true."""
    flag, number = TensorProto.BOOL, TensorProto.FLOAT
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["state"], ["next"])],
        "body",
        [tensor("turn", kind=TensorProto.INT64), tensor("go", kind=flag), tensor("state", None, 10, kind=number)],
        [tensor("on", kind=flag), tensor("next", None, 10, kind=number)],
    )
    return graph([*ROWS, PRODUCT, helper.make_node("Loop", ["", "true", "product"], ["result"], body=body), *OUTPUTS])


def one_row_for_all():
    """A model that gives one row of logits, whatever the number of images is. It declares one for each image."""
    condition = helper.make_node("Unsqueeze", ["true", "zero"], ["first"])
    zero = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array([0], np.int64)))
    rows = helper.make_node("Compress", ["product", "first"], ["result"], axis=0)
    return graph([zero, condition, *ROWS, PRODUCT, rows, *OUTPUTS])


def memory_bomb():
    """A model of a few bytes that makes a tensor of 4 GB."""
    size = numpy_helper.from_array(np.array([10**6, 1000], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["size"], value=size),
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["largest"], keepdims=0),
        helper.make_node("Add", ["product", "largest"], ["result"]),
    ]
    return graph([*ROWS, PRODUCT, *nodes, *OUTPUTS])


def growing_loop():
    """A model with a loop that doubles a tensor in each turn, and never ends."""
    flag = TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Concat", ["state", "state"], ["next"], axis=0),
        ],
        "body",
        [tensor("turn", kind=TensorProto.INT64), tensor("go", kind=flag), tensor("state", None, 10)],
        [tensor("on", kind=flag), tensor("next", None, 10)],
    )
    return graph([*ROWS, PRODUCT, helper.make_node("Loop", ["", "true", "product"], ["result"], body=body), *OUTPUTS])


def external_weights(location):
    """A model whose weights are in another file."""
    weights = onnx.TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[784, 10], data_location=1)
    weights.external_data.add(key="location", value=str(location))
    return graph([*ROWS, PRODUCT, helper.make_node("Identity", ["product"], ["result"]), *OUTPUTS], weights)
