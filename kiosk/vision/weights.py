"""What an ONNX file must keep to: its weights inside it, and those in INT8 within -127..127."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import ModelError
from kiosk.vision.onnx_file import INT8, Contents, Graph, Node, Tensor, contents_of, main_graph
from kiosk.vision.protobuf import DamagedError

_HINT = "a single self-contained ONNX file is expected, without external data"
# Inputs that are zero points, by operator: of activations these may well be -128.
_ZERO_POINTS: Mapping[str, set[int]] = {
    "QuantizeLinear": {2},
    "DequantizeLinear": {2},
    "ConvInteger": {2, 3},
    "MatMulInteger": {2, 3},
    "MatMulIntegerToFloat": {4, 5},
    "DynamicQuantizeMatMul": {3},
    "QGemm": {2, 5, 8},
    "QLinearConv": {2, 5, 7},
    "QLinearMatMul": {2, 5, 7},
    "QLinearAdd": {2, 5, 7},
    "QLinearMul": {2, 5, 7},
    "QLinearAveragePool": {2, 4},
    "QLinearGlobalAveragePool": {2, 4},
    "QLinearLeakyRelu": {2, 4},
    "QLinearReduceMean": {2, 4},
    "QLinearSigmoid": {2, 4},
    "QLinearSoftmax": {2, 4},
    # Those of the output, then of each of any number of inputs.
    "QLinearConcat": {1, *range(4, 256, 3)},
}
_FROM_FLOATS = {"QuantizeLinear", "DynamicQuantizeLinear"}
# They move values about and change none.
_MOVES = {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weight:
    """A tensor of type INT8 with two or more dimensions; `values` int8, flat."""

    name: str
    values: NDArray[np.int8]


def check_file(data: bytes, model_id: str) -> None:
    """ModelError by name unless an ONNX file holds all its weights, and INT8 ones in -127..127.

    A tensor in another file would be read from the working folder, and no pinned hash would cover
    it. Refused is also an INT8 file whose weights cannot be seen: sparse ones, ones that are
    computed, ones that a subgraph or a function may choose among.
    """
    try:
        contents = contents_of(data)
        _refuse_outside(contents, model_id)
        weights = _int8_weights(contents)
        for weight in weights:
            _check_values(weight.name, weight.values, model_id)
        if not any(map(_is_integer, contents.operators)) and all(
            tensor.kind != INT8 for tensor in contents.tensors
        ):
            return
        _refuse_hidden(contents, model_id)
        graph = main_graph(memoryview(data))
        for name, tensor in _small_weights(graph):
            _check_values(name, tensor.int8(), model_id)
        _refuse_computed(graph, model_id)
    except DamagedError as error:
        raise _damaged(model_id, error) from error


def int8_weights(data: bytes, model_id: str) -> list[Int8Weight]:
    """Every INT8 tensor of two or more dimensions in an ONNX file; ModelError if it is none."""
    try:
        return _int8_weights(contents_of(data))
    except DamagedError as error:
        raise _damaged(model_id, error) from error


def _int8_weights(contents: Contents) -> list[Int8Weight]:
    return [
        Int8Weight(tensor.name or "a weight without a name", tensor.int8())
        for tensor in contents.tensors
        if tensor.kind == INT8 and len(tensor.dims) >= 2
    ]


def _refuse_outside(contents: Contents, model_id: str) -> None:
    outside = contents.outside
    if outside:
        raise ModelError(
            f"model {model_id}: all weights in the file itself expected, {len(outside)} lie in"
            f" another ({outside[0]} first)",
            hint=_HINT,
        )


def _damaged(model_id: str, error: DamagedError) -> ModelError:
    return ModelError(f"model {model_id}: a whole ONNX file expected, {error}", hint=_HINT)


def _check_values(name: str, values: NDArray[np.int8], model_id: str) -> None:
    count = int(np.count_nonzero(values == -128))
    if count:
        raise ModelError(
            f"model {model_id}: INT8 weights in -127..127 expected, {count} of {name} are -128",
            hint="NEON kernels of onnxruntime overflow with it: quantise it again with"
            " symmetric weights",
        )


def _is_integer(operator: str) -> bool:
    known = operator in _ZERO_POINTS or operator in _FROM_FLOATS
    return known or operator.startswith("Q")


def _refuse_hidden(contents: Contents, model_id: str) -> None:
    """ModelError for what an INT8 file may hide weights in; the main graph itself is one graph."""
    kinds = contents.kinds
    for what, is_there in (
        ("sparse weights", kinds["SparseTensorProto"] > 0),
        ("subgraphs", kinds["GraphProto"] > 1),
        ("functions", kinds["FunctionProto"] > 0),
    ):
        if is_there:
            raise ModelError(
                f"model {model_id}: an INT8 file whose weights can be seen expected, it has {what}",
                hint="write it as one plain graph: onnxruntime's quant_pre_process does",
            )


def _small_weights(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """INT8 tensors of less than two dimensions that a node takes as anything but a zero point."""
    for node in graph.nodes:
        for place, name in enumerate(node.inputs):
            tensor = graph.constants.get(name)
            if tensor is None or tensor.kind != INT8 or len(tensor.dims) >= 2:
                continue
            if place not in _ZERO_POINTS.get(node.op, ()):
                yield name, tensor


def _refuse_computed(graph: Graph, model_id: str) -> None:
    """ModelError for 8-bit weights that are made at load, and so are nowhere in the file."""
    live, maker = _live(graph), {name: node for node in graph.nodes for name in node.outputs}
    for node in (node for node in graph.nodes if _is_integer(node.op)):
        for place, name in enumerate(node.inputs):
            if not name or name in live:
                continue
            origin = _origin(name, maker)
            made_here = node.op in _FROM_FLOATS and place == 0
            if made_here or origin not in graph.constants:
                raise ModelError(
                    f"model {model_id}: INT8 weights that are in the file expected, {node.op}"
                    f" takes {name}, which is computed from others",
                    hint="quantise it again so that the file holds the weights in INT8",
                )


def _origin(name: str, maker: Mapping[str, Node]) -> str:
    """The tensor that a name is, but for its shape and order."""
    for _ in maker:  # no more steps than nodes: a damaged file may run in a circle
        node = maker.get(name)
        if node is None or node.op not in _MOVES or not node.inputs:
            break
        name = node.inputs[0]
    return name


def _live(graph: Graph) -> set[str]:
    """The names of all that depends on the picture."""
    takers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            takers.setdefault(name, []).append(node)
    live, todo = set(graph.inputs), list(graph.inputs)
    while todo:
        for node in takers.get(todo.pop(), ()):
            fresh = [name for name in node.outputs if name not in live]
            live.update(fresh)
            todo += fresh
    return live
