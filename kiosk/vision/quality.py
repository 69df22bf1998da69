"""How usable a face is for recognition: five measures, each 0 (useless) .. 1 (ideal).

Every measure is a straight line between a worst and a best value, flat beyond them. Size, pose and
edge need the detection alone; sharpness and exposure are taken from the middle of the aligned
crop, where there is face and no background.

The values were set on photographs of the demo, blurred, darkened and reduced step by step, and on
the similarity that was left between the spoilt picture and its original.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from kiosk.types import FloatArray, Pixels, Quality
from kiosk.vision.blazeface import Detection

# Forehead to chin and cheek to cheek, as shares of the aligned crop.
_FACE_ROWS = (0.25, 0.93)
_FACE_COLUMNS = (0.21, 0.79)


def measure(pixels: Pixels, aligned: Pixels, detection: Detection) -> Quality:
    """All measures of one face of `pixels`; `aligned` is its crop, uint8 BGR (side, side, 3)."""
    grey = np.asarray(cv2.cvtColor(aligned, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    height, width = pixels.shape[:2]
    return Quality(
        size=size_of(detection),
        sharpness=sharpness_of(grey),
        exposure=exposure_of(grey),
        pose=pose_of(detection.landmarks),
        edge=edge_of(detection, width, height),
    )


def size_of(detection: Detection) -> float:
    """From the shorter side of the box: 0 up to 24 pixels, 1 from 112, the embedder's own size."""
    return _line(min(detection.box[2:]), worst=24.0, best=112.0)


def sharpness_of(grey: Pixels) -> float:
    """From the energy of fine detail, relative to the contrast: the less sharp of two directions.

    The Laplacian's variance (Pertuz et al., "Analysis of focus measure operators", 2013), its two
    second derivatives apart, because a face in motion stays sharp along the edges it moves along.
    Before them a Gaussian of one pixel, so that the camera's noise does not count as detail;
    divided by the variance of the grey values, so that neither light nor contrast count.
    Logarithmic: 0 at a Gaussian blur of 3 % of the box (similarity to the sharp face 0.7).
    """
    blurred = cv2.GaussianBlur(_face(grey).astype(np.float32), (0, 0), 1.0)
    smooth = np.asarray(blurred, dtype=np.float32)
    # A face has a standard deviation of 25 and more; below 8 there is fog, or no face.
    contrast = max(float(smooth.var()), 64.0)
    across = float(np.diff(smooth, n=2, axis=1).var()) / contrast
    down = float(np.diff(smooth, n=2, axis=0).var()) / contrast
    return min(
        _line(_log(across), worst=_log(0.001), best=_log(0.008)),
        # Eyes, brows and mouth lie across: there is twice as much to be seen from top to bottom.
        _line(_log(down), worst=_log(0.0022), best=_log(0.016)),
    )


def exposure_of(grey: Pixels) -> float:
    """The least of three: brightness (mean grey value) not too low, not too high, few clipped.

    Mean: 0 at 10, 1 from 60 to 190, 0 at 245. Share of pixels that are black (up to 8) or white
    (from 247): 1 at none, 0 from 40 %.
    """
    face = _face(grey)
    mean = float(face.mean())
    clipped = float(np.count_nonzero((face <= 8) | (face >= 247))) / face.size
    return min(
        _line(mean, worst=10.0, best=60.0),
        _line(mean, worst=245.0, best=190.0),
        _line(clipped, worst=0.4, best=0.0),
    )


def pose_of(landmarks: FloatArray) -> float:
    """The least of yaw, pitch and roll, told from the landmarks, float32 (4, 2).

    Yaw: how far the nose is off the middle between the eyes, in distances of the eyes: 1 up to
    0.15, 0 from 0.6. Pitch: how far down from the eyes to the mouth the nose is: 1 within 0.18 of
    one half, 0 from 0.45. Roll: the slope of the eyes: 1 up to 20 degrees, 0 from 75, mild because
    the alignment undoes it.
    """
    right, left, nose, mouth = np.asarray(landmarks, dtype=np.float64)
    across = left - right
    distance = max(float(np.hypot(*across)), 1e-6)
    across /= distance
    down = np.array([-across[1], across[0]])
    middle = (right + left) / 2.0
    yaw = abs(float((nose - middle) @ across)) / distance
    face_height = float((mouth - middle) @ down)
    pitch = abs(float((nose - middle) @ down) / face_height - 0.5) if face_height > 0 else 1.0
    roll = abs(math.degrees(math.atan2(across[1], across[0])))
    return min(
        _line(yaw, worst=0.6, best=0.15),
        _line(pitch, worst=0.45, best=0.18),
        _line(roll, worst=75.0, best=20.0),
    )


def edge_of(detection: Detection, width: int, height: int) -> float:
    """From the share of the box that is inside the picture: 0 up to 70 %, 1 when all of it is."""
    left, top, box_width, box_height = detection.box
    inside_x = max(0.0, min(left + box_width, width) - max(left, 0.0))
    inside_y = max(0.0, min(top + box_height, height) - max(top, 0.0))
    share = inside_x * inside_y / max(box_width * box_height, 1e-6)
    return _line(share, worst=0.7, best=1.0)


def _line(value: float, *, worst: float, best: float) -> float:
    """0 at `worst`, 1 at `best`, straight between and flat beyond."""
    return min(max((value - worst) / (best - worst), 0.0), 1.0)


def _log(value: float) -> float:
    return math.log(max(value, 1e-9))


def _face(values: Pixels) -> Pixels:
    """The part of an aligned crop in which there is face and no background."""
    rows, columns = values.shape[:2]
    return values[
        round(_FACE_ROWS[0] * rows) : round(_FACE_ROWS[1] * rows),
        round(_FACE_COLUMNS[0] * columns) : round(_FACE_COLUMNS[1] * columns),
    ]
