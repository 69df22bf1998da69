"""A face brought to the place where the embedder expects it, by a similarity of four landmarks."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from kiosk.errors import PictureError
from kiosk.types import FloatArray, Pixels

ALIGNMENT = "arcface-112-4pt"
"""Id of this alignment in the models' manifest: embeddings of another one do not compare."""
SIDE = 112

# ArcFace's five-point template on 112 x 112 pixels; the detector gives the middle of the mouth,
# so its two corners count as their mean.
_MOUTH = ((41.5493 + 70.7299) / 2, (92.3655 + 92.2041) / 2)
TEMPLATE: NDArray[np.float64] = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), _MOUTH], dtype=np.float64
)
TEMPLATE.flags.writeable = False

# Of the landmarks' spread, so much must be explained by the template: a frontal face reaches
# 0.99, a full profile 0.8, a mirrored face (mouth above the eyes, eyes not swapped) 0.3.
_LEAST_FIT = 0.5
# Sixty-four points for a pixel: enough for a face of 1800 pixels, and bounded for larger ones.
_FINEST = 8


class LandmarksError(PictureError):
    """Landmarks that no face has: coinciding, not finite, or mirrored."""


def similarity(landmarks: FloatArray, size: int = SIDE) -> NDArray[np.float64]:
    """The 2 x 3 matrix that takes the landmarks nearest to the template, in least squares.

    Rotation, one scale and shift, never a reflection: Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", IEEE PAMI 13 (4), 1991, which has a
    closed form in two dimensions. `landmarks`: (4, 2), pixels. Raises LandmarksError.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != TEMPLATE.shape or not np.isfinite(points).all():
        raise LandmarksError(f"four finite landmarks expected, got {points.tolist()}")
    target = TEMPLATE * (size / SIDE)
    middle, target_middle = points.mean(axis=0), target.mean(axis=0)
    p, q = points - middle, target - target_middle
    spread, target_spread = float((p * p).sum()), float((q * q).sum())
    along = float((p * q).sum())
    across = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum())
    fit = math.hypot(along, across) / max(math.sqrt(spread * target_spread), 1e-12)
    if spread < 1.0 or fit < _LEAST_FIT:
        raise LandmarksError(
            f"landmarks of a face expected, got {points.round(1).tolist()}",
            hint="use a picture that shows the whole face",
        )
    linear = np.array([[along, -across], [across, along]]) / spread
    return np.column_stack([linear, target_middle - linear @ middle])


def align(pixels: Pixels, landmarks: FloatArray, size: int = SIDE) -> Pixels:
    """The aligned crop, uint8 BGR (size, size, 3); what lies beyond the picture is black.

    `pixels`: uint8 BGR (height, width, 3), not changed. `landmarks`: float32 (4, 2), pixels: right
    eye, left eye, nose tip, mouth centre. Raises LandmarksError.

    A face of more than twice the crop's size is sampled on a grid of `fine` x `fine` points for
    each pixel: single bilinear samples would carry the camera's noise into the embedding.
    """
    matrix = similarity(landmarks, size)
    fine = min(_FINEST, math.ceil(0.5 / math.hypot(matrix[0, 0], matrix[1, 0])))
    if fine == 1:
        return _warped(pixels, matrix, size)
    matrix *= fine
    # Pixel centres are whole numbers: the middle of a block of points lies between them.
    matrix[:, 2] += (fine - 1) / 2.0
    crop = cv2.resize(
        _warped(pixels, matrix, size * fine), (size, size), interpolation=cv2.INTER_AREA
    )
    return np.asarray(crop, dtype=np.uint8)


def _warped(pixels: Pixels, matrix: NDArray[np.float64], size: int) -> Pixels:
    crop = cv2.warpAffine(
        pixels,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0),
    )
    return np.asarray(crop, dtype=np.uint8)
