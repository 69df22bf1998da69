"""Exact rewrites of PReLU. ONNX Runtime's own PRelu kernel is scalar and leaves the blocked layout.

PReLU_a(x) = x for x > 0, a*x otherwise (He et al. 2015, arXiv:1502.01852).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kiosk.errors import ModelError

# Nearer to 1 than this, k = a/(1-a) grows without bound: such layers take the form without k.
_NEAREST_TO_ONE = 1e-3


class _Edit:
    """One pass over a model: finds nodes by tensor, reads and replaces weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.made = {output: node for node in self.graph.node for output in node.output}
        self.read: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.read.setdefault(name, []).append(node)
        self._weights = {tensor.name: tensor for tensor in self.graph.initializer}

    def value(self, name: str) -> np.ndarray:
        if name not in self._weights:
            raise ModelError(f"a constant expected for {name}, got a computed tensor")
        return numpy_helper.to_array(self._weights[name])

    def replace(self, name: str, values: np.ndarray) -> None:
        self._weights[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    def add(self, name: str, values: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name


def as_blocked(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU_a(x) = k*x' + relu(x') with x' = (1-a)*x and k = a/(1-a), as Conv, Relu and Add.

    x' costs nothing: its factor is folded into the convolution before. k*x' is a 1x1 depthwise
    convolution, so that the whole graph stays in ONNX Runtime's blocked layout. For a > 1 the
    factor is a-1 and the result comes out negated, which the convolutions after take back.
    A PRelu that has no lone convolution before it, or a slope at 1, takes `as_four` form.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    edit = _Edit(result)
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
        elif _can_be_blocked(edit, node):
            nodes += _blocked(edit, node)
        else:
            nodes += _four(edit, node)
    return _with_nodes(result, edit, nodes)


def as_four(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU_a(x) = a*x + (1-a)*relu(x), as Mul, Relu, Mul and Add: exact for every slope."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    edit = _Edit(result)
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        nodes += _four(edit, node) if node.op_type == "PRelu" else [node]
    return _with_nodes(result, edit, nodes)


def _with_nodes(
    model: onnx.ModelProto, edit: _Edit, nodes: list[onnx.NodeProto]
) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in edit.graph.initializer if tensor.name in used]
    graph = helper.make_graph(
        nodes, model.graph.name, list(model.graph.input), list(model.graph.output), weights
    )
    result = helper.make_model(
        graph,
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )
    onnx.checker.check_model(result, full_check=True)
    return result


def _can_be_blocked(edit: _Edit, node: onnx.NodeProto) -> bool:
    slope = edit.value(node.input[1]).reshape(-1)
    before = edit.made.get(node.input[0])
    outputs = {value.name for value in edit.graph.output}
    after = edit.read.get(node.output[0], [])
    return (
        before is not None
        and before.op_type == "Conv"
        and len(edit.read[node.input[0]]) == 1
        and slope.size == edit.value(before.input[1]).shape[0]
        and bool((np.abs(1.0 - slope) >= _NEAREST_TO_ONE).all())
        and node.output[0] not in outputs
        and all(reader.op_type == "Conv" for reader in after)
        and all(_owns_weights(edit, convolution) for convolution in (before, *after))
    )


def _owns_weights(edit: _Edit, node: onnx.NodeProto) -> bool:
    """Whether a factor folded into this node's weights would reach no other node."""
    return all(len(edit.read[name]) == 1 for name in node.input[1:])


def _blocked(edit: _Edit, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    slope = edit.value(node.input[1]).reshape(-1).astype(np.float64)
    x, y = node.input[0], node.output[0]
    before = edit.made[x]
    factor = np.abs(1.0 - slope)
    for name in before.input[1:]:
        values = edit.value(name)
        edit.replace(name, values * factor.reshape(-1, *(1,) * (values.ndim - 1)))
    for reader in edit.read[y]:
        _take_back_sign(edit, reader, np.sign(1.0 - slope))
    k = edit.add(f"{y}_k", (slope / (1.0 - slope)).reshape(-1, 1, 1, 1))
    linear, positive = f"{y}_linear", f"{y}_positive"
    return [
        helper.make_node(
            "Conv", [x, k], [linear], name=linear, kernel_shape=[1, 1], group=slope.size
        ),
        helper.make_node("Relu", [x], [positive], name=positive),
        helper.make_node("Add", [linear, positive], [y], name=f"Add_{y}"),
    ]


def _take_back_sign(edit: _Edit, reader: onnx.NodeProto, sign: np.ndarray) -> None:
    """Multiply a convolution's weights by `sign` (per input channel of the tensor it reads)."""
    weights = edit.value(reader.input[1])
    group = next((a.i for a in reader.attribute if a.name == "group"), 1)
    if group == 1:
        edit.replace(reader.input[1], weights * sign.reshape(1, -1, 1, 1))
        return
    per_group = np.repeat(sign.reshape(group, -1), weights.shape[0] // group, axis=0)
    edit.replace(reader.input[1], weights * per_group[:, :, None, None])


def _four(edit: _Edit, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    slope = edit.value(node.input[1])
    x, y = node.input[0], node.output[0]
    names = {part: f"{y}_{part}" for part in ("linear", "positive", "scaled")}
    a, rest = edit.add(f"{y}_a", slope), edit.add(f"{y}_rest", 1.0 - slope.astype(np.float64))
    return [
        helper.make_node("Mul", [x, a], [names["linear"]], name=names["linear"]),
        helper.make_node("Relu", [x], [names["positive"]], name=names["positive"]),
        helper.make_node("Mul", [names["positive"], rest], [names["scaled"]], name=names["scaled"]),
        helper.make_node("Add", [names["linear"], names["scaled"]], [y], name=f"Add_{y}"),
    ]
