"""Exact rewrites of PReLU. ONNX Runtime's own PRelu kernel is scalar and leaves the blocked layout.

PReLU_a(x) = x for x > 0, a*x otherwise (He et al. 2015, arXiv:1502.01852).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from kiosk.lab.graph import FloatWeights, Net

# Nearer to 1 than this, k = a/(1-a) grows without bound: such layers take the form without k.
_NEAREST_TO_ONE = 1e-3
PART = "prelu_"
"""What the names of all nodes begin with that a rewrite makes: a quantiser leaves them alone."""

Nodes = list[onnx.NodeProto]


def as_blocked(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU_a(x) = k*x' + relu(x') with x' = (1-a)*x and k = a/(1-a), as Conv, Relu and Add.

    x' costs nothing: its factor is folded into the convolution before. k*x' is a 1x1 depthwise
    convolution, so that the whole graph stays in ONNX Runtime's blocked layout. For a > 1 the
    factor is a-1 and the result comes out negated, which the convolutions after take back.
    A PRelu that has no lone convolution before it, or a slope at 1, takes `as_four` form.
    """

    def lower(net: Net, node: onnx.NodeProto) -> Nodes:
        return _blocked(net, node) if _can_be_blocked(net, node) else _four(net, node)

    return _lowered(model, lower)


def as_four(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU_a(x) = a*x + (1-a)*relu(x), as Mul, Relu, Mul and Add: exact for every slope."""
    return _lowered(model, _four)


def as_max(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU_a(x) = max(x, a*x), as Mul and Max, where no slope exceeds 1; else `as_four` form.

    `with_slopes_below_one` makes every PRelu between convolutions fit.
    """

    def lower(net: Net, node: onnx.NodeProto) -> Nodes:
        if (slope_of(net, node) > 1.0).any():
            return _four(net, node)
        x, y = node.input[0], node.output[0]
        a, linear = net.add(f"{y}_a", net.value(node.input[1])), f"{y}_linear"
        return [_node("Mul", [x, a], linear), _node("Max", [x, linear], y)]

    return _lowered(model, lower)


def with_slopes_below_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU_a(-x) = -a * PReLU_{1/a}(x): a channel of slope a > 1 takes 1/a instead.

    Exact: the convolution before is negated in that channel, those after are multiplied by -a.
    A PRelu that does not stand alone between convolutions is left as it is.
    """
    net = Net(model)
    _spread_shared_slopes(net)
    for node in net.nodes:
        if node.op_type != "PRelu" or not _stands_between_convolutions(net, node):
            continue
        slope = slope_of(net, node)
        steep = slope > 1.0
        net.scale_rows(net.made[node.input[0]], np.where(steep, -1.0, 1.0))
        for reader in net.read[node.output[0]]:
            net.scale_columns(reader, np.where(steep, -slope, 1.0))
        turned = np.where(steep, 1.0 / np.where(steep, slope, 1.0), slope)
        net.replace(node.input[1], turned.reshape(net.value(node.input[1]).shape))
    return net.finish()


def slope_of(net: Net, node: onnx.NodeProto) -> FloatWeights:
    """A PRelu's slopes, float64: one for each channel, or a single one shared by all."""
    return net.value(node.input[1]).reshape(-1).astype(np.float64)


def _lowered(
    model: onnx.ModelProto, lower: Callable[[Net, onnx.NodeProto], Nodes]
) -> onnx.ModelProto:
    net = Net(model)
    _spread_shared_slopes(net)
    nodes: Nodes = []
    for node in net.nodes:
        nodes += lower(net, node) if node.op_type == "PRelu" else [node]
    return net.finish(nodes)


def _spread_shared_slopes(net: Net) -> None:
    """Give a PRelu after a convolution a slope for each channel where it has one for all."""
    for node in net.nodes:
        before = net.made.get(node.input[0])
        if node.op_type != "PRelu" or before is None or before.op_type != "Conv":
            continue
        channels = net.value(before.input[1]).shape[0]
        slope = slope_of(net, node)
        if slope.size == 1 and channels > 1:
            name = net.add(f"{node.output[0]}_slopes", np.full((channels, 1, 1), slope[0]))
            node.input[1] = name
    net.index()


def _stands_between_convolutions(net: Net, node: onnx.NodeProto) -> bool:
    """Whether factors on a PRelu's channels can go into the convolutions around it."""
    before, after = net.made.get(node.input[0]), net.read.get(node.output[0], [])
    return (
        before is not None
        and before.op_type == "Conv"
        and net.sole_reader(node.input[0]) is not None
        and net.is_constant(node.input[1])
        and slope_of(net, node).size == net.value(before.input[1]).shape[0]
        and len(net.read[node.input[1]]) == 1
        and node.output[0] not in net.outputs
        and all(reader.op_type == "Conv" for reader in after)
        and all(net.owns_weights(convolution) for convolution in (before, *after))
    )


def _can_be_blocked(net: Net, node: onnx.NodeProto) -> bool:
    if not _stands_between_convolutions(net, node):
        return False
    return bool((np.abs(1.0 - slope_of(net, node)) >= _NEAREST_TO_ONE).all())


def _blocked(net: Net, node: onnx.NodeProto) -> Nodes:
    slope = slope_of(net, node)
    x, y = node.input[0], node.output[0]
    net.scale_rows(net.made[x], np.abs(1.0 - slope))
    for reader in net.read[y]:
        net.scale_columns(reader, np.sign(1.0 - slope))
    k = net.add(f"{y}_k", (slope / (1.0 - slope)).reshape(-1, 1, 1, 1))
    linear, positive = f"{y}_linear", f"{y}_positive"
    return [
        _node("Conv", [x, k], linear, kernel_shape=[1, 1], group=slope.size),
        _node("Relu", [x], positive),
        _node("Add", [linear, positive], y),
    ]


def _four(net: Net, node: onnx.NodeProto) -> Nodes:
    slope = net.value(node.input[1]).astype(np.float64)
    x, y = node.input[0], node.output[0]
    a, rest = net.add(f"{y}_a", slope), net.add(f"{y}_rest", 1.0 - slope)
    linear, positive, scaled = f"{y}_linear", f"{y}_positive", f"{y}_scaled"
    return [
        _node("Mul", [x, a], linear),
        _node("Relu", [x], positive),
        _node("Mul", [positive, rest], scaled),
        _node("Add", [linear, scaled], y),
    ]


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{PART}{output}", **attributes)
