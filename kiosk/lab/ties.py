"""Sums of two 8-bit tensors that every processor rounds to the same side.

An 8-bit sum is `round(zc + (sa*(i - za) + sb*(j - zb)) / sc)`. x86 computes it in float32, ARM with
multipliers of 22 bits: they differ by as much as 0.0002 of a step, and where a pair (i, j) lies as
near to a tie as that, they round to different sides. One such pair is enough: it comes up many
times in a tensor, and what follows passes the difference on.

So all tensors that sums join get scales that are whole multiples of one step, a power of two, and
a sum's result an odd one. `sa/sc` and `sb/sc` are then fractions with one odd denominator, no pair
is a tie, and the nearest one is half of 1/denominator away from it. This costs nothing at run time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

from kiosk.lab.calibrate import read_ranges
from kiosk.lab.graph import Net

MOST_STEPS = 1025
"""The largest scale of tensors that sums join, in steps."""
LEAST_MARGIN = 0.5 / MOST_STEPS
"""How near to a tie a sum comes at most, in steps of its result: twice what processors differ."""
# A scale of fewer steps would be rounded too coarsely: then the scales stay as they are.
_LEAST_STEPS = 64
_BITS = 9
_LEVELS = {"S8": 127, "U8": 255}


def write_without_ties(
    model: onnx.ModelProto,
    ranges: Path,
    target: Path,
    *,
    activations: Literal["S8", "U8"],
    exclude: tuple[str, ...] = (),
) -> None:
    """Ranges that give sums without ties, from those that `calibrate.write_ranges` wrote.

    No range becomes narrower. `exclude`: names of nodes that are not quantised. Tensors whose
    scales lie further apart than 1 to 8 keep their ranges. Raises ModelError when `ranges` is no
    such file.
    """
    tensors = read_ranges(ranges)
    sums = _sums(Net(model), tensors, exclude)
    results = {names[-1] for names in sums}
    for group in _joined(sums):
        scales = {name: _scale(tensors[name], activations) for name in group}
        for name, (scale, steps) in whole_steps(scales, results).items():
            tensors[name] = _range(tensors[name], scale * steps, activations)
    save_tensors_data(tensors, target)


def whole_steps(scales: dict[str, float], results: set[str]) -> dict[str, tuple[float, int]]:
    """The step and the number of steps that each scale becomes, odd for `results`.

    Empty when the scales are no positive numbers or lie too far apart.
    """
    largest = max(scales.values())
    if min(scales.values()) <= 0.0 or not math.isfinite(largest):
        return {}
    # A product of step, number and an 8-bit value is exact in float32.
    step = math.ldexp(1.0, math.frexp(largest)[1] - 1 - _BITS)
    counts = {name: math.ceil(scale / step) for name, scale in scales.items()}
    if min(counts.values()) < _LEAST_STEPS:
        return {}
    return {name: (step, n | 1 if name in results else n) for name, n in counts.items()}


def _sums(net: Net, tensors: TensorsData, exclude: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Both terms and the result of each sum that is quantised."""
    return [
        (node.input[0], node.input[1], node.output[0])
        for node in net.nodes
        if node.op_type == "Add"
        and node.name not in exclude
        and all(name in tensors for name in (*node.input, *node.output))
    ]


def _joined(sums: list[tuple[str, str, str]]) -> list[set[str]]:
    """Tensors that share a step: those of one sum, and of all sums that they take part in."""
    groups: list[set[str]] = []
    for names in sums:
        touched = [group for group in groups if group & set(names)]
        groups = [group for group in groups if group not in touched]
        groups.append(set(names).union(*touched))
    return groups


def _ends(data: TensorData) -> tuple[float, float]:
    """A tensor's range with 0 in it, as ONNX Runtime's quantiser takes it."""
    lowest, highest = (np.asarray(end, dtype=np.float64).item() for end in data.range_value)
    return min(lowest, 0.0), max(highest, 0.0)


def _scale(data: TensorData, activations: Literal["S8", "U8"]) -> float:
    low, high = _ends(data)
    reach = max(-low, high) if activations == "S8" else high - low
    return reach / _LEVELS[activations]


def _range(data: TensorData, scale: float, activations: Literal["S8", "U8"]) -> TensorData:
    """The range from which the quantiser takes this very scale, and the zero point of `data`."""
    low, levels = _ends(data)[0], _LEVELS[activations]
    zero = levels if activations == "S8" else round(-low / _scale(data, activations))
    high = levels if activations == "S8" else levels - zero
    kinds = (end.dtype for end in data.range_value)
    ends = (
        np.asarray(each * scale, dtype=kind)
        for each, kind in zip((-zero, high), kinds, strict=True)
    )
    return TensorData(**dict(zip(("lowest", "highest"), ends, strict=True)))
