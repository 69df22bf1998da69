"""One line of the gate, and how much of the loss that it allows a model has used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kiosk.lab.gate import Line

_BEST = {"mean cosine": 1.0, "min cosine": 1.0}


@dataclass(frozen=True, slots=True)
class GateLine:
    """A figure with its limit. `best` is what a model equal to FP32 would get (1 for a cosine).

    The limit itself does not pass: the gate says more than 0.995, less than 0.005.
    """

    name: str
    value: float
    limit: float
    best: float

    @property
    def passed(self) -> bool:
        """Whether the figure is on the good side of its limit; never for NaN."""
        if self.limit < self.best:
            return self.value > self.limit
        return self.value < self.limit

    @property
    def used(self) -> float:
        """Share of the allowed loss: 0 as good as FP32 or better, 1 at the limit, more beyond.

        NaN for a NaN: `max` would make 0 of it.
        """
        share = (self.best - self.value) / (self.best - self.limit)
        return 0.0 if share <= 0 else share  # not a minus zero

    @property
    def sign(self) -> str:
        """The relation that the gate asks for."""
        return ">" if self.limit < self.best else "<"


def gate_lines(lines: Sequence[Line]) -> tuple[GateLine, ...]:
    """The lines of the gate that have a limit and were judged."""
    return tuple(
        GateLine(line.name, line.got, float(line.limit.split()[-1]), _BEST.get(line.name, 0.0))
        for line in lines
        if line.got is not None and line.passed is not None
    )


def passes(lines: tuple[GateLine, ...]) -> bool:
    """Whether every line passes; a gate without lines was not judged and does not pass."""
    return bool(lines) and all(line.passed for line in lines)


def tightest(lines: tuple[GateLine, ...]) -> GateLine:
    """The line that has used up most; NaN is worse than everything. ValueError for none."""
    return max(lines, key=lambda line: float("inf") if line.used != line.used else line.used)
