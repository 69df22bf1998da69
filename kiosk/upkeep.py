"""Upkeep of the queue's disk, beside everything else, and what the screen says of it meanwhile."""

from __future__ import annotations

import threading
from typing import Protocol

from kiosk.clock import Clock

_SOON_S = 0.05
_LATER_S = 1.0


class Kept(Protocol):
    """What is tended."""

    @property
    def cannot_record(self) -> str:
        """Why nothing can be recorded now, "" while it can."""
        ...

    def tend(self) -> bool:
        """Take one small step; whether another should follow soon."""
        ...


class Screen(Protocol):
    """What the upkeep asks of feedback."""

    def cannot_record(self, cannot: bool) -> None:
        """Say so, or no longer, while nobody is in front of the screen."""
        ...


class Upkeep:
    """Small steps for as long as the kiosk runs: a punch never waits for more than one of them."""

    def __init__(self, kept: Kept, screen: Screen, *, clock: Clock) -> None:
        self._kept, self._screen, self._clock = kept, screen, clock
        self._told = False

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; raises OutboxBrokenError when the disk has failed meanwhile."""
        while not stop.is_set():
            more = self._kept.tend()
            self._tell(cannot=bool(self._kept.cannot_record))
            self._clock.wait(stop, _SOON_S if more else _LATER_S)

    def _tell(self, *, cannot: bool) -> None:
        """Who comes must not find a kiosk that looks ready and is not."""
        if cannot != self._told:
            self._screen.cannot_record(cannot)
            self._told = cannot
