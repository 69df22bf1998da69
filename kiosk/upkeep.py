"""Upkeep of the queue's disk, beside everything else, and what the screen says of it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from kiosk.clock import Clock
from kiosk.outbox.ledger import OutboxStatus
from kiosk.pulse import QUEUE_S

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

    def status(self) -> OutboxStatus:
        """Counts of the queue."""
        ...


class Screen(Protocol):
    """What the upkeep asks of feedback."""

    def cannot_record(self, cannot: bool) -> None:
        """Say so, or no longer, while nobody is in front of the screen."""
        ...


class Upkeep:
    """Small steps for as long as the kiosk runs: a punch never waits for more than one of them."""

    pending: int
    """Events that wait to be sent, as of the last look."""

    def __init__(
        self,
        kept: Kept,
        screen: Screen,
        *,
        clock: Clock,
        beat: Callable[[str, float], None],
    ) -> None:
        self._kept, self._screen, self._clock, self._beat = kept, screen, clock, beat
        self._told = False
        self.pending = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; raises OutboxBrokenError when the disk has failed meanwhile."""
        while not stop.is_set():
            self._beat("asks the queue", QUEUE_S)
            more = self._kept.tend()
            self.pending = self._kept.status().pending
            self._tell(cannot=bool(self._kept.cannot_record))
            self._clock.wait(stop, _SOON_S if more else _LATER_S)

    def _tell(self, *, cannot: bool) -> None:
        """Who comes must not find a kiosk that looks ready and is not."""
        if cannot != self._told:
            self._screen.cannot_record(cannot)
            self._told = cannot
