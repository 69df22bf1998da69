"""A TFLite graph of plain convolutions to ONNX, node by node, in NCHW.

Source: the TFLite schema (tensorflow/lite/schema/schema.fbs) and the ONNX operator set 17.
Weights are transposed here, once; the only transposes left at run time are those before a
reshape that flattens a feature map, because its order is channels-last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import tflite
from onnx import TensorProto, helper, numpy_helper

from kiosk.errors import ModelError

OPSET = 17
_OPERATORS = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)
}
_DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}


@dataclass(frozen=True, slots=True)
class Operator:
    """One TFLite operator: its name, tensor numbers, and its option table if it has one."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(slots=True)
class Graph:
    """The first subgraph of a TFLite file."""

    operators: list[Operator]
    shapes: dict[int, tuple[int, ...]]
    constants: dict[int, np.ndarray]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: dict[int, str]


def read_graph(data: bytes) -> Graph:
    """Parse a TFLite flatbuffer."""
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    shapes: dict[int, tuple[int, ...]] = {}
    constants: dict[int, np.ndarray] = {}
    names: dict[int, str] = {}
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        shapes[number] = tuple(int(n) for n in np.atleast_1d(tensor.ShapeAsNumpy()))
        names[number] = tensor.Name().decode()
        raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(raw, int):  # the reader gives 0 for an empty buffer
            values = np.frombuffer(raw.tobytes(), dtype=_DTYPES[tensor.Type()])
            constants[number] = values.reshape(shapes[number])
    operators = [_operator(model, graph.Operators(i)) for i in range(graph.OperatorsLength())]
    inputs = tuple(int(n) for n in graph.InputsAsNumpy())
    outputs = tuple(int(n) for n in graph.OutputsAsNumpy())
    return Graph(operators, shapes, constants, inputs, outputs, names)


def _operator(model: Any, operator: Any) -> Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    name = _OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    option_types = {
        "CONV_2D": tflite.Conv2DOptions,
        "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
        "MAX_POOL_2D": tflite.Pool2DOptions,
        "CONCATENATION": tflite.ConcatenationOptions,
    }
    options = None
    if name in option_types:
        options = option_types[name]()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
    inputs = tuple(int(n) for n in operator.InputsAsNumpy())
    outputs = tuple(int(n) for n in operator.OutputsAsNumpy())
    return Operator(name, inputs, outputs, options)


