"""Whether a bare 400 or 422 means one event: its server must take another one in between.

A status without a receipt can be anybody's: a proxy or a captive portal answers so to whatever is
sent. Only of a message without a signature it may count nevertheless, and only if the very server
gave its receipt for the event after it, and then refused this one again.
"""

from __future__ import annotations

from enum import Enum

from kiosk.types import Envelope


class Next(Enum):
    """What follows from a refusal."""

    ASK_ON = "send the other one of the two now"
    PAUSE = "nothing proves that this event is meant"
    SET_ASIDE = "this event is meant"


class Suspicion:
    """The event that was refused, while it is being found out whether only that one is."""

    def __init__(self) -> None:
        self._suspect: str | None = None
        self._others_go = False

    @property
    def active(self) -> bool:
        """Whether the next request is one of the three that find out."""
        return self._suspect is not None

    @property
    def beyond(self) -> str | None:
        """The event after which the witness is to be taken, None when the oldest is to be sent."""
        return None if self._others_go else self._suspect

    def refused(self, envelope: Envelope, *, others_wait: bool) -> Next:
        """An event was refused by nothing but a status."""
        if self._suspect is None and others_wait:
            self._suspect = envelope.event_id
            return Next.ASK_ON
        is_meant = self._others_go and envelope.event_id == self._suspect
        self.end()
        return Next.SET_ASIDE if is_meant else Next.PAUSE

    def answered(self) -> None:
        """The server gave its word: on the witness, or on the suspect after all."""
        if self._suspect is not None and not self._others_go:
            self._others_go = True
        else:
            self.end()

    def end(self) -> None:
        """Something else came in between: nothing is suspected any more."""
        self._suspect, self._others_go = None, False
