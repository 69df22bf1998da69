"""Overlapping detections into one each, by score-weighted mean.

A detection is a row of 13 float32 values: left, top, right, bottom, x and y of four landmarks,
score. A set of them is an array (n, 13).
"""

from __future__ import annotations

import numpy as np

from kiosk.types import FloatArray

ROW = 13
SCORE = 12
SAME_FACE = 0.3
"""Least intersection over union of two detections of one face (MediaPipe's value)."""


def overlap(row: FloatArray, rows: FloatArray) -> FloatArray:
    """Intersection over union of one row's box with those of (n, 13) rows: float32 (n,), 0..1."""
    extent = np.minimum(row[2:4], rows[:, 2:4]) - np.maximum(row[:2], rows[:, :2])
    extent = np.maximum(extent, 0.0)
    common = extent[:, 0] * extent[:, 1]
    union = _areas(row[None]) + _areas(rows) - common
    return np.asarray(common / np.maximum(union, np.finfo(np.float32).tiny), dtype=np.float32)


def weighted_nms(rows: FloatArray) -> FloatArray:
    """Merge the rows of each face into one, best score first.

    MediaPipe's weighted non-maximum suppression: the best row takes all those that overlap it by
    more than `SAME_FACE`; box and landmarks become their mean weighted by score, the score stays
    the best one. The mean is steadier from frame to frame than the best row alone.
    """
    if len(rows) < 2:
        return rows
    rest = rows[np.argsort(-rows[:, SCORE], kind="stable")]
    merged = []
    while len(rest):
        same = overlap(rest[0], rest) > SAME_FACE
        same[0] = True
        group = rest[same]
        weights = np.maximum(group[:, SCORE], 1e-6)
        face = weights @ group / weights.sum()
        face[SCORE] = rest[0, SCORE]
        merged.append(face)
        rest = rest[~same]
    return np.asarray(merged, dtype=np.float32)


def _areas(rows: FloatArray) -> FloatArray:
    extent = np.maximum(rows[:, 2:4] - rows[:, :2], 0.0)
    return np.asarray(extent[:, 0] * extent[:, 1], dtype=np.float32)
