"""What an ONNX file must keep to: its weights inside it, and those in INT8 within -127..127."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import ModelError
from kiosk.vision.onnx_file import (
    INT8,
    Graph,
    Node,
    Tensor,
    main_graph,
    messages,
    node_of,
    outside_tensors,
    tensor_of,
)
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


def check_self_contained(data: bytes, model_id: str) -> None:
    """ModelError by name when a tensor of an ONNX file lies in another one, at whatever depth.

    onnxruntime would read it from the working folder, and no pinned hash would cover it.
    """
    try:
        outside = outside_tensors(data)
    except DamagedError as error:
        raise _damaged(model_id, error) from error
    if outside:
        raise ModelError(
            f"model {model_id}: all weights in the file itself expected, {len(outside)} lie in"
            f" another ({outside[0]} first)",
            hint=_HINT,
        )


def check_int8_weights(data: bytes, model_id: str) -> None:
    """ModelError by name unless every INT8 weight of an ONNX file lies in -127..127.

    Also for a file whose INT8 weights cannot be seen: sparse ones, ones that are computed, ones
    that a subgraph or a function may choose among.
    """
    for weight in int8_weights(data, model_id):
        _check_values(weight.name, weight.values, model_id)
    try:
        view = memoryview(data)
        if not _is_quantised(view):
            return
        _refuse_hidden(view, model_id)
        graph = main_graph(view)
        for name, tensor in _small_weights(graph):
            _check_values(name, tensor.int8(), model_id)
        _refuse_computed(graph, model_id)
    except DamagedError as error:
        raise _damaged(model_id, error) from error


def int8_weights(data: bytes, model_id: str) -> list[Int8Weight]:
    """Every INT8 tensor of two or more dimensions in an ONNX file.

    Raises ModelError by name for bytes that are no ONNX file and for weights outside of it.
    """
    try:
        return [
            Int8Weight(tensor.name or "a weight without a name", tensor.int8())
            for tensor in _tensors(memoryview(data))
            if tensor.kind == INT8 and len(tensor.dims) >= 2
        ]
    except DamagedError as error:
        raise _damaged(model_id, error) from error


def _tensors(data: memoryview) -> Iterator[Tensor]:
    return (tensor_of(found) for kind, found in messages(data) if kind == "TensorProto")


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


def _is_integer(node: Node) -> bool:
    return node.op in _ZERO_POINTS or node.op in _FROM_FLOATS or node.op.startswith("Q")


def _is_quantised(data: memoryview) -> bool:
    """Whether anything in a file, at whatever depth, computes in 8 bits or is kept in INT8."""
    for kind, found in messages(data):
        if kind == "NodeProto" and _is_integer(node_of(found)):
            return True
        if kind == "TensorProto" and tensor_of(found).kind == INT8:
            return True
    return False


def _refuse_hidden(data: memoryview, model_id: str) -> None:
    """ModelError for what an INT8 file may hide weights in; the main graph itself is one graph."""
    kinds = [kind for kind, _ in messages(data)]
    for what, is_there in (
        ("sparse weights", "SparseTensorProto" in kinds),
        ("subgraphs", kinds.count("GraphProto") > 1),
        ("functions", "FunctionProto" in kinds),
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
    for node in filter(_is_integer, graph.nodes):
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
