"""How long a first message waits for the clock: until it is frozen, its time can be set right."""

from __future__ import annotations

import logging

from kiosk.clock import NS_PER_S, Clock
from kiosk.types import Trust

log = logging.getLogger(__name__)

# From the first connection on. A time service has its answer seconds after the network is up.
_LIMIT_S = 120.0


class Patience:
    """Holds back the first body of a boot while the clock is about to be synchronised.

    `kept`: whether a time service is at work on this machine; without one nothing is waited for.
    """

    def __init__(self, clock: Clock, *, kept: bool) -> None:
        self._clock = clock
        self._waits = kept
        self._began_ns: int | None = None

    def holds(self) -> bool:
        """Ask when a connection stands: True while nothing should be frozen yet."""
        if not self._waits:
            return False
        now = self._clock.now()
        if self._began_ns is None:
            self._began_ns = now.boottime_ns
        waited_s = (now.boottime_ns - self._began_ns) / NS_PER_S
        if now.trust is not Trust.SYNCED and waited_s < _LIMIT_S:
            return True
        self._waits = False
        if now.trust is not Trust.SYNCED:
            facts = {"waited_s": round(waited_s, 1), "meaning": "times are sent as estimates"}
            log.warning("uplink.clock_not_waited_for", extra={"fields": facts})
        return False
