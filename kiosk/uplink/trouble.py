"""Failures in a row: told once for each change, counted in between, and told when over."""

from __future__ import annotations

import logging

from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import KioskError

log = logging.getLogger(__name__)


class Trouble:
    """The failures since the last success."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_ns = 0
        self._told = ""
        self._repeats = 0
        self.failures = 0
        """How many there were since the last success."""

    def add(self, error: KioskError, level: int) -> None:
        """Count a failure, and log it at `level` if it is another than the one before."""
        if not self.failures:
            self._since_ns = self._clock.boottime_ns()
        self.failures += 1
        reason = str(error)
        if reason == self._told:
            self._repeats += 1
            return
        fields = {"reason": reason, "failures": self.failures, "repeats_before": self._repeats}
        log.log(level, "uplink.failing", extra={"fields": fields})
        self._told, self._repeats = reason, 0

    def over(self) -> None:
        """Note a success, and log how long the trouble lasted if there was any."""
        if not self.failures:
            return
        lasted_s = (self._clock.boottime_ns() - self._since_ns) / NS_PER_S
        fields = {"failures": self.failures, "lasted_s": round(lasted_s, 1)}
        log.info("uplink.recovered", extra={"fields": fields})
        self.failures, self._told, self._repeats = 0, "", 0
