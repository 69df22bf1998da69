"""A still as somebody who walks up: approach, drift, motion blur, changing light, noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kiosk.types import Pixels

# Shares of the walk-up: coming nearer, standing there, leaving.
_NEAR, _LEAVE = 0.55, 0.85
# Where the focus comes to stand in the frame: a little above the middle, as at a wall kiosk.
_STAND = np.array([0.5, 0.42])


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A picture and where its walk-up goes: `focus` in shares of width and height."""

    pixels: Pixels
    focus: tuple[float, float]
    zoom: float


def wall(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """An empty corridor wall: a smooth gradient with sensor noise, uint8 (height, width, 3)."""
    down = np.linspace(118, 84, height, dtype=np.float32)[:, None]
    across = np.linspace(-8, 8, width, dtype=np.float32)[None, :]
    return _noisy(np.repeat((down + across)[:, :, None], 3, axis=2), rng)


def walk_up(
    still: Still, *, width: int, height: int, frames: int, rng: np.random.Generator
) -> Iterator[Pixels]:
    """`frames` pictures of (height, width, 3) uint8; the same rng state gives the same bytes."""
    phase = rng.uniform(0.0, 2 * np.pi, size=3)
    background = wall(width, height, rng).astype(np.float32)
    previous = _nearness(0.0)
    for number in range(frames):
        moment = number / max(1, frames - 1)
        nearness = _nearness(moment)
        matrix = _placement(still, nearness, moment, phase, (width, height))
        picture = cv2.warpAffine(
            still.pixels.astype(np.float32),
            matrix,
            (width, height),
            dst=background.copy(),
            flags=cv2.INTER_AREA if matrix[0, 0] < 1 else cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
        picture = _blurred(picture, abs(nearness - previous))
        light = 1.0 + 0.12 * np.sin(2 * np.pi * moment * 1.5 + phase[2])
        yield _noisy(picture * np.float32(light), rng)
        previous = nearness


def _nearness(moment: float) -> float:
    """0 far, 1 near: a smooth approach, a stand, a smooth departure."""
    if moment < _NEAR:
        share = moment / _NEAR
    elif moment < _LEAVE:
        share = 1.0
    else:
        share = 1.0 - (moment - _LEAVE) / (1.0 - _LEAVE)
    return share * share * (3.0 - 2.0 * share)


def _placement(
    still: Still,
    nearness: float,
    moment: float,
    phase: np.ndarray[tuple[int], np.dtype[np.float64]],
    size: tuple[int, int],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The 2x3 matrix that puts the still into the frame at this moment."""
    height, width = still.pixels.shape[:2]
    whole = min(size[0] / width, size[1] / height)
    scale = whole * still.zoom**nearness
    middle = np.array([width / 2, height / 2])
    focus = np.array(still.focus) * (width, height)
    looked_at = middle + nearness * (focus - middle)
    stand = np.array([0.5, 0.5]) + nearness * (_STAND - 0.5)
    sway = 0.012 * np.sin(2 * np.pi * moment * np.array([2.0, 3.0]) + phase[:2])
    shift = (stand + sway) * size - scale * looked_at
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])


def _blurred(picture: NDArray[Any], speed: float) -> NDArray[np.float32]:
    """Motion blur that grows with the speed of approach."""
    length = round(speed * 60)
    if length < 2:
        return np.asarray(picture, dtype=np.float32)
    return np.asarray(cv2.blur(picture, (length, 1)), dtype=np.float32)


def _noisy(picture: NDArray[Any], rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * 2.0
    return np.asarray(np.clip(picture + noise, 0, 255), dtype=np.uint8)
