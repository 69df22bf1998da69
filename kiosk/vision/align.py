"""Alignment: a similarity by least squares from four landmarks onto the ArcFace template.

Sources: Umeyama 1991 (closed form, without reflection); the 112x112 template of ArcFace (Deng et
al. 2019, arXiv:1801.07698), its two mouth corners replaced by their mean.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from kiosk.errors import PictureError
from kiosk.types import FloatArray, Pixels

SIZE = 112
TEMPLATE: NDArray[np.float64] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [(41.5493 + 70.7299) / 2, (92.3655 + 92.2041) / 2],
    ]
)
# Landmarks closer together than this cannot carry a direction.
_LEAST_SPREAD = 1.0


def similarity(landmarks: FloatArray) -> NDArray[np.float64]:
    """The 2x3 matrix (rotation, scale, shift) that brings landmarks (4, 2) nearest the template.

    PictureError when the landmarks are not finite or fall together.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    centre, goal = points.mean(axis=0), TEMPLATE.mean(axis=0)
    spread, wanted = points - centre, TEMPLATE - goal
    square = float((spread * spread).sum())
    if points.shape != (4, 2) or not np.isfinite(square) or square < _LEAST_SPREAD:
        raise PictureError(f"four landmarks apart from each other expected, got {points.tolist()}")
    a = float((spread * wanted).sum()) / square
    b = float((spread[:, 0] * wanted[:, 1] - spread[:, 1] * wanted[:, 0]).sum()) / square
    turn = np.array([[a, -b], [b, a]])
    return np.concatenate([turn, (goal - turn @ centre)[:, None]], axis=1)


def align(pixels: Pixels, landmarks: FloatArray) -> Pixels:
    """The aligned crop, uint8 (112, 112, 3); what lies outside the picture is black."""
    matrix = similarity(landmarks)
    return np.asarray(
        cv2.warpAffine(pixels, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR), np.uint8
    )
