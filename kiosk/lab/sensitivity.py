"""What each layer in 8 bits costs the embedding, all from one graph and one quantisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kiosk.lab.advice import LayerError
from kiosk.lab.graph import Net, attribute
from kiosk.lab.progress import track
from kiosk.lab.runner import session_of
from kiosk.types import FloatArray

_SHADOW = "shadow_"
_SWITCHES = "switches"
_WITHIN_STEPS = 1.0


def layer_errors(
    model: onnx.ModelProto, quantised: onnx.ModelProto, inputs: Sequence[FloatArray]
) -> list[LayerError]:
    """Every layer that a QDQ graph has in 8 bits, the worst first. `model` is its FP32 graph.

    An error is 1 - mean cosine to FP32 with this layer alone in 8 bits.

    One graph holds the FP32 net and, beside each layer, that layer's 8-bit twin (its input, its
    weights and its output rounded) with a switch between the two: nothing is quantised again.
    """
    joined, layers = _with_switches(model, quantised)
    if not layers:
        return []
    session = session_of(joined, arithmetic="reference")
    picture, output = model.graph.input[0].name, model.graph.output[0].name

    def run(switches: FloatArray) -> FloatArray:
        rows = [
            session.run([output], {picture: values, _SWITCHES: switches})[0][0].reshape(-1)
            for values in inputs
        ]
        matrix = np.stack(rows).astype(np.float64)
        return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))

    plain = run(np.zeros(len(layers), dtype=np.float32))
    errors = []
    for index in track(range(len(layers)), "measuring layers"):
        switches = np.zeros(len(layers), dtype=np.float32)
        switches[index] = 1.0
        cosine = float((plain * run(switches)).sum(axis=1).mean())
        errors.append(LayerError(layers[index], max(0.0, 1.0 - cosine)))
    return sorted(errors, key=lambda error: -error.error)


def same_layers(model: onnx.ModelProto, quantised: onnx.ModelProto) -> bool:
    """Whether every 8-bit layer of a QDQ graph stands in `model` too, its weights but for rounding.

    Then `layer_errors` can be asked; of a graph that was equalised, say, it cannot.
    """
    net, plain = Net(quantised), Net(model)
    known = {node.name: node for node in plain.convolutions() if node.name}
    layers = [node for node in net.convolutions() if _has_8_bit_weights(net, node)]
    return bool(layers) and all(
        node.name in known and _alike(net, node, plain, known[node.name]) for node in layers
    )


def _alike(net: Net, layer: onnx.NodeProto, plain: Net, other: onnx.NodeProto) -> bool:
    if other.op_type != layer.op_type or not plain.is_constant(other.input[1]):
        return False
    maker = net.made[layer.input[1]]
    names = [name for name in maker.input if name]
    if not all(net.is_constant(name) for name in names):
        return False
    weights, scale, *zero = (net.value(name).astype(np.float64) for name in names)
    expected = plain.value(other.input[1]).astype(np.float64)
    if weights.shape != expected.shape:
        return False
    around = [1] * weights.ndim
    if scale.size > 1:
        around[attribute(maker, "axis", 1)] = scale.size
    step = scale.reshape(around)
    back = (weights - (zero[0].reshape(around) if zero else 0.0)) * step
    return bool((np.abs(back - expected) <= _WITHIN_STEPS * step).all())


def _has_8_bit_weights(net: Net, node: onnx.NodeProto) -> bool:
    maker = net.made.get(node.input[1])
    if maker is None or maker.op_type != "DequantizeLinear":
        return False
    return net.is_constant(maker.input[0])


def _with_switches(
    model: onnx.ModelProto, quantised: onnx.ModelProto
) -> tuple[onnx.ModelProto, list[str]]:
    """The joined graph, and the names of its layers in the order of the switches."""
    net, plain = Net(quantised), Net(model)
    shadows = {
        node.name: _Shadow(net, plain, node)
        for node in net.convolutions()
        if _has_8_bit_weights(net, node)
    }
    layers = list(shadows)
    names = [f"{_SHADOW}switch_{index}" for index in range(len(layers))]
    nodes = [helper.make_node("Split", [_SWITCHES, f"{_SHADOW}ones"], names, axis=0)]
    for node in plain.nodes:
        nodes.append(node)
        if node.name in shadows:
            nodes += _switched(node, shadows[node.name], names[layers.index(node.name)])
    tensors = {tensor.name: tensor for tensor in (*net.graph.initializer, *plain.graph.initializer)}
    ones = numpy_helper.from_array(np.ones(len(layers), dtype=np.int64), f"{_SHADOW}ones")
    used = {name for node in nodes for name in node.input}
    switches = helper.make_tensor_value_info(_SWITCHES, TensorProto.FLOAT, [len(layers)])
    graph = helper.make_graph(
        nodes,
        "switched",
        [*plain.graph.input, switches],
        list(plain.graph.output),
        [ones, *(tensor for name, tensor in tensors.items() if name in used)],
    )
    opsets = list(quantised.opset_import)
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version), layers


def _switched(node: onnx.NodeProto, shadow: _Shadow, switch: str) -> list[onnx.NodeProto]:
    """y = plain + switch * (shadow - plain), under the name that the layer's readers know."""
    result = node.output[0]
    own, apart, part = (f"{_SHADOW}{what}_{result}" for what in ("own", "apart", "part"))
    node.output[0] = own
    return [
        *shadow.nodes,
        helper.make_node("Sub", [shadow.output, own], [apart], name=apart),
        helper.make_node("Mul", [apart, switch], [part], name=part),
        helper.make_node("Add", [own, part], [result], name=f"{_SHADOW}{result}"),
    ]


class _Shadow:
    """One 8-bit layer cut out of a QDQ graph: its roundings and itself, fed from the FP32 net."""

    def __init__(self, net: Net, plain: Net, node: onnx.NodeProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._net, self._plain, self._layer = net, plain, node
        self._put(node, [self._back(name) for name in node.input])
        self.output = self._name(node.output[0])
        reader = net.sole_reader(node.output[0])
        if reader is not None and reader.op_type == "QuantizeLinear":
            self.output = self._round(reader)

    def _name(self, name: str) -> str:
        return f"{_SHADOW}{self._layer.name}_{name}"

    def _put(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = self._name(node.name)
        copy.input[:] = inputs
        copy.output[:] = [self._name(name) for name in node.output]
        self.nodes.append(copy)

    def _back(self, name: str) -> str:
        """A tensor traced back through its roundings to the FP32 net or to a constant."""
        if not name or self._net.is_constant(name) or name in self._plain.made:
            return name
        maker = self._net.made.get(name)
        if maker is None or maker.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            return name
        self._put(maker, [self._back(source) for source in maker.input])
        return self._name(name)

    def _round(self, quantise: onnx.NodeProto) -> str:
        dequantise = self._net.read[quantise.output[0]][0]
        self._put(quantise, [self._name(quantise.input[0]), *quantise.input[1:]])
        self._put(dequantise, [self._name(dequantise.input[0]), *dequantise.input[1:]])
        return self._name(dequantise.output[0])
