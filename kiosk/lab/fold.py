"""Layers that are one linear map written as two: folded into one, exactly.

Batch normalisation into the convolution or Gemm beside it (Jacob et al. 2018, arXiv:1712.05877,
section 3.2), and a 1x1 convolution into another 1x1 convolution after it with nothing between.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from kiosk.lab.graph import FloatWeights, Net, attribute, is_pointwise

_EPSILON = 1e-5


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every batch normalisation and linear pair folded that folds exactly.

    A batch normalisation before a padded convolution stays: zeros of the border would not be
    zeros any more. A linear pair stays where one layer would cost more than the two.
    """
    net = Net(model)
    for node in net.nodes:
        if node.op_type == "BatchNormalization":
            _fold_backward(net, node) or _fold_forward(net, node)
    _drop_identities(net)
    for node in net.nodes:
        if node.op_type == "Conv":
            _fold_pair(net, node)
    return net.finish()


def with_pointwise_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Batch normalisations before convolutions as 1x1 depthwise convolutions, exactly.

    For what `folded` has to leave: the quantiser keeps BatchNormalization in float, with Q, DQ and
    two transpositions around it. A channel's only weight is 127 of its own scale in INT8, so that
    nothing is lost in it.
    """
    net = Net(model)
    for node in net.nodes:
        readers = net.read.get(node.output[0], [])
        if node.op_type != "BatchNormalization" or not any(r.op_type == "Conv" for r in readers):
            continue
        scale, shift = _affine(net, node)
        y = node.output[0]
        # Not y_scale: ONNX Runtime's quantiser gives that name to the scale of y itself.
        constants = [
            net.add(f"{y}_norm_weight", scale.reshape(-1, 1, 1, 1)),
            net.add(f"{y}_norm_bias", shift),
        ]
        pointwise = helper.make_node(
            "Conv",
            [node.input[0], *constants],
            [y],
            name=f"Norm_{y}",
            kernel_shape=[1, 1],
            group=scale.size,
        )
        node.CopyFrom(pointwise)
    return net.finish()


def _affine(net: Net, node: onnx.NodeProto) -> tuple[FloatWeights, FloatWeights]:
    """Scale and shift of a batch normalisation, float64, one for each channel."""
    gamma, beta, mean, variance = (net.value(name).astype(np.float64) for name in node.input[1:5])
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), _EPSILON)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _fold_backward(net: Net, node: onnx.NodeProto) -> bool:
    """Into the convolution or Gemm before, if this node alone reads it."""
    before = net.made.get(node.input[0])
    if before is None or before.op_type not in {"Conv", "Gemm"}:
        return False
    if net.sole_reader(node.input[0]) is None or not net.owns_weights(before):
        return False
    if before.op_type == "Gemm" and not _is_plain(before):
        return False
    scale, shift = _affine(net, node)
    net.scale_rows(before, scale)
    _add_bias(net, before, shift)
    _take_out(net, node, into=before)
    return True


def _fold_forward(net: Net, node: onnx.NodeProto) -> bool:
    """Into an unpadded convolution, or through a Flatten into a Gemm, that alone reads it."""
    after = net.sole_reader(node.output[0])
    scale, shift = _affine(net, node)
    if after is None:
        return False
    if after.op_type in {"Flatten", "Reshape"}:
        flat, after = after, net.sole_reader(after.output[0])
        if after is None or after.op_type != "Gemm" or flat.input[0] != node.output[0]:
            return False
        each = net.value(after.input[1]).shape[attribute(after, "transB", 0)] // scale.size
        if not _is_plain(after) or not net.owns_weights(after):
            return False
        _absorb(net, after, np.repeat(scale, each), np.repeat(shift, each))
    elif after.op_type == "Conv" and _absorbs(net, after):
        _absorb(net, after, scale, shift)
    else:
        return False
    _bypass(net, node)
    return True


def _absorbs(net: Net, convolution: onnx.NodeProto) -> bool:
    pads = next((a.ints for a in convolution.attribute if a.name == "pads"), ())
    automatic = any(a.name == "auto_pad" and a.s != b"VALID" for a in convolution.attribute)
    alone = attribute(convolution, "group", 1) == 1
    return not any(pads) and not automatic and alone and net.owns_weights(convolution)


def _is_plain(gemm: onnx.NodeProto) -> bool:
    factors = {a.name: a.f for a in gemm.attribute if a.name in {"alpha", "beta"}}
    return all(value == 1.0 for value in factors.values()) and not attribute(gemm, "transA", 0)


def _absorb(net: Net, after: onnx.NodeProto, scale: FloatWeights, shift: FloatWeights) -> None:
    """Make `after` take x where it took scale*x + shift."""
    weights = net.value(after.input[1]).astype(np.float64)
    if after.op_type == "Gemm":
        matrix = weights if attribute(after, "transB", 0) else weights.T
        bias, scaled = matrix @ shift, matrix * scale
        net.replace(after.input[1], scaled if attribute(after, "transB", 0) else scaled.T)
    else:
        bias = (weights.sum(axis=(2, 3)) @ shift).reshape(-1)
        net.replace(after.input[1], weights * scale.reshape(1, -1, 1, 1))
    _add_bias(net, after, bias)


def _add_bias(net: Net, node: onnx.NodeProto, values: FloatWeights) -> None:
    if len(node.input) > 2 and node.input[2]:
        net.replace(node.input[2], net.value(node.input[2]).astype(np.float64) + values)
        return
    name = net.add(f"{node.output[0]}_folded_bias", values)
    inputs = [node.input[0], node.input[1], name]
    node.input[:] = inputs


def _take_out(net: Net, node: onnx.NodeProto, *, into: onnx.NodeProto) -> None:
    """Remove a node whose work the one before it now does: that one takes over its output."""
    into.output[0] = node.output[0]
    net.graph.node.remove(node)
    net.index()


def _bypass(net: Net, node: onnx.NodeProto) -> None:
    """Remove a node whose work the ones after it now do."""
    for reader in net.read[node.output[0]]:
        reader.input[:] = [node.input[0] if n == node.output[0] else n for n in reader.input]
    net.graph.node.remove(node)
    net.index()


def _drop_identities(net: Net) -> None:
    """Identity, and Dropout at inference, do nothing."""
    for node in net.nodes:
        idle = node.op_type in {"Identity", "Dropout"} and len(node.output) == 1
        if idle and node.output[0] not in net.outputs and node.output[0] in net.read:
            _bypass(net, node)


def _fold_pair(net: Net, first: onnx.NodeProto) -> None:
    """first then second, both 1x1: one matrix, if it has no more weights than the two."""
    second = net.sole_reader(first.output[0])
    if second is None or not (is_pointwise(net, first) and _is_pointwise_reader(net, second)):
        return
    if not (net.owns_weights(first) and net.owns_weights(second)):
        return
    one, two = (net.value(node.input[1]).astype(np.float64) for node in (first, second))
    inner, inputs, outputs = one.shape[0], one.shape[1], two.shape[0]
    if inputs * outputs > inner * (inputs + outputs):
        return
    matrix = two[:, :, 0, 0]
    if len(first.input) > 2:
        _add_bias(net, second, matrix @ net.value(first.input[2]).astype(np.float64))
    net.replace(second.input[1], (matrix @ one[:, :, 0, 0]).reshape(outputs, inputs, 1, 1))
    _bypass(net, first)


def _is_pointwise_reader(net: Net, node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and net.is_constant(node.input[1]) and is_pointwise(net, node)
