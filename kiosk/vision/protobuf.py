"""As much of the protobuf wire format (protobuf.dev/programming-guides/encoding) as ONNX needs.

The daemon has neither protobuf nor onnx. Only message headers are walked in Python; values stay in
numpy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES = 10
# Packed varints are decoded in pieces, since the intermediate arrays are 25 times as large.
_PIECE = 1 << 20


class DamagedError(Exception):
    """Bytes that are no protobuf message of the expected kind."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an integer, or the bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise DamagedError("it has a field of number 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
        else:
            raise DamagedError(f"it has a field of wire type {wire}")
        if length > end - at:
            raise DamagedError(f"a field of {length} bytes has only {end - at}")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    # Most are of one byte: a start walks tens of thousands of them.
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for place, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise DamagedError("an integer does not end")


def message(value: int | memoryview, what: str) -> memoryview:
    """The bytes of a field; DamagedError for an integer."""
    if isinstance(value, int):
        raise DamagedError(f"bytes expected for {what}, it has an integer")
    return value


def text(value: int | memoryview, what: str) -> str:
    """A field's text; bytes that are no UTF-8 are replaced."""
    return bytes(message(value, what)).decode("utf-8", errors="replace")


def integer(value: int | memoryview) -> int:
    """The integer of a field; DamagedError for bytes."""
    if not isinstance(value, int):
        raise DamagedError("an integer expected, it has bytes")
    return value


def as_int8(packed: memoryview) -> NDArray[np.int8]:
    """Packed integers of 8 bits; DamagedError for larger ones."""
    # Protobuf takes the lower 32 bits of an int32, however many were written.
    values = varints(packed).astype(np.uint32).view(np.int32)
    if values.size and not -128 <= int(values.min()) <= int(values.max()) <= 127:
        raise DamagedError("a value of an INT8 tensor has more than 8 bits")
    return values.astype(np.int8)


def varints(packed: memoryview) -> NDArray[np.int64]:
    """Packed varints as 64-bit integers."""
    raw = np.frombuffer(packed, dtype=np.uint8)
    pieces = [np.empty(0, dtype=np.int64)]
    at = 0
    while at < raw.size:
        piece = raw[at : at + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        lengths = np.diff(ends, prepend=-1)
        if ends.size == 0 or int(lengths.max()) > _VARINT_BYTES:
            raise DamagedError("an integer does not end")
        starts = ends + 1 - lengths
        size = int(ends[-1]) + 1
        place = np.arange(size) - np.repeat(starts, lengths)
        bits = (piece[:size] & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
        pieces.append(np.add.reduceat(bits, starts).view(np.int64))
        at += size
    return np.concatenate(pieces)
