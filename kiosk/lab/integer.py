"""A quantised graph in ONNX Runtime's own integer operators, channels last.

The standard form gives each layer an 8-bit output, and PReLU, which has no 8-bit operator, stands
between a DequantizeLinear and a QuantizeLinear. Here a 1x1 convolution is MatMulIntegerToFloat,
which hands its sums to PReLU in float: one rounding and two passes over memory less for each.
Every other layer is com.microsoft.QLinearConv with channels last, so that nothing is transposed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kiosk.errors import ModelError
from kiosk.lab.graph import Net, is_one_matrix

_CONTRIB = "com.microsoft"
_PER_ELEMENT = {"Mul", "Max", "Add", "Relu", "QuantizeLinear", "DequantizeLinear", "QLinearAdd"}


def with_float_sums(qdq: onnx.ModelProto) -> onnx.ModelProto:
    """A QDQ graph without the 8-bit step between a 1x1 convolution and float operators.

    What `in_integers` computes, in operators of the standard: the graph to judge it by. An Add
    whose result is rounded is taken for one in 8 bits: the recipe must not leave Adds out.
    """
    net = Net(qdq)
    for node in net.nodes:
        if node.op_type != "Conv" or not _reads_eight_bits(net, node):
            continue
        pair = _pair_after(net, node)
        if pair is None or not is_one_matrix(node, net.value(_weight_source(net, node)).shape):
            continue
        quantise, dequantise = pair
        if any(reader.op_type in {"Conv", "Gemm", "MatMul"} for reader in net.read[dequantise]):
            continue
        if any(_quantises_result(net, r) for r in net.read[dequantise] if r.op_type == "Add"):
            continue
        for reader in net.read[dequantise]:
            reader.input[:] = [node.output[0] if n == dequantise else n for n in reader.input]
        net.graph.node.remove(net.made[dequantise])
        net.graph.node.remove(quantise)
        net.index()
    return net.finish()


def _weight_source(net: Net, node: onnx.NodeProto) -> str:
    return str(net.made[node.input[1]].input[0])


def _reads_eight_bits(net: Net, node: onnx.NodeProto) -> bool:
    maker = net.made.get(node.input[1])
    return maker is not None and maker.op_type == "DequantizeLinear"


def _pair_after(net: Net, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
    """The QuantizeLinear after a node, and the name of what its DequantizeLinear gives."""
    quantise = net.sole_reader(node.output[0])
    if quantise is None or quantise.op_type != "QuantizeLinear":
        return None
    dequantise = net.sole_reader(quantise.output[0])
    if dequantise is None or dequantise.op_type != "DequantizeLinear":
        return None
    if dequantise.output[0] in net.outputs:
        return None
    return quantise, dequantise.output[0]


def _quantises_result(net: Net, node: onnx.NodeProto) -> bool:
    reader = net.sole_reader(node.output[0])
    return reader is not None and reader.op_type == "QuantizeLinear"


def in_integers(qoperator: onnx.ModelProto) -> onnx.ModelProto:
    """A QOperator graph (QLinearConv and what lies between) in integer operators, channels last.

    Raises ModelError where an operator between the first and the last 8-bit convolution cannot be
    had with channels last; such a model has no integer form.
    """
    return _Lowering(Net(qoperator)).run()


class _Lowering:
    """One pass over the graph: which tensors have their channels last so far, and new nodes."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._last: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._taken: set[str] = set()
        self._columns: dict[str, str] = {}

    def run(self) -> onnx.ModelProto:
        for node in self._net.nodes:
            if node.output[0] in self._taken:
                continue
            if node.op_type == "QLinearConv":
                self._convolution(node)
            elif node.op_type in _PER_ELEMENT and any(n in self._last for n in node.input):
                self._per_element(node)
            else:
                self._other(node)
        for name in sorted(self._net.outputs & self._last):
            self._give_back(name)
        if not any(opset.domain == _CONTRIB for opset in self._net.model.opset_import):
            self._net.model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
        return self._net.finish(self._nodes)

    def _channels_last(self, name: str) -> str:
        """A tensor with its channels last, transposed once if it has them first."""
        if name in self._last:
            return name
        turned = f"{name}_last"
        if turned not in self._last:
            self._nodes.append(
                helper.make_node("Transpose", [name], [turned], name=turned, perm=[0, 2, 3, 1])
            )
            self._last.add(turned)
        return turned

    def _convolution(self, node: onnx.NodeProto) -> None:
        weights = self._net.value(node.input[3])
        reader = self._net.sole_reader(node.output[0])
        source = self._channels_last(node.input[0])
        if reader is not None and self._into_float(reader) and is_one_matrix(node, weights.shape):
            self._matrix(node, source, reader)
            return
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._put(
            helper.make_node(
                "QLinearConv",
                [source, *node.input[1:]],
                list(node.output),
                name=node.name,
                domain=_CONTRIB,
                channels_last=1,
                **attributes,
            )
        )

    def _into_float(self, reader: onnx.NodeProto) -> bool:
        """Whether a layer's result goes on in float; the graph's own output keeps its rounding."""
        return reader.op_type == "DequantizeLinear" and reader.output[0] not in self._net.outputs

    def _matrix(self, node: onnx.NodeProto, source: str, dequantise: onnx.NodeProto) -> None:
        net = self._net
        scale, zero = node.input[1], node.input[2]
        weights, weight_scale = node.input[3], node.input[4]
        if net.value(node.input[5]).any():
            raise ModelError(f"symmetric weights expected in {node.name}, got a zero point")
        matrix = f"{weights}_matrix"
        net.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(net.value(weights)[:, :, 0, 0].T), matrix)
        )
        inputs = [source, matrix, scale, weight_scale, zero, ""]
        if len(node.input) > 8:
            step = net.value(scale).astype(np.float64) * net.value(weight_scale).astype(np.float64)
            bias = net.value(node.input[8]).astype(np.float64) * step
            inputs.append(net.add(f"{node.input[8]}_float", bias))
        self._taken.add(dequantise.output[0])
        self._put(
            helper.make_node(
                "MatMulIntegerToFloat",
                inputs,
                [dequantise.output[0]],
                name=node.name,
                domain=_CONTRIB,
            )
        )

    def _per_element(self, node: onnx.NodeProto) -> None:
        inputs = []
        for name in node.input:
            if not name or self._net.is_constant(name):
                inputs.append(self._column(node, name))
            else:
                inputs.append(self._channels_last(name))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        self._put(copy)

    def _column(self, node: onnx.NodeProto, name: str) -> str:
        """A constant for each channel, [C,1,1], as [C]; scales and zero points as they are."""
        if not name or self._net.value(name).ndim == 0:
            return name
        values = self._net.value(name)
        # Fewer than three axes lie along columns and rows, not along channels.
        if values.size != (values.shape[-3] if values.ndim > 2 else 1):
            raise ModelError(f"one value for each channel expected in {node.name}, got {name}")
        if name not in self._columns:
            self._columns[name] = self._net.add(f"{name}_column", values.reshape(-1))
        return self._columns[name]

    def _other(self, node: onnx.NodeProto) -> None:
        """Any other operator takes its input as it was, channels first."""
        inputs = []
        for name in node.input:
            if name not in self._last:
                inputs.append(name)
                continue
            back = f"{name}_first"
            if back not in self._taken:
                self._taken.add(back)
                self._nodes.append(
                    helper.make_node("Transpose", [name], [back], name=back, perm=[0, 3, 1, 2])
                )
            inputs.append(back)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        self._nodes.append(copy)

    def _give_back(self, name: str) -> None:
        """An output of the graph has its channels first, as in the graph that it was made of."""
        turned = f"{name}_channels_last"
        for node in self._nodes:
            node.input[:] = [turned if n == name else n for n in node.input]
            node.output[:] = [turned if n == name else n for n in node.output]
        self._nodes.append(
            helper.make_node("Transpose", [turned], [name], name=turned, perm=[0, 3, 1, 2])
        )

    def _put(self, node: onnx.NodeProto) -> None:
        self._last.update(node.output)
        self._nodes.append(node)
