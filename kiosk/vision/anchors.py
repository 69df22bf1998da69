"""What BlazeFace's outputs mean: one candidate for each anchor, relative to the anchor's place."""

from __future__ import annotations

import math

import numpy as np

from kiosk.types import FloatArray
from kiosk.vision.nms import ROW, SCORE

# Stride of each feature map, and anchors in each of its cells.
_ANCHOR_MAPS = ((8, 2), (16, 6))
_LOGIT_LIMIT = 100.0


def anchors(side: int) -> FloatArray:
    """Centres of the anchors in pixels of the canvas, float32 (n, 2): 896 for a side of 128."""
    maps = []
    for stride, each in _ANCHOR_MAPS:
        centres = (np.arange(side // stride, dtype=np.float32) + 0.5) * stride
        x, y = np.meshgrid(centres, centres)
        maps.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), each, axis=0))
    return np.concatenate(maps)


def decode(
    regressors: FloatArray, logits: FloatArray, centres: FloatArray, least: float
) -> FloatArray:
    """Rows (n, 13) in pixels of the canvas, of all anchors that score at least `least`.

    `regressors` (anchors, 16): centre and size of the box, then six landmarks, all in pixels
    relative to the anchor's centre; the last two, the ears, are not used. `logits` (anchors,).
    """
    bounded = min(max(least, 1e-9), 1.0 - 1e-9)
    # The sigmoid is monotonic: comparing before it leaves a handful of anchors to decode.
    kept = np.flatnonzero(logits >= math.log(bounded / (1.0 - bounded)))
    values = regressors[kept].reshape(-1, 8, 2)
    centre = values[:, 0] + centres[kept]
    half = values[:, 1] / 2.0
    rows = np.empty((len(kept), ROW), dtype=np.float32)
    rows[:, 0:2] = centre - half
    rows[:, 2:4] = centre + half
    rows[:, 4:SCORE] = (values[:, 2:6] + centres[kept, None]).reshape(-1, 8)
    # Beyond the limit the exponential of a 32-bit float overflows.
    clipped = np.clip(logits[kept].astype(np.float64), -_LOGIT_LIMIT, _LOGIT_LIMIT)
    rows[:, SCORE] = 1.0 / (1.0 + np.exp(-clipped))
    return rows
