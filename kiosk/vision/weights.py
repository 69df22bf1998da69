"""The INT8 weights of an ONNX file, read without the onnx package, which the daemon does not have.

Reads as much of the protobuf wire format (protobuf.dev/programming-guides/encoding) as finds the
tensors in onnx.proto: initialisers and tensor attributes (Constant nodes), in subgraphs and
functions too. Only message headers are walked in Python; values stay in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import ModelError

# Field numbers of onnx.proto: which field of a message holds which message.
_INSIDE: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto"},
    "FunctionProto": {7: "NodeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: "TensorProto", 10: "TensorProto", 6: "GraphProto", 11: "GraphProto"},
}
_DIMS, _DATA_TYPE, _INT32_DATA, _NAME, _RAW_DATA = 1, 2, 5, 8, 9
_INT8 = 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES = 10
# Subgraphs in subgraphs: real models have two or three.
_DEEPEST = 64
# Packed varints are decoded in pieces, since the intermediate arrays are 25 times as large.
_PIECE = 1 << 20


class _DamagedError(Exception):
    """Bytes that are no protobuf message of the expected kind."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weight:
    """A tensor of type INT8 with two or more dimensions; `values` int8, flat."""

    name: str
    values: NDArray[np.int8]


def check_int8_weights(data: bytes, model_id: str) -> None:
    """ModelError by name unless every INT8 weight of an ONNX file lies in -127..127."""
    for weight in int8_weights(data, model_id):
        count = int(np.count_nonzero(weight.values == -128))
        if count:
            raise ModelError(
                f"model {model_id}: INT8 weights in -127..127 expected, {count} of"
                f" {weight.name} are -128",
                hint="NEON kernels of onnxruntime overflow with it: quantise it again with"
                " symmetric weights",
            )


def int8_weights(data: bytes, model_id: str) -> list[Int8Weight]:
    """Every INT8 tensor of two or more dimensions in an ONNX file.

    Raises ModelError by name for bytes that are no ONNX file and for weights outside of it.
    """
    try:
        tensors = _tensors(memoryview(data), "ModelProto", 0)
        return [weight for tensor in tensors for weight in _int8_weight(tensor)]
    except _DamagedError as error:
        raise ModelError(
            f"model {model_id}: a whole ONNX file expected, {error}",
            hint="a single self-contained ONNX file is expected, without external data",
        ) from error


def _tensors(data: memoryview, kind: str, depth: int) -> Iterator[memoryview]:
    """The bytes of every TensorProto below a message."""
    if kind == "TensorProto":
        yield data
        return
    if depth > _DEEPEST:
        raise _DamagedError(f"its graphs are nested more than {_DEEPEST} deep")
    for number, value in _fields(data):
        inner = _INSIDE[kind].get(number)
        if inner is not None:
            yield from _tensors(_message(value, inner), inner, depth + 1)


def _int8_weight(tensor: memoryview) -> Iterator[Int8Weight]:
    """One weight, or nothing for a tensor of another type or of less than two dimensions."""
    dims: list[int] = []
    kind, name, parts = 0, "", []
    for number, value in _fields(tensor):
        match number:
            case n if n == _DATA_TYPE:
                kind = _integer(value)
            case n if n == _DIMS:
                dims += [value] if isinstance(value, int) else _varints(value).tolist()
            case n if n == _NAME:
                name = bytes(_message(value, "name")).decode("utf-8", errors="replace")
            case n if n in {_RAW_DATA, _INT32_DATA}:
                parts.append((n, _message(value, "values")))
    if kind != _INT8 or len(dims) < 2:
        return
    arrays = [
        np.frombuffer(part, dtype=np.int8) if n == _RAW_DATA else _as_int8(part)
        for n, part in parts
    ]
    values = arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, np.int8), *arrays])
    if min(dims) < 0 or values.size != math.prod(dims):
        raise _DamagedError(
            f"its weight {name or 'without a name'} of shape {dims} holds {values.size} values"
        )
    yield Int8Weight(name or "a weight without a name", values)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an integer, or the bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _DamagedError("it has a field of number 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
        else:
            raise _DamagedError(f"it has a field of wire type {wire}")
        if length > end - at:
            raise _DamagedError(f"a field of {length} bytes has only {end - at}")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise _DamagedError("an integer does not end")


def _message(value: int | memoryview, what: str) -> memoryview:
    if isinstance(value, int):
        raise _DamagedError(f"bytes expected for {what}, it has an integer")
    return value


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise _DamagedError("an integer expected, it has bytes")
    return value


def _as_int8(packed: memoryview) -> NDArray[np.int8]:
    # Protobuf takes the lower 32 bits of an int32, however many were written.
    values = _varints(packed).astype(np.uint32).view(np.int32)
    if values.size and not -128 <= int(values.min()) <= int(values.max()) <= 127:
        raise _DamagedError("a value of an INT8 tensor has more than 8 bits")
    return values.astype(np.int8)


def _varints(packed: memoryview) -> NDArray[np.int64]:
    """Packed varints as 64-bit integers."""
    raw = np.frombuffer(packed, dtype=np.uint8)
    pieces = [np.empty(0, dtype=np.int64)]
    at = 0
    while at < raw.size:
        piece = raw[at : at + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        lengths = np.diff(ends, prepend=-1)
        if ends.size == 0 or int(lengths.max()) > _VARINT_BYTES:
            raise _DamagedError("an integer does not end")
        starts = ends + 1 - lengths
        size = int(ends[-1]) + 1
        place = np.arange(size) - np.repeat(starts, lengths)
        bits = (piece[:size] & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
        pieces.append(np.add.reduceat(bits, starts).view(np.int64))
        at += size
    return np.concatenate(pieces)
