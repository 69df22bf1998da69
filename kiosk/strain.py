"""Heat, power and memory: fewer frames on a hot board, a fresh process between two visits."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

from kiosk.board import Board
from kiosk.clock import NS_PER_S, Clock
from kiosk.config import Limits

log = logging.getLogger(__name__)

LOOK_S = 10.0
# The Pi's firmware throttles at 80 and 85 degrees: the second step is taken before the second.
_HOTTER_C, _COOLER_C = 5.0, 3.0
_STEPS = (1, 2, 4)
# Somebody may stand before the camera for ever, a poster for instance.
_PATIENCE_S = 600.0
_STATM = Path("/proc/self/statm")
_MIB = 1024 * 1024


class Pace(Protocol):
    """What is slowed down: of `one_of` frames one is looked at."""

    one_of: int

    @property
    def awake(self) -> bool:
        """Whether somebody may be there."""
        ...


def step(one_of: int, temperature_c: float | None, hot_c: float) -> int:
    """Of how many frames one is looked at from now on; pure.

    At `hot_c` every second, five degrees above it every fourth; a step back three degrees below
    the one that led there. A board that tells no temperature is not slowed down.
    """
    if temperature_c is None:
        return 1
    number = _STEPS.index(one_of)
    while number + 1 < len(_STEPS) and temperature_c >= hot_c + _HOTTER_C * number:
        number += 1
    while number and temperature_c <= hot_c + _HOTTER_C * (number - 1) - _COOLER_C:
        number -= 1
    return _STEPS[number]


def resident_mb(statm: Path = _STATM) -> float:
    """Memory of this process that lies in RAM, in MiB (proc(5), statm)."""
    pages = int(statm.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


class Strain:
    """Looks every LOOK_S and does what follows from it; `limits` may be replaced."""

    def __init__(self, limits: Limits, pace: Pace, *, clock: Clock) -> None:
        self.limits = limits
        self._pace, self._clock = pace, clock
        self._looked_ns = -(10**18)
        self._over_ns: int | None = None
        self._weak = False
        self.rss_mb = 0.0

    def due(self) -> bool:
        """Whether it is time to look."""
        return self._clock.boottime_ns() - self._looked_ns >= LOOK_S * NS_PER_S

    def look(self, board: Board, rss_mb: float) -> bool:
        """Take one look; whether the process should renew itself now, nobody being there."""
        self._looked_ns = self._clock.boottime_ns()
        self.rss_mb = rss_mb
        self._heat(board.temperature_c)
        self._power(weak=bool(board.under_voltage))
        return self._memory(rss_mb)

    def _heat(self, temperature_c: float | None) -> None:
        one_of = step(self._pace.one_of, temperature_c, self.limits.hot_c)
        if one_of == self._pace.one_of:
            return
        facts = {"temperature_c": temperature_c, "one_of": one_of}
        if one_of > self._pace.one_of:
            log.error("board.hot", extra={"fields": facts})
        else:
            log.warning("board.cooler", extra={"fields": facts})
        self._pace.one_of = one_of

    def _power(self, *, weak: bool) -> None:
        if weak and not self._weak:
            meaning = "the supply or its cable is too weak"
            log.error("board.under_voltage", extra={"fields": {"meaning": meaning}})
        self._weak = weak

    def _memory(self, rss_mb: float) -> bool:
        limit_mb, now_ns = self.limits.memory_mb, self._clock.boottime_ns()
        if not limit_mb or rss_mb <= limit_mb:
            self._over_ns = None
            return False
        if self._over_ns is None:
            self._over_ns = now_ns
        if self._pace.awake and now_ns - self._over_ns < _PATIENCE_S * NS_PER_S:
            return False
        facts = {"rss_mb": round(rss_mb), "limit_mb": limit_mb}
        log.error("memory.limit", extra={"fields": facts})
        return True
