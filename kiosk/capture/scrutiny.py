"""Whether what a camera delivers is a picture: not black, not frozen, not of another size."""

from __future__ import annotations

from collections import deque
from enum import Enum

import numpy as np

from kiosk.clock import NS_PER_S
from kiosk.types import Pixels

# Every sensor has noise: two pictures without one difference are the same picture.
_FROZEN_S = 5.0
_DARK_S = 2.0
# Black of a limited range, with the noise of the darkest pixels.
_DARK_LEVEL = 20
_RATE_OVER_S = 10.0


class Verdict(Enum):
    """What is wrong with the pictures, in words."""

    GOOD = ""
    FROZEN = "the very same picture for 5 s"
    DARK = "a black picture: the lens is covered, or there is no light"
    RESIZED = "pictures of another size than before"


class Scrutiny:
    """Judges small grey pictures in turn. One thread asks it."""

    def __init__(self) -> None:
        self._last: Pixels | None = None
        self._begun = True
        self._changed_ns = 0
        self._light_ns = 0
        self.lively = True
        """Whether the last picture was not black, and another one than that before it."""

    def begin(self) -> None:
        """The camera was opened anew, and has its time again; what it showed last is remembered."""
        self._begun = True

    def judge(self, grey: Pixels, now_ns: int) -> Verdict:
        """The verdict with this picture, uint8 (height, width), taken into account."""
        last, self._last = self._last, grey
        lit = int(grey.max()) >= _DARK_LEVEL
        resized = last is not None and last.shape != grey.shape
        changed = last is None or resized or not np.array_equal(last, grey)
        self.lively = lit and changed
        if self._begun:
            self._begun = False
            self._changed_ns = self._light_ns = now_ns
            return Verdict.GOOD
        if resized:
            return Verdict.RESIZED
        if changed:
            self._changed_ns = now_ns
        if lit:
            self._light_ns = now_ns
        if now_ns - self._light_ns >= _DARK_S * NS_PER_S:
            return Verdict.DARK
        if now_ns - self._changed_ns >= _FROZEN_S * NS_PER_S:
            return Verdict.FROZEN
        return Verdict.GOOD


class Rate:
    """Frames a second, over the last ten seconds. One thread adds, any may read."""

    def __init__(self) -> None:
        self._moments: deque[int] = deque(maxlen=1000)

    def add(self, now_ns: int) -> None:
        """A frame came."""
        self._moments.append(now_ns)

    def per_second(self, now_ns: int) -> float:
        """As of now; 0 where none came."""
        since_ns = now_ns - round(_RATE_OVER_S * NS_PER_S)
        moments = [one for one in tuple(self._moments) if one > since_ns]
        if len(moments) < 2:
            return 0.0
        return (len(moments) - 1) * NS_PER_S / max(1, now_ns - moments[0])

    def age_s(self, now_ns: int) -> float | None:
        """Seconds since the last one, None before the first."""
        moments = tuple(self._moments)
        return (now_ns - moments[-1]) / NS_PER_S if moments else None
