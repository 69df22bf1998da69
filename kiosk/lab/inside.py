"""Normalisation inside a graph: what its first operators do to the picture, and how it is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_ARITHMETIC = {"Sub", "Add", "Mul", "Div"}
# They move values, or round them, and change none.
_PASSES = {"Identity", "Cast", "Transpose", "QuantizeLinear", "DequantizeLinear"}
_RAW, _SIGNED, _UNIT = (0.0, 255.0), (-1.0, 1.0), (0.0, 1.0)
"""What may come in: pixels as they are, `(pixel - 127.5) / 127.5`, and `pixel / 255`."""
# Half the width of what the first weights are given: networks are trained on numbers around 1.
_NARROW, _WIDE = 0.2, 6.0
_OFF_CENTRE = 1.2
"""Least of a range that still has 0 in it or near, in halves of its width: 1 is 0 at its end."""

_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Inside:
    """What the graph begins with. `raw` True: it wants pixels as they are; None: cannot be told."""

    words: str
    raw: bool | None


@dataclass(frozen=True, slots=True)
class _Line:
    """`factor * x + offset`, for all channels or for each of three."""

    factor: _Values
    offset: _Values

    def over(self, ends: tuple[float, float]) -> tuple[_Values, _Values]:
        """Centre and half the width of what comes of a range, for each channel."""
        low, high = (self.factor * end + self.offset for end in ends)
        return (low + high) / 2, np.abs(high - low) / 2

    def suits(self, ends: tuple[float, float]) -> bool:
        """Whether such a range comes out as networks like it."""
        centre, half = self.over(ends)
        return bool(
            (np.abs(centre) <= _OFF_CENTRE * half).all()
            and (half >= _NARROW).all()
            and (half <= _WIDE).all()
        )

    def off_centre(self, ends: tuple[float, float]) -> float:
        """How far 0 lies from the middle, in halves of the width."""
        centre, half = self.over(ends)
        return float((np.abs(centre) / np.maximum(half, 1e-12)).max())


def inside(model: onnx.ModelProto, name: str) -> Inside | None:
    """What the graph does to its input `name` before the first weights; None when nothing."""
    steps, words = _Line(np.ones(1), np.zeros(1)), []
    constants = _constants(model)
    node = _only_reader(model, name)
    while node is not None:
        if node.op_type in _ARITHMETIC | {"BatchNormalization"}:
            words.append(node.op_type)
            line = _line(node, name, constants)
            if line is None:
                return Inside(" and ".join(words), None)
            words[-1] += _figures(node, name, constants)
            steps = _Line(steps.factor * line.factor, steps.offset * line.factor + line.offset)
        elif node.op_type not in _PASSES:
            break
        name = node.output[0]
        node = _only_reader(model, name)
    return Inside(" and ".join(words), _wants_raw(steps)) if words else None


def _wants_raw(steps: _Line) -> bool | None:
    raw, signed = steps.suits(_RAW), steps.suits(_SIGNED)
    if not steps.over(_RAW)[1].all():
        return None
    # Less the mean alone: the scale is in the first weights.
    around = bool((steps.offset != 0).all()) and steps.off_centre(_RAW) < 0.25
    if (raw or around) and not signed:
        return True
    better = steps.suits(_UNIT) and steps.off_centre(_UNIT) < steps.off_centre(_SIGNED)
    return False if signed and not (raw or around or better) else None


def _only_reader(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    readers = [node for node in model.graph.node if name in node.input]
    return readers[0] if len(readers) == 1 else None


def _constants(model: onnx.ModelProto) -> dict[str, _Values]:
    found = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    # Whatever else it is, a normalisation has one value, or one for each colour.
    small = {
        name: numpy_helper.to_array(tensor).astype(np.float64).reshape(-1)
        for name, tensor in found.items()
        if int(np.prod(tensor.dims)) in {1, 3}
    }
    for node in model.graph.node:
        # Constants of a quantised graph stand in 8 bits, with scale and zero point.
        if node.op_type == "DequantizeLinear" and all(n in small for n in node.input if n):
            value, scale, *zero = (small[n] for n in node.input if n)
            small[node.output[0]] = (value - (zero[0] if zero else 0.0)) * scale
        elif node.op_type == "Identity" and node.input[0] in small:
            small[node.output[0]] = small[node.input[0]]
    return small


def _line(node: onnx.NodeProto, name: str, constants: dict[str, _Values]) -> _Line | None:
    """What a node makes of its input `name`; None when that is not one straight line."""
    if node.op_type == "BatchNormalization":
        return _norm(node, constants)
    others = [other for other in node.input if other != name]
    if len(others) != 1 or others[0] not in constants:
        return None
    value = constants[others[0]]
    first = node.input[0] == name
    match node.op_type:
        case "Add":
            return _Line(np.ones(1), value)
        case "Sub":
            return _Line(np.ones(1), -value) if first else _Line(-np.ones(1), value)
        case "Mul":
            return _Line(value, np.zeros(1))
    return _Line(1.0 / value, np.zeros(1)) if first and value.all() else None


def _norm(node: onnx.NodeProto, constants: dict[str, _Values]) -> _Line | None:
    if not all(name in constants for name in node.input[1:5]):
        return None
    gamma, beta, mean, variance = (constants[name] for name in node.input[1:5])
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    return _Line(factor, beta - mean * factor)


def _figures(node: onnx.NodeProto, name: str, constants: dict[str, _Values]) -> str:
    if node.op_type == "BatchNormalization":
        return ""
    (other,) = [each for each in node.input if each != name]
    return " " + _brief(constants[other])


def _brief(values: Sequence[float] | _Values) -> str:
    return " ".join(f"{float(value):.6g}" for value in values)
