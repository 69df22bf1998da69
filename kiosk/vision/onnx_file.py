"""What an ONNX file is made of, read without the onnx package, which the daemon does not have.

Tensors and nodes are found at every depth: initialisers, tensor attributes (Constant nodes), sparse
ones, in subgraphs and functions too. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kiosk.vision.protobuf import DamagedError, as_int8, fields, integer, message, text, varints

INT8 = 3
_INSIDE: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        10: "TensorProto",
        6: "GraphProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
# Protobuf merges what is there twice, into something that neither part is.
_ONLY_ONE = {"ModelProto": {7}, "AttributeProto": {5, 6, 22}, "SparseTensorProto": {1, 2}}
_DIMS, _DATA_TYPE, _INT32_DATA, _NAME, _RAW_DATA, _EXTERNAL_DATA, _LOCATION = 1, 2, 5, 8, 9, 13, 14
# Subgraphs in subgraphs: real models have two or three.
_DEEPEST = 64


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor without its values: `parts` are where they lie in the file, by field number."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    parts: list[tuple[int, memoryview]] = field(default_factory=list)
    is_outside: bool = False

    def int8(self) -> NDArray[np.int8]:
        """The values of an INT8 tensor, flat; DamagedError when they do not fill its shape."""
        arrays = [
            np.frombuffer(part, dtype=np.int8) if number == _RAW_DATA else as_int8(part)
            for number, part in self.parts
        ]
        values = arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, np.int8), *arrays])
        if min(self.dims, default=0) < 0 or values.size != math.prod(self.dims):
            raise DamagedError(
                f"its weight {self.name or 'without a name'} of shape {self.dims} holds"
                f" {values.size} values"
            )
        return values


@dataclass(slots=True, eq=False)
class Node:
    """An operation: what goes in and comes out by name; `constant` is a Constant's tensor."""

    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constant: Tensor | None = None


def messages(
    data: memoryview, kind: str = "ModelProto", depth: int = 0
) -> Iterator[tuple[str, memoryview]]:
    """Kind and bytes of every message below one, tensors and nodes among them, at every depth."""
    if depth > _DEEPEST:
        raise DamagedError(f"its graphs are nested more than {_DEEPEST} deep")
    inside, once = _INSIDE[kind], set(_ONLY_ONE.get(kind, ()))
    seen: set[int] = set()
    for number, value in fields(data):
        inner = inside.get(number)
        if inner is None:
            continue
        if number in once and number in seen:
            raise DamagedError(f"it has two of what there is one of: {inner} in {kind}")
        seen.add(number)
        below = message(value, inner)
        yield inner, below
        if _INSIDE[inner]:
            yield from messages(below, inner, depth + 1)


def tensor_of(data: memoryview) -> Tensor:
    """A TensorProto."""
    tensor = Tensor()
    for number, value in fields(data):
        if number == _DATA_TYPE:
            tensor.kind = integer(value)
        elif number == _DIMS:
            tensor.dims += [value] if isinstance(value, int) else varints(value).tolist()
        elif number == _NAME:
            tensor.name = text(value, "name")
        elif number in {_RAW_DATA, _INT32_DATA}:
            tensor.parts.append((number, message(value, "values")))
        elif number == _EXTERNAL_DATA or (number == _LOCATION and value != 0):
            tensor.is_outside = True
    return tensor


def node_of(data: memoryview) -> Node:
    """A NodeProto."""
    node = Node()
    for number, value in fields(data):
        match number:
            case 1:
                node.inputs.append(text(value, "input"))
            case 2:
                node.outputs.append(text(value, "output"))
            case 4:
                node.op = text(value, "op_type")
            case 5:
                for inner, tensor in fields(message(value, "AttributeProto")):
                    if inner == 5:
                        node.constant = tensor_of(message(tensor, "TensorProto"))
    return node


@dataclass(slots=True, eq=False)
class Graph:
    """The main graph: its inputs without the initialisers, and its nodes."""

    inputs: set[str] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    """Initialisers and what Constant nodes give, by the name under which nodes take them."""


def main_graph(data: memoryview) -> Graph:
    """The main graph of a ModelProto."""
    graph = Graph()
    for number, value in fields(data):
        if number == 7:
            for inner, part in fields(message(value, "GraphProto")):
                _add(graph, inner, part)
    graph.inputs -= graph.constants.keys()
    for node in graph.nodes:
        if node.op == "Constant" and node.constant is not None and node.outputs:
            graph.constants[node.outputs[0]] = node.constant
    return graph


def _add(graph: Graph, number: int, part: int | memoryview) -> None:
    match number:
        case 1:
            graph.nodes.append(node_of(message(part, "NodeProto")))
        case 5:
            tensor = tensor_of(message(part, "TensorProto"))
            graph.constants[tensor.name] = tensor
        case 11:
            names = fields(message(part, "ValueInfoProto"))
            graph.inputs |= {text(value, "name") for n, value in names if n == 1}


@dataclass(slots=True, eq=False)
class Contents:
    """What stands in a file at whatever depth: its tensors, and how often what else is there."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def outside(self) -> list[str]:
        """The names of all tensors whose values lie in another file."""
        return [t.name or "one without a name" for t in self.tensors if t.is_outside]


def contents_of(data: bytes) -> Contents:
    """Walk a file once; DamagedError for bytes that are none."""
    found = Contents()
    for kind, below in messages(memoryview(data)):
        found.kinds[kind] += 1
        if kind == "TensorProto":
            found.tensors.append(tensor_of(below))
        elif kind == "NodeProto":
            found.operators |= {text(value, "op_type") for n, value in fields(below) if n == 4}
    return found
