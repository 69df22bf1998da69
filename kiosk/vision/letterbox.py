"""A part of a picture on the square canvas of a network, and the exact way back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kiosk.types import FloatArray, Pixels

Window = tuple[int, int, int, int]
"""Left, top, width, height in whole pixels of the picture, inside it."""

# Bilinear sampling reads four pixels for each of its own: enough up to this factor of reduction,
# beyond it single hairs and sensor noise would turn into false texture.
_BILINEAR_LIMIT = 8


@dataclass(frozen=True, slots=True, eq=False)
class Letterbox:
    """A window of a picture, scaled with its aspect kept and centred on a black square.

    `canvas`: uint8 BGR (side, side, 3). Canvas x is `left + (picture x - window left) / scale_x`,
    likewise y; the two scales differ by the rounding of the scaled size to whole pixels.
    """

    canvas: Pixels
    window: Window
    left: int
    top: int
    scale_x: float
    scale_y: float

    def to_picture(self, points: FloatArray) -> FloatArray:
        """Points of the canvas, float32 (..., 2), in pixels of the whole picture."""
        scale = np.array([self.scale_x, self.scale_y], dtype=np.float32)
        shift = np.array(
            [
                self.window[0] - self.left * self.scale_x,
                self.window[1] - self.top * self.scale_y,
            ],
            dtype=np.float32,
        )
        return points * scale + shift


def letterbox(pixels: Pixels, window: Window, side: int) -> Letterbox:
    """Put `window` of a BGR picture on a canvas of `side` x `side` pixels."""
    x, y, width, height = window
    longest = max(width, height)
    scaled_width = max(1, round(width * side / longest))
    scaled_height = max(1, round(height * side / longest))
    left, top = (side - scaled_width) // 2, (side - scaled_height) // 2
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    canvas[top : top + scaled_height, left : left + scaled_width] = _scaled(
        pixels[y : y + height, x : x + width], scaled_width, scaled_height
    )
    return Letterbox(canvas, window, left, top, width / scaled_width, height / scaled_height)


def _scaled(pixels: Pixels, width: int, height: int) -> Pixels:
    """Scale to width x height.

    A reduction by 2.5 and more goes to twice the size first, then averages 2 x 2: sixteen samples
    for each pixel, as good for the detector as averaging all of them, at a third of the time and
    independent of the size of the camera's frames.
    """
    if pixels.shape[1] < 2.5 * width or pixels.shape[0] < 2.5 * height:
        return _resized(pixels, width, height, cv2.INTER_LINEAR)
    far = max(pixels.shape[1] / width, pixels.shape[0] / height) > 2 * _BILINEAR_LIMIT
    first = cv2.INTER_AREA if far else cv2.INTER_LINEAR
    return _resized(_resized(pixels, 2 * width, 2 * height, first), width, height, cv2.INTER_AREA)


def _resized(pixels: Pixels, width: int, height: int, how: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=how), dtype=np.uint8)
