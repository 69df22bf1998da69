"""How many events go into the next request: as many as this server has shown to take."""

from __future__ import annotations

from kiosk.clock import NS_PER_S, Clock
from kiosk.wire.batch import MAX_MESSAGES

HOLD_S = 3600.0
"""What a server said about its batch address is believed for so long."""
_STEP = 10
# Batches that fail right after a single event went, until batches are held to be the reason.
_MOST_DOUBTS = 3


class Pace:
    """The most events for the next request; 1 means the single form.

    Halved by a failure and raised in steps by each success (additive increase, multiplicative
    decrease: Chiu and Jain, Computer Networks and ISDN Systems 17, 1989), so that a link that
    carries no large request in time, and a server that refuses a batch for one event in it, both
    get smaller ones, and in the end single ones.
    """

    def __init__(self, clock: Clock, *, single: bool) -> None:
        """`single`: never a batch."""
        self._clock = clock
        self._allowed = 1 if single else MAX_MESSAGES
        self._most = self._now = self._allowed
        self._held_until_ns = 0
        self._single_went = False
        self._doubts = 0
        self._untried = False

    def limit(self) -> int:
        """How many events the next request may hold."""
        if self._clock.boottime_ns() >= self._held_until_ns:
            self._most = self._allowed
        return min(self._now, self._most)

    def went(self, count: int) -> None:
        """So many events were sent and answered."""
        self._single_went = count == 1
        self._untried = False
        if count > 1:
            self._doubts = 0
        self._now = min(self._now + _STEP, self._allowed)

    def failed(self, count: int, *, paused: bool = False) -> None:
        """So many were sent and not answered; `paused`: the next request only probes.

        A server may take single events and fail at every batch, in a way that does not say so:
        where that happens again and again the single form is kept for a while. A bound that was
        learnt a moment ago and helped nothing is forgotten: whoever named it answers so to all.
        """
        if count and self._untried:
            self._held_until_ns, self._untried = 0, False
        if count > 1 and self._single_went:
            self._doubts += 1
            if self._doubts >= _MOST_DOUBTS:
                self.hold(1)
        self._single_went = False
        if count:
            self._now = 1 if paused else max(1, count // 2)

    def hold(self, most: int) -> None:
        """Send no more than so many at once for an hour."""
        self._most = self._now = most
        self._held_until_ns = self._clock.boottime_ns() + int(HOLD_S * NS_PER_S)
        self._doubts, self._untried = 0, True
