"""Whether something moves before the camera, told from small grey pictures.

An empty corridor costs next to nothing: only what is new is detected and embedded. The picture is
averaged to cells and held against a running average of the cells, at equal brightness, so that
noise, slow changes of the light and the steps of an exposure control are no motion.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from kiosk.clock import NS_PER_S
from kiosk.types import Pixels

_CELLS = (64, 36)
# Grey levels by which a cell must differ: five times the noise that the cells have now, for in
# little light a face differs by three. And the share of all cells that must: a face of the least
# size that is recognised covers 0.9 % of a 16:9 picture.
_LEAST_LEVELS, _MOST_LEVELS = 2.0, 10.0
_NOISES, _ROUNDING = 6.0, 1.0
_SHARE = 0.006
# Of what is new, so much is taken into the average with each second that passes.
_PER_SECOND = 0.35
# So long after the last motion, or the last face, it may still become something.
HOLD_S = 5.0


class MotionGate:
    """Awake while something moves or a face is seen, and for HOLD_S after. One thread asks it."""

    def __init__(self) -> None:
        self._average: np.ndarray[Any, np.dtype[np.float32]] | None = None
        self._last_ns = 0
        self._until_ns = 0
        self.awake = True

    def look(self, grey: Pixels, now_ns: int) -> bool:
        """Take the next picture, uint8 (height, width); whether the gate is open at `now_ns`.

        The first picture opens it: somebody may be standing there already.
        """
        cells = cv2.resize(grey, _CELLS, interpolation=cv2.INTER_AREA).astype(np.float32)
        if self._average is None or _moves(cells, self._average):
            self.keep_awake(now_ns)
        self._learn(cells, now_ns)
        self.awake = now_ns < self._until_ns
        return self.awake

    def begin(self) -> None:
        """The camera was opened anew: somebody may be standing there already."""
        self._average = None

    def keep_awake(self, now_ns: int) -> None:
        """Somebody is there: whoever stands still is not lost. Any thread."""
        self._until_ns = max(self._until_ns, now_ns + round(HOLD_S * NS_PER_S))

    def _learn(self, cells: np.ndarray[Any, np.dtype[np.float32]], now_ns: int) -> None:
        if self._average is None:
            self._average = cells
        else:
            passed_s = max(0.0, (now_ns - self._last_ns) / NS_PER_S)
            share = np.float32(1.0 - (1.0 - _PER_SECOND) ** passed_s)
            self._average += (cells - self._average) * share
        self._last_ns = now_ns


def _moves(
    cells: np.ndarray[Any, np.dtype[np.float32]], average: np.ndarray[Any, np.dtype[np.float32]]
) -> bool:
    """Whether enough cells differ once both are equally bright.

    The middle one of the ratios is that of the light: whoever comes covers fewer than half.
    """
    gain = np.float32(np.median((cells + 8.0) / (average + 8.0)))
    away = np.abs(cells - ((average + 8.0) * gain - 8.0))
    # The middle one is noise: whoever comes covers fewer than half of the cells.
    levels = np.clip(_NOISES * np.median(away) + _ROUNDING, _LEAST_LEVELS, _MOST_LEVELS)
    return bool((away > levels).mean() >= _SHARE)
