"""How usable a face is: size, sharpness, exposure, pose and edge clip, each in 0..1."""

from __future__ import annotations

import cv2
import numpy as np

from kiosk.types import FloatArray, Pixels, Quality
from kiosk.vision.blazeface import Detection

# Box height in pixels: below the first nothing is left to embed, from the second the crop is full.
_SMALL, _FULL = 24.0, 96.0
# Variance of the Laplacian on the aligned crop: blurred beyond use, and sharp.
_BLURRED, _SHARP = 8.0, 120.0


def measure(pixels: Pixels, aligned: Pixels, detection: Detection) -> Quality:
    """All measures of one face; `aligned` is its 112x112 crop."""
    grey = np.asarray(cv2.cvtColor(aligned, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = pixels.shape[:2]
    return Quality(
        size=size_of(detection),
        sharpness=sharpness_of(grey),
        exposure=exposure_of(grey),
        pose=pose_of(detection.landmarks),
        edge=edge_of(detection, width, height),
    )


def size_of(detection: Detection) -> float:
    """Linear in the smaller box side from 24 to 96 pixels."""
    return _ramp(min(detection.box[2:]), _SMALL, _FULL)


def sharpness_of(grey: Pixels) -> float:
    """Logarithmic in the Laplacian's variance of the crop's middle (Pech-Pacheco et al. 2000)."""
    middle = grey[20:-12, 20:-20]
    variance = float(cv2.Laplacian(middle, cv2.CV_32F).var())
    # Contrast scales the Laplacian: a dim sharp face is not a blurred one.
    contrast = max(float(middle.std()), 8.0) / 40.0
    value = max(variance / contrast**2, 1e-6)
    return _ramp(float(np.log(value)), float(np.log(_BLURRED)), float(np.log(_SHARP)))


def exposure_of(grey: Pixels) -> float:
    """The mean within 30..225 and few pixels clipped to black or white."""
    middle = grey[20:-12, 20:-20]
    mean = float(middle.mean())
    level = min(_ramp(mean, 15.0, 60.0), _ramp(255.0 - mean, 15.0, 60.0))
    clipped = float(((middle <= 4) | (middle >= 251)).mean())
    return level * (1.0 - _ramp(clipped, 0.1, 0.6))


def pose_of(landmarks: FloatArray) -> float:
    """Yaw, pitch and roll read off eyes, nose and mouth: 1 frontal, 0 profile.

    Yaw: the nose's way along the line of the eyes, off its middle. Pitch: the nose's height
    between eyes and mouth. Roll: the slope of the eyes; alignment takes it out, so it weighs less.
    """
    right, left, nose, mouth = np.asarray(landmarks, dtype=np.float64)
    across = left - right
    span = float(np.hypot(*across))
    down = mouth - (right + left) / 2
    fall = float(np.hypot(*down))
    if span < 1e-3 or fall < 1e-3:
        return 0.0
    yaw = abs(float((nose - (right + left) / 2) @ across) / span**2)
    pitch = abs(float((nose - (right + left) / 2) @ down) / fall**2 - 0.5)
    roll = abs(float(np.arctan2(across[1], across[0])))
    return (
        (1.0 - _ramp(yaw, 0.15, 0.5))
        * (1.0 - _ramp(pitch, 0.2, 0.5))
        * (1.0 - _ramp(roll, 0.35, 1.2))
    )


def edge_of(detection: Detection, width: int, height: int) -> float:
    """The share of the box that lies inside the picture, 0 from a third outside."""
    left, top, box_width, box_height = detection.box
    inside_x = max(0.0, min(left + box_width, width) - max(left, 0.0))
    inside_y = max(0.0, min(top + box_height, height) - max(top, 0.0))
    share = inside_x * inside_y / max(box_width * box_height, 1e-6)
    return _ramp(share, 0.67, 1.0)


def _ramp(value: float, low: float, high: float) -> float:
    """0 at `low`, 1 at `high`, linear between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
