"""Watches the clock: notes in the queue when it was right, and says when that changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from kiosk.clock import NS_PER_MS, NS_PER_S, Clock
from kiosk.errors import OutboxFullError
from kiosk.pulse import QUEUE_S
from kiosk.types import Stamp, Trust

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_NOTE_S = 3600.0


class Notes(Protocol):
    """What the timekeeper asks of the outbox."""

    def note_time(self, now: Stamp, *, rtc: bool) -> None:
        """Keep what dates or bounds the events that were seen without a synchronised clock."""
        ...


class Timekeeper:
    """Notes the first synchronised moment of this boot at once, and one every hour."""

    trust: Trust
    """Whether the clock is synchronised, as of the last look."""

    def __init__(
        self, notes: Notes, *, clock: Clock, rtc: bool, beat: Callable[[str, float], None]
    ) -> None:
        self._notes = notes
        self._clock = clock
        self._beat = beat
        self._rtc = rtc
        self._last = clock.now()
        self._noted: Stamp | None = None
        self.trust = self._last.trust

    def run(self, stop: threading.Event) -> None:
        """Look every second until `stop` is set; OutboxError ends it."""
        self._tell(self._last, step_s=0.0)
        while True:
            self._beat("compares the clock", QUEUE_S)
            self.look()
            if self._clock.wait(stop, _LOOK_S):
                return

    def look(self) -> None:
        """Compare the clock with the last look, tell what changed, and note what is due."""
        now, last = self._clock.now(), self._last
        if now.trust is not last.trust:
            self._tell(now, step_s=(_offset_ns(now) - _offset_ns(last)) / NS_PER_S)
        self._last, self.trust = now, now.trust
        if self._due(now):
            self._note(now)

    def _due(self, now: Stamp) -> bool:
        if self._noted is None or now.trust is not self._noted.trust:
            return True
        return (now.boottime_ns - self._noted.boottime_ns) / NS_PER_S >= _NOTE_S

    def _note(self, now: Stamp) -> None:
        try:
            self._notes.note_time(now, rtc=self._rtc)
        except OutboxFullError as error:
            # Tried again at the next look: a moment later dates as well.
            log.warning("clock.not_noted", extra={"fields": {"reason": str(error)}})
            return
        self._noted = now

    def _tell(self, now: Stamp, *, step_s: float) -> None:
        facts: dict[str, str | int | float] = {"step_s": round(step_s, 3), "rtc": self._rtc}
        if now.trust is Trust.SYNCED:
            log.info("clock.synchronised", extra={"fields": facts})
            return
        facts["meaning"] = "times are kept by time since boot and set right, or sent with bounds"
        log.warning("clock.unsynchronised", extra={"fields": facts})


def _offset_ns(stamp: Stamp) -> int:
    return stamp.utc_ms * NS_PER_MS - stamp.boottime_ns
