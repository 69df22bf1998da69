"""An ONNX graph under the knife: who makes a tensor, who reads it, and the constants in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kiosk.errors import ModelError

FloatWeights = NDArray[np.floating]

_WEIGHTED = ("Conv", "Gemm", "MatMul")


class Net:
    """A private copy of a model, to be edited and then `finish`ed.

    Constant nodes are turned into initialisers, so that every constant is found in one way.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self._hoist_constants()
        self.index()

    def _hoist_constants(self) -> None:
        kept = []
        for node in self.graph.node:
            if node.op_type != "Constant" or node.attribute[0].name != "value":
                kept.append(node)
                continue
            tensor = self.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        self._put(kept)

    def index(self) -> None:
        """Find makers and readers anew, after nodes were changed."""
        self.made = {name: node for node in self.graph.node for name in node.output}
        self.read: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.read.setdefault(name, []).append(node)
        self._weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes in order."""
        return list(self.graph.node)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor's values stand in the file."""
        return name in self._weights

    def value(self, name: str) -> NDArray[np.generic]:
        """The values of a constant; ModelError for a computed tensor."""
        if name not in self._weights:
            raise ModelError(f"a constant expected for {name}, got a computed tensor")
        return numpy_helper.to_array(self._weights[name])

    def replace(self, name: str, values: NDArray[np.generic]) -> None:
        """Give a constant other values, as float32."""
        self._weights[name].CopyFrom(numpy_helper.from_array(_float32(values), name))

    def add(self, name: str, values: NDArray[np.generic]) -> str:
        """A new float32 constant; returns its name."""
        tensor = self.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(_float32(values), name))
        self._weights[name] = tensor
        return name

    def owns_weights(self, node: onnx.NodeProto) -> bool:
        """Whether this node's weights are constants that no other node reads."""
        names = [name for name in node.input[1:] if name]
        return all(self.is_constant(name) and len(self.read[name]) == 1 for name in names)

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor which is no output of the graph, or None."""
        readers = self.read.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def convolutions(self) -> list[onnx.NodeProto]:
        """The nodes that multiply by weights, in order."""
        return [node for node in self.graph.node if node.op_type in _WEIGHTED]

    def scale_rows(self, node: onnx.NodeProto, factor: FloatWeights) -> None:
        """Multiply what a convolution gives by `factor`, one for each output channel."""
        for name in node.input[1:]:
            if not name:
                continue
            values = self.value(name).astype(np.float64)
            along = factor.reshape(-1, *(1,) * (values.ndim - 1))
            # A Gemm's outputs lie along the last axis, but for weights that are turned.
            turned = name == node.input[1] and attribute(node, "transB", 0)
            if node.op_type == "Gemm" and values.ndim == 2 and not turned:
                along = factor.reshape(1, -1)
            self.replace(name, values * along)

    def scale_columns(self, node: onnx.NodeProto, factor: FloatWeights) -> None:
        """Make a convolution take its input times `factor`, one for each input channel."""
        weights = self.value(node.input[1]).astype(np.float64)
        group = attribute(node, "group", 1)
        if group == 1:
            self.replace(node.input[1], weights * factor.reshape(1, -1, 1, 1))
            return
        by_group = np.repeat(factor.reshape(group, -1), weights.shape[0] // group, axis=0)
        self.replace(node.input[1], weights * by_group[:, :, None, None])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of tensors as far as they can be told; 0 is a free dimension."""
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        return {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }

    def finish(self, nodes: Sequence[onnx.NodeProto] | None = None) -> onnx.ModelProto:
        """The edited model with `nodes` (its own when None), without constants nobody reads.

        Raises ModelError when the result is no valid model.
        """
        kept = self.nodes if nodes is None else list(nodes)
        used = {name for node in kept for name in node.input}
        graph = helper.make_graph(
            kept,
            self.graph.name,
            list(self.graph.input),
            list(self.graph.output),
            [tensor for tensor in self.graph.initializer if tensor.name in used],
        )
        result = helper.make_model(
            graph,
            opset_imports=list(self.model.opset_import),
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
        )
        try:
            onnx.checker.check_model(result, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"a valid ONNX graph expected: {reason}") from error
        return result

    def _put(self, nodes: Sequence[onnx.NodeProto]) -> None:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def integers(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """An attribute that is a list of integers; empty when it is absent."""
    return next((tuple(a.ints) for a in node.attribute if a.name == name), ())


def is_depthwise(net: Net, node: onnx.NodeProto) -> bool:
    """Whether each output channel of a convolution sees one input channel only."""
    return (
        node.op_type == "Conv"
        and net.is_constant(node.input[1])
        and net.value(node.input[1]).shape[1] == 1
    )


def is_pointwise(net: Net, node: onnx.NodeProto) -> bool:
    """Whether a node is a convolution of constant weights that is one matrix for every pixel."""
    if node.op_type != "Conv" or not net.is_constant(node.input[1]):
        return False
    return is_one_matrix(node, net.value(node.input[1]).shape)


def is_one_matrix(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether a convolution, in FP32 or in 8 bits, with weights of this shape is one dense matrix
    for every pixel: 1x1, stride 1, no padding, one group."""
    return (
        shape[2:] == (1, 1)
        and attribute(node, "group", 1) == 1
        and set(integers(node, "strides")) <= {1}
        and set(integers(node, "pads")) <= {0}
    )


def _float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


def up_to(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The part of a model that computes one tensor, with that as its only output."""
    wanted, kept = {tensor}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    graph = helper.make_graph(
        list(reversed(kept)),
        model.graph.name,
        list(model.graph.input),
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)],
        [constant for constant in model.graph.initializer if constant.name in wanted],
    )
    opsets = list(model.opset_import)
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
