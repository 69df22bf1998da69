"""8-bit sums of a quantised graph: what two processors make of them, and how near ties they are."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


@dataclass(frozen=True)
class Sum:
    """Scales and zero points of both terms and of the result; the ends of the 8-bit type."""

    scales: tuple[float, float, float]
    zeros: tuple[int, int, int]
    ends: tuple[int, int]

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every pair of values, each less its zero point, as a column and a row."""
        values = np.arange(self.ends[0], self.ends[1] + 1)
        return (values - self.zeros[0])[:, None], (values - self.zeros[1])[None]

    def exact(self) -> NDArray[np.float64]:
        """What each pair gives before it is rounded."""
        one, two = self.pairs()
        first, second, result = self.scales
        return self.zeros[2] + (first * one + second * two) / result

    def margin(self) -> float:
        """How near a tie the nearest pair comes, of those whose result is not clipped."""
        values = self.exact()
        inside = values[(values > self.ends[0] - 0.5) & (values < self.ends[1] + 0.5)]
        return float(np.abs(inside - np.floor(inside) - 0.5).min())

    def in_float32(self) -> NDArray[np.int64]:
        """As x86 computes it: float32, multiplied and added in one rounding."""
        first, second, result = (np.float32(scale) for scale in self.scales)
        one, two, zero = (np.float32(zero) for zero in self.zeros)
        values = np.arange(self.ends[0], self.ends[1] + 1, dtype=np.float32)
        ratios = first / result, second / result
        fixed = zero - _fused(ratios[0], one, ratios[1] * two)
        total = _fused(values[:, None], ratios[0], _fused(values[None], ratios[1], fixed))
        return np.clip(np.rint(total), *self.ends).astype(np.int64)

    def in_fixed_point(self) -> NDArray[np.int64]:
        """As ARM computes it: whole numbers, ratios of 22 bits, ties away from zero."""
        one, two = self.pairs()
        first, second, result = (np.float32(scale) for scale in self.scales)
        ratios = float(first / result), float(second / result)
        shift = 22 - int(np.frexp(max(ratios))[1])
        factors = [int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios]
        total = one * factors[0] + two * factors[1]
        rounded = (total - (total < 0) + (1 << (shift - 1))) >> shift
        return np.clip(rounded + self.zeros[2], *self.ends)


def _fused(one, two, three):
    return (np.float64(one) * np.float64(two) + np.float64(three)).astype(np.float32)


def sums_of(model: onnx.ModelProto) -> list[Sum]:
    """The 8-bit sums of a graph in QDQ form or in integer operators, in order."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    found = []
    for node in model.graph.node:
        if node.op_type == "QLinearAdd":
            names = [tuple(node.input[at : at + 2]) for at in (1, 4, 6)]
        elif node.op_type == "Add":
            ends = [*(made.get(name) for name in node.input), readers.get(node.output[0])]
            if [end and end.op_type for end in ends] != [
                *["DequantizeLinear"] * 2,
                "QuantizeLinear",
            ]:
                continue
            names = [tuple(end.input[1:3]) for end in ends]
        else:
            continue
        limits = np.iinfo(constants[names[0][1]].dtype)
        found.append(
            Sum(
                tuple(float(constants[scale]) for scale, _ in names),
                tuple(int(constants[zero]) for _, zero in names),
                (int(limits.min), int(limits.max)),
            )
        )
    return found
