"""Where to look for faces that are too small to be seen on the whole picture."""

from __future__ import annotations

import math
from functools import lru_cache

from kiosk.vision.letterbox import Window

SIDE = 288
"""Side of the finest tiles: a face of 40 pixels is 18 of the network's 128, and still found."""
_OVERLAP = 0.25
# Whole picture and tiles, and tiles and finer tiles, differ by this factor in scale.
_STEP = 4.45
# A picture not longer than this many tiles shows on the whole what its tiles would show.
_LARGE = 1.5


@lru_cache(maxsize=8)
def tiles(width: int, height: int) -> tuple[Window, ...]:
    """Overlapping square windows that cover a picture, coarse before fine; none for a small one.

    Pictures up to 1280 x 720 have one level of tiles; larger ones get coarser levels besides, so
    that no size of face falls between the whole picture and the finest tiles.
    """
    longest = max(width, height)
    if longest <= _LARGE * SIDE:
        return ()
    sides = []
    side = longest / _STEP
    while side > _LARGE * SIDE:
        sides.append(round(side))
        side /= _STEP
    sides.append(SIDE)
    return tuple(window for side in sides for window in _level(width, height, side))


def _level(width: int, height: int, side: int) -> list[Window]:
    return [
        (left, top, min(side, width), min(side, height))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    """Evenly spaced starts of spans of `side` that cover `length`, overlapping by a quarter."""
    if length <= side:
        return [0]
    gaps = math.ceil((length - side) / (side * (1 - _OVERLAP)))
    return [round(index * (length - side) / gaps) for index in range(gaps + 1)]
