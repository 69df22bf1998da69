"""Cross-layer equalisation of activation ranges, through PReLU and along the residual stream.

PReLU is positively homogeneous, PReLU_a(s*x) = s*PReLU_a(x) for s > 0, and so are ReLU, pooling
and the sum of two tensors scaled alike. All tensors joined by these share one factor for each
channel: whatever writes them is divided by it, whatever reads them multiplied, and the network
gives the same as before (after Nagel et al. 2019, arXiv:1906.04721, which equalises the ranges of
weights between two layers; here the ranges of activations decide, over all layers that share them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kiosk.lab.graph import FloatWeights, Net, attribute, is_depthwise

_HOMOGENEOUS = {"PRelu", "Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Add"}
_SCALABLE = {"Conv", "BatchNormalization"}
# How far activations, not weights, decide. A reader that is depthwise has a scale for each of its
# channels, so its weights take any factor for free.
_ALPHA_DEPTHWISE = 1.0
_ALPHA = 0.8
# A channel that is never on has no range of its own.
_SILENT = 1e-6


@dataclass(frozen=True, slots=True)
class Stream:
    """Tensors that share one factor for each channel, and the nodes at their ends."""

    tensors: tuple[str, ...]
    writers: tuple[onnx.NodeProto, ...]
    readers: tuple[onnx.NodeProto, ...]


def streams(net: Net) -> list[Stream]:
    """Every group of tensors that can be scaled, in the order of the graph.

    A group is left out when something that cannot take a factor touches it: the graph's own input
    or output, a Reshape, weights that two nodes share.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for node in net.nodes:
        for name in _carried(net, node):
            parent[root(name)] = root(node.output[0])
    groups: dict[str, list[str]] = {}
    for node in net.nodes:
        for name in node.output:
            groups.setdefault(root(name), []).append(name)
    inputs = {value.name for value in net.graph.input}
    foreign = {root(name) for name in (*net.outputs, *inputs)}
    found = (_stream(net, names) for key, names in groups.items() if key not in foreign)
    return [stream for stream in found if stream is not None]


def _carried(net: Net, node: onnx.NodeProto) -> list[str]:
    """The inputs that a node hands on channel by channel."""
    if node.op_type not in _HOMOGENEOUS:
        return []
    names = list(node.input) if node.op_type == "Add" else [node.input[0]]
    return [name for name in names if not net.is_constant(name)]


def _stream(net: Net, names: list[str]) -> Stream | None:
    inside = {id(net.made[name]) for name in names if net.made[name].op_type in _HOMOGENEOUS}
    writers = [net.made[name] for name in names if id(net.made[name]) not in inside]
    readers = [r for name in names for r in net.read.get(name, []) if id(r) not in inside]
    if any(node.op_type == "Add" and _adds_constant(net, node) for node in _made(net, names)):
        return None
    ends = [*writers, *readers]
    if not writers or not readers:
        return None
    if not all(node.op_type in _SCALABLE and net.owns_weights(node) for node in ends):
        return None
    return Stream(tuple(names), tuple(writers), tuple(readers))


def _made(net: Net, names: Iterable[str]) -> list[onnx.NodeProto]:
    return [net.made[name] for name in names]


def _adds_constant(net: Net, node: onnx.NodeProto) -> bool:
    return any(net.is_constant(name) for name in node.input)


def factors_of(
    model: onnx.ModelProto, ranges: Mapping[str, NDArray[np.float32]]
) -> dict[str, list[float]]:
    """The factors that bring the channels of each stream to like ranges, for `with_factors`.

    `ranges`: for each tensor of a stream the largest magnitude of each channel, float32
    (channels,), over calibration faces. A factor is `R^a / w^(1-a)`, R the channel's range over
    the stream, w the largest weight that reads it, divided by the geometric mean; `a` is 1 where
    all readers are depthwise and 0.8 otherwise. They come under the name of each stream's first
    tensor, with six digits: any factor is exact, and a record of short ones is short.
    """
    net = Net(model)
    return {
        stream.tensors[0]: [float(f"{f:.6g}") for f in _factors(net, stream, ranges)]
        for stream in streams(net)
    }


def with_factors(model: onnx.ModelProto, factors: Mapping[str, Sequence[float]]) -> onnx.ModelProto:
    """Apply recorded factors; a stream that has none stays as it is."""
    net = Net(model)
    for stream in streams(net):
        if stream.tensors[0] not in factors:
            continue
        factor = np.array(factors[stream.tensors[0]], dtype=np.float64)
        for writer in stream.writers:
            _scale_output(net, writer, 1.0 / factor)
        for reader in stream.readers:
            _scale_input(net, reader, factor)
    return net.finish()


def _factors(net: Net, stream: Stream, ranges: Mapping[str, NDArray[np.float32]]) -> FloatWeights:
    spread = np.max([ranges[name] for name in stream.tensors], axis=0).astype(np.float64)
    weight = np.max([_reading(net, reader) for reader in stream.readers], axis=0)
    depthwise = all(_is_channelwise(net, reader) for reader in stream.readers)
    alpha = _ALPHA_DEPTHWISE if depthwise else _ALPHA
    silent = (spread < _SILENT) | (weight < _SILENT)
    spread, weight = np.where(silent, 1.0, spread), np.where(silent, 1.0, weight)
    factor = spread**alpha / weight ** (1.0 - alpha)
    factor /= np.exp(np.log(factor[~silent]).mean()) if (~silent).any() else 1.0
    # Powers of two apart from rounding would be exact; float32 weights make it 1e-7 anyway.
    return np.where(silent, 1.0, factor)


def _is_channelwise(net: Net, node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" or is_depthwise(net, node)


def _reading(net: Net, node: onnx.NodeProto) -> FloatWeights:
    """The largest weight by which a node reads each channel."""
    weights = np.abs(net.value(node.input[1]).astype(np.float64))
    if node.op_type == "BatchNormalization":
        return weights
    groups = attribute(node, "group", 1)
    by_group = weights.reshape(groups, -1, *weights.shape[1:])
    return np.asarray(by_group.max(axis=(1, 3, 4)).reshape(-1))


def _scale_output(net: Net, node: onnx.NodeProto, factor: FloatWeights) -> None:
    if node.op_type == "Conv":
        net.scale_rows(node, factor)
        return
    for name in node.input[1:3]:
        net.replace(name, net.value(name).astype(np.float64) * factor)


def _scale_input(net: Net, node: onnx.NodeProto, factor: FloatWeights) -> None:
    if node.op_type == "Conv":
        net.scale_columns(node, factor)
        return
    # gamma*(x - mean)/deviation reads x times `factor`: mean shrinks with x, gamma grows.
    gamma, mean = node.input[1], node.input[3]
    net.replace(gamma, net.value(gamma).astype(np.float64) * factor)
    net.replace(mean, net.value(mean).astype(np.float64) / factor)