@dataclass(slots=True)
class OnnxWriter:
    """Writes the nodes of one graph, in the order of the TFLite file."""

    graph: Graph
    batch: int = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def write(self, renamed: dict[int, str]) -> onnx.ModelProto:
        """The whole graph; `renamed` gives inputs and outputs their names, in TFLite numbers."""
        self._fold_float16()
        slopes = self._fold_prelu()
        for operator in self.graph.operators:
            if operator.name == "PRELU":
                self._prelu(operator, slopes[operator.outputs[0]])
                continue
            self._writer_of(operator)(operator)
        inputs = [self._value(number, channels_first=True) for number in self.graph.inputs]
        outputs = [self._value(number, channels_first=False) for number in self.graph.outputs]
        graph = helper.make_graph(self.nodes, "graph", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="kiosk")
        rename(model, {_name(number): name for number, name in renamed.items()})
        onnx.checker.check_model(model, full_check=True)
        return model

    def _writer_of(self, operator: Operator) -> Callable[[Operator], None]:
        writers = {
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._convolution,
            "RELU": self._elementwise,
            "ADD": self._elementwise,
            "PAD": self._pad,
            "MAX_POOL_2D": self._max_pool,
            "RESHAPE": self._reshape,
            "CONCATENATION": self._concatenation,
        }
        if operator.name not in writers:
            known = ", ".join(sorted(writers))
            raise ModelError(f"TFLite operators {known} expected, got {operator.name}")
        return writers[operator.name]

    def _fold_float16(self) -> None:
        """Weights stored as float16 behind DEQUANTIZE become float32 constants."""
        kept = []
        for operator in self.graph.operators:
            source = operator.inputs[0]
            if operator.name == "DEQUANTIZE" and source in self.graph.constants:
                values = self.graph.constants[source].astype(np.float32)
                self.graph.constants[operator.outputs[0]] = values
                continue
            kept.append(operator)
        self.graph.operators = kept

    def _fold_prelu(self) -> dict[int, np.ndarray]:
        """relu(x) + c*(x - |x|) becomes PRelu with slope 2c; returns slopes by output tensor."""
        made = {operator.outputs[0]: operator for operator in self.graph.operators}
        slopes: dict[int, np.ndarray] = {}
        folded: set[int] = set()
        for index, add in enumerate(self.graph.operators):
            parts = [made.get(number) for number in add.inputs] if add.name == "ADD" else []
            if [p.name for p in parts if p] != ["RELU", "MUL"]:
                continue
            relu, multiply = (p for p in parts if p)
            subtract = made[multiply.inputs[1]]
            absolute = made[subtract.inputs[1]]
            x = relu.inputs[0]
            if (subtract.name, absolute.name) != ("SUB", "ABS") or subtract.inputs[0] != x:
                raise ModelError(f"relu(x) + c*(x - |x|) expected around tensor {x}")
            slopes[add.outputs[0]] = 2.0 * self.graph.constants[multiply.inputs[0]]
            folded |= {o.outputs[0] for o in (relu, multiply, subtract, absolute)}
            self.graph.operators[index] = Operator("PRELU", (x,), add.outputs, None)
        self.graph.operators = [o for o in self.graph.operators if o.outputs[0] not in folded]
        return slopes

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes)
        )

    def _prelu(self, operator: Operator, slope: np.ndarray) -> None:
        output = _name(operator.outputs[0])
        column = slope.astype(np.float32).reshape(-1, 1, 1)
        name = self._constant(f"{output}_slope", column)
        self._node("PRelu", [_name(operator.inputs[0]), name], output)

    def _convolution(self, operator: Operator) -> None:
        options, (x, w, b) = operator.options, operator.inputs
        if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
            raise ModelError("convolutions without a fused activation expected")
        weights = self.graph.constants[w].astype(np.float32)
        depthwise = operator.name == "DEPTHWISE_CONV_2D"
        # TFLite keeps dense weights as OHWI and depthwise ones as 1HWC.
        weights = weights.transpose(3, 0, 1, 2) if depthwise else weights.transpose(0, 3, 1, 2)
        output = _name(operator.outputs[0])
        stride = (options.StrideH(), options.StrideW())
        kernel = tuple(int(n) for n in weights.shape[2:])
        inputs = [
            _name(x),
            self._constant(f"{output}_weight", weights),
            self._constant(f"{output}_bias", self.graph.constants[b].astype(np.float32)),
        ]
        self._node(
            "Conv",
            inputs,
            output,
            kernel_shape=kernel,
            strides=stride,
            pads=self._pads(x, kernel, stride, options.Padding()),
            group=weights.shape[0] if depthwise else 1,
        )

    def _pads(
        self, x: int, kernel: tuple[int, ...], stride: tuple[int, int], padding: int
    ) -> list[int]:
        """ONNX pads (top, left, bottom, right) for TFLite's SAME or VALID."""
        if padding == tflite.Padding.VALID:
            return [0, 0, 0, 0]
        _, height, width, _ = self.graph.shapes[x]
        before, after = [], []
        for size, window, step in zip((height, width), kernel, stride, strict=True):
            total = max((-(-size // step) - 1) * step + window - size, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        return [*before, *after]

    def _elementwise(self, operator: Operator) -> None:
        kind = {"RELU": "Relu", "ADD": "Add"}[operator.name]
        self._node(kind, [_name(n) for n in operator.inputs], _name(operator.outputs[0]))

    def _pad(self, operator: Operator) -> None:
        x, table = operator.inputs
        amounts = self.graph.constants[table][[0, 3, 1, 2]]
        output = _name(operator.outputs[0])
        name = self._constant(f"{output}_pads", amounts.T.reshape(-1).astype(np.int64))
        self._node("Pad", [_name(x), name], output)

    def _max_pool(self, operator: Operator) -> None:
        options, x = operator.options, operator.inputs[0]
        kernel = (options.FilterHeight(), options.FilterWidth())
        stride = (options.StrideH(), options.StrideW())
        pads = self._pads(x, kernel, stride, options.Padding())
        attributes = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        self._node("MaxPool", [_name(x)], _name(operator.outputs[0]), **attributes)

    def _reshape(self, operator: Operator) -> None:
        x, output = operator.inputs[0], _name(operator.outputs[0])
        source = _name(x)
        if self.graph.shapes[x][1:3] != (1, 1):
            source = f"{output}_last"
            self._node("Transpose", [_name(x)], source, perm=[0, 2, 3, 1])
        shape = (self.batch, *self.graph.shapes[operator.outputs[0]][1:])
        name = self._constant(f"{output}_shape", np.array(shape, dtype=np.int64))
        self._node("Reshape", [source, name], output)

    def _concatenation(self, operator: Operator) -> None:
        axis = operator.options.Axis()
        names = [_name(n) for n in operator.inputs]
        self._node("Concat", names, _name(operator.outputs[0]), axis=axis)

    def _value(self, number: int, *, channels_first: bool) -> onnx.ValueInfoProto:
        shape = (self.batch, *self.graph.shapes[number][1:])
        if channels_first:
            shape = (shape[0], shape[3], shape[1], shape[2])
        return helper.make_tensor_value_info(_name(number), TensorProto.FLOAT, shape)


def _name(number: int) -> str:
    return f"t{number}"


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Give tensors other names, in place."""
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
