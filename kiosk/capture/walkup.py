"""A still turned into a walk-up: approach, drift, motion blur, changing light, sensor noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kiosk.types import FloatArray, Pixels

Matrix = NDArray[np.float64]

# Coming nearer takes at most so long, and so long a share of a short walk-up; so does leaving.
_APPROACH_S, _APPROACH_SHARE = 2.5, 0.5
_LEAVE_S, _LEAVE_SHARE = 1.5, 0.25
# Nobody stands there from one frame to the next: they come out of the dim.
_APPEAR_S, _APPEAR_SHARE = 0.4, 0.1
# Where the focus comes to stand in the frame: a little above the middle, as at a wall kiosk.
_STAND = (0.5, 0.42)
_ASIDE = 0.12
_STEPS_PER_S = 1.8
_STEP = 0.012
_SWAY_PER_S = 0.35
_SWAY = 0.012
_LIGHT_PER_S = 0.3
_LIGHT = 0.13
# What a camera takes for a frame indoors.
_EXPOSURE_S = 1 / 40
_MAX_EXPOSURES = 8
_BLUR_STEP = 1.5
_EDGE = 0.07
_NOISE = 2.0
_NOISE_MARGIN = 64


class Wall:
    """The empty corridor before the kiosk, and the sensor that looks at it.

    `rng` is used once, for the noise; the same state gives the same bytes.
    """

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.width, self.height = width, height
        across = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
        down = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
        # Lit from above, falling off to the sides; paint a little warmer than grey.
        light = 88.0 - 16.0 * down - 14.0 * across**2
        self.picture: FloatArray = (
            light[:, :, None] * np.array([0.93, 0.98, 1.02], dtype=np.float32)
        ).astype(np.float32)
        shape = (height + _NOISE_MARGIN, width + _NOISE_MARGIN, 3)
        noise = rng.standard_normal(shape, dtype=np.float32) * _NOISE
        self._noise = np.rint(noise).clip(-127, 127).astype(np.int8)

    def empty(self, rng: np.random.Generator) -> Pixels:
        """Nobody is there: uint8 (height, width, 3)."""
        return self.seen(self.picture, rng)

    def seen(self, picture: FloatArray, rng: np.random.Generator) -> Pixels:
        """A picture, float32 (height, width, 3) in 0..255, as the sensor delivers it."""
        # Drawing the noise anew would cost more than everything else: another part of it will do.
        top, left = (int(number) for number in rng.integers(0, _NOISE_MARGIN, size=2))
        noise = self._noise[top : top + self.height, left : left + self.width]
        clean = cv2.convertScaleAbs(picture)
        return np.asarray(cv2.add(clean, noise, dtype=cv2.CV_8U), dtype=np.uint8)


class Still:
    """A picture to walk up: soft at its edges, and kept in halves, so that far away it is clear.

    `pixels`: BGR, uint8 (height, width, 3). `focus`: where the walk-up goes, in shares of width
    and height. `zoom`: how much nearer than the whole picture it comes, at least 1. `frame`: width
    and height of the frames to be made.
    """

    def __init__(
        self, pixels: Pixels, focus: tuple[float, float], zoom: float, frame: tuple[int, int]
    ) -> None:
        height, width = pixels.shape[:2]
        self.focus = (focus[0] * width, focus[1] * height)
        self.middle = (width / 2, height / 2)
        self.far = min(frame[0] / width, frame[1] / height)
        self.near = self.far * zoom
        level = _resized(pixels, min(1.0, self.near))
        self._size = (width, height)
        self._levels = [_soft_edged(level)]
        while self._share(self._levels[-1]) > 2 * self.far and min(level.shape[:2]) > 32:
            level = _resized(level, 0.5)
            self._levels.append(_soft_edged(level))

    def drawn(self, matrix: Matrix, frame: tuple[int, int]) -> Pixels:
        """The still under `matrix` (2x3, its pixels to the frame's): BGR times opacity, opacity."""
        scale = float(matrix[0, 0])
        fit = [level for level in self._levels if self._share(level) >= 0.99 * scale]
        level = fit[-1] if fit else self._levels[0]
        # Pixels have their middle at a half: levels of different sizes must not shift.
        ratio = np.array(self._size) / (level.shape[1], level.shape[0])
        turned = matrix[:, :2] * ratio
        shift = matrix[:, 2] + matrix[:, :2] @ (0.5 * ratio) - 0.5
        warp = np.hstack([turned, shift[:, None]])
        return np.asarray(cv2.warpAffine(level, warp, frame, flags=cv2.INTER_LINEAR), np.uint8)

    def _share(self, level: Pixels) -> float:
        return float(level.shape[1] / self._size[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """One person's way to the kiosk and back, `seconds` long, as a function of the moment.

    `side`: -1 or 1, where they come from. `phases`: where step, sway and light begin.
    """

    still: Still
    frame: tuple[int, int]
    seconds: float
    side: float
    phases: tuple[float, ...]

    def nearness(self, moment: float) -> tuple[float, float]:
        """0 far to 1 near, and how fast it walks, 0 standing to 1."""
        approach = min(_APPROACH_S, _APPROACH_SHARE * self.seconds)
        leave = min(_LEAVE_S, _LEAVE_SHARE * self.seconds)
        if moment < approach:
            share = max(0.0, moment) / approach
        elif moment > self.seconds - leave:
            share = max(0.0, self.seconds - moment) / leave
        else:
            return 1.0, 0.0
        return share * share * (3.0 - 2.0 * share), 4.0 * share * (1.0 - share)

    def presence(self, moment: float) -> float:
        """0 not there, 1 there, a moment's time between."""
        appear = min(_APPEAR_S, _APPEAR_SHARE * self.seconds)
        return min(1.0, max(0.0, min(moment, self.seconds - moment) / appear))

    def light(self, moment: float) -> float:
        """A factor on everything, around 1; changes only while somebody is near."""
        wave = math.sin(math.tau * _LIGHT_PER_S * moment + self.phases[3])
        return 1.0 + _LIGHT * wave * self.nearness(moment)[0]

    def placement(self, moment: float) -> Matrix:
        """The 2x3 matrix from the still's pixels to the frame's."""
        still, (width, height) = self.still, self.frame
        near, pace = self.nearness(moment)
        # Size goes with the inverse of the distance, which is what is walked.
        scale = 1.0 / (1.0 / still.far + near * (1.0 / still.near - 1.0 / still.far))
        step = math.tau * _STEPS_PER_S * moment + self.phases[0]
        sway = math.tau * _SWAY_PER_S * moment
        aside = self.side * _ASIDE * (1.0 - near) + _SWAY * math.sin(sway + self.phases[1])
        rise = _STEP * pace * math.sin(step) + 0.6 * _SWAY * math.sin(0.7 * sway + self.phases[2])
        at_x = width * (0.5 + near * (_STAND[0] - 0.5) + aside)
        at_y = height * (0.5 + near * (_STAND[1] - 0.5) + rise)
        look_x = still.middle[0] + near * (still.focus[0] - still.middle[0])
        look_y = still.middle[1] + near * (still.focus[1] - still.middle[1])
        return np.array([[scale, 0.0, at_x - scale * look_x], [0.0, scale, at_y - scale * look_y]])

    def exposed(self, moment: float, exposure_s: float) -> FloatArray:
        """Motion blur as a shutter makes it: the mean of what was there while it was open.

        float32 (height, width, 4), BGR times opacity and opacity, in 0..255.
        """
        moved = self._moved(moment, exposure_s)
        count = min(_MAX_EXPOSURES, max(1, math.ceil(moved / _BLUR_STEP)))
        total = np.zeros((self.frame[1], self.frame[0], 4), dtype=np.float32)
        for number in range(count):
            matrix = self.placement(moment - exposure_s * number / count)
            cv2.accumulate(self.still.drawn(matrix, self.frame), total)
        return total / np.float32(count)

    def _moved(self, moment: float, exposure_s: float) -> float:
        """By how many pixels the focus, or what is half a frame from it, moves meanwhile."""
        shut, opened = self.placement(moment), self.placement(moment - exposure_s)
        reach = np.array(self.frame) / 2 / shut[0, 0]
        focus = np.array(self.still.focus)
        points = np.array([[*focus, 1.0], [*(focus + reach), 1.0]])
        return float(np.abs(points @ (shut - opened).T).max())


def walk_up(
    still: Still, wall: Wall, *, seconds: float, frames_per_s: float, rng: np.random.Generator
) -> Iterator[Pixels]:
    """Frames of the wall's size, uint8 (height, width, 3), of somebody who comes, stands, leaves.

    At least two frames; the same arguments and the same state of `rng` give the same bytes.
    """
    side = -1.0 if rng.random() < 0.5 else 1.0
    phases = tuple(float(phase) for phase in rng.uniform(0.0, math.tau, size=4))
    walk = _Walk(still, (wall.width, wall.height), seconds, side, phases)
    exposure_s = min(_EXPOSURE_S, 1 / frames_per_s)
    for number in range(max(2, round(seconds * frames_per_s))):
        moment = number / frames_per_s
        layer = walk.exposed(moment, exposure_s)
        shown, light = walk.presence(moment), walk.light(moment)
        behind = 1.0 - layer[:, :, 3:] * np.float32(shown / 255.0)
        picture = layer[:, :, :3] * np.float32(shown * light) + wall.picture * behind * light
        yield wall.seen(picture.astype(np.float32, copy=False), rng)


def _resized(pixels: Pixels, scale: float) -> Pixels:
    if scale == 1.0:
        return pixels
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _soft_edged(pixels: Pixels) -> Pixels:
    """BGR times opacity, opacity: uint8 (height, width, 4), fading out towards the edges."""
    height, width = pixels.shape[:2]
    soft = max(1.0, _EDGE * min(width, height))
    ramps = []
    for side in (height, width):
        inside = np.minimum(np.arange(side), np.arange(side)[::-1]).astype(np.float32) / soft
        share = np.clip(inside, 0.0, 1.0)
        ramps.append(share * share * (3.0 - 2.0 * share))
    opacity = (ramps[0][:, None] * ramps[1][None, :])[:, :, None]
    layers = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], axis=2)
    return np.asarray(np.rint(layers * opacity), dtype=np.uint8)
