"""The loop that empties the queue: post, read the receipt, settle; on a failure, wait."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol

from kiosk.clock import Clock
from kiosk.config import Server
from kiosk.errors import (
    KioskError,
    LinkDownError,
    OutboxFullError,
    ReceiptError,
    UplinkPausedError,
)
from kiosk.types import Envelope, Receipt, ReceiptStatus, Stamp
from kiosk.uplink.answer import Answer
from kiosk.uplink.backoff import delay_s
from kiosk.uplink.trouble import Trouble

log = logging.getLogger(__name__)

# An empty queue is looked at anew so often, also for a `stop` set by someone who sets no `arrived`.
_IDLE_S = 1.0


class Queue(Protocol):
    """What the sender asks of the outbox."""

    arrived: threading.Event

    def waits(self) -> bool:
        """Return whether any event is not settled."""
        ...

    def lease(self) -> Envelope | None:
        """Freeze and return the oldest event that is not settled, None when nothing waits."""
        ...

    def settle(self, event_id: str, receipt: Receipt) -> None:
        """End an event by the server's word."""
        ...

    def quarantine(self, event_id: str, reason: str) -> None:
        """Set an event aside; nothing of it is lost."""
        ...


class Post(Protocol):
    """What the sender asks of the network."""

    def post(self, letter: Callable[[], Envelope | None]) -> Answer | None:
        """Connect, then ask for the letter, then send it; returns what came back.

        None when there was no letter, and nothing was sent; an UplinkError for a failure.
        """
        ...


class Sender:
    """Sends oldest first, one request in flight; attempts and age have no limit.

    `read_receipt` finds the receipt in an answer, or raises ReceiptError or UplinkPausedError;
    `on_settled` is told after the queue was.
    """

    online: bool | None
    """Whether the last attempt got the server's word on its event; None before the first."""
    last_receipt: Stamp | None
    """When the last receipt came."""

    def __init__(
        self,
        queue: Queue,
        post: Post,
        read_receipt: Callable[[Answer], Receipt],
        *,
        clock: Clock,
        rng: random.Random,
        server: Server,
        on_settled: Callable[[Envelope, Receipt], None],
    ) -> None:
        self._queue = queue
        self._post = post
        self._read_receipt = read_receipt
        self._clock = clock
        self._rng = rng
        self._server = server
        self._on_settled = on_settled
        self._trouble = Trouble(clock)
        self.online = None
        self.last_receipt = None

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set; OutboxBrokenError and what `on_settled` raises end it too.

        Whoever sets `stop` ends every wait but two at once: the post under way (abort it) and the
        wait of an empty queue (set its `arrived`; it also ends by itself within a second). A new
        punch does not shorten the wait after a failure.
        """
        while not stop.is_set():
            # Cleared before the look: what arrives after it sets it again.
            self._queue.arrived.clear()
            try:
                wait_s = self._step(stop)
            except OutboxFullError as error:
                # Space may come back. What could not be settled is sent again, and the server
                # knows its id.
                wait_s = self._failed(error, logging.ERROR)
            if wait_s > 0:
                self._clock.wait(stop, wait_s)

    def _step(self, stop: threading.Event) -> float:
        """Send the oldest event, if any; returns the seconds to wait before the next step."""
        if not self._queue.waits():
            self._clock.wait(self._queue.arrived, _IDLE_S)
            return 0.0
        try:
            # The body is made and frozen only when it can be sent: until then a clock that is set
            # right, or a key that is set, still changes it.
            answer = self._post.post(self._queue.lease)
            if answer is None:
                return 0.0
            receipt = self._read_receipt(answer)
        except (LinkDownError, ReceiptError, UplinkPausedError) as error:
            # Cut off by the stop itself: that says nothing about the link.
            return 0.0 if stop.is_set() else self._unanswered(error)
        self.online = True
        self._settle(answer, receipt)
        self._trouble.over()
        return receipt.min_delay_s

    def _settle(self, answer: Answer, receipt: Receipt) -> None:
        envelope = answer.envelope
        self.last_receipt = self._clock.now()
        if answer.refused:
            reason = f"refused by the server with status {answer.status}"
            self._queue.quarantine(envelope.event_id, reason)
        else:
            self._queue.settle(envelope.event_id, receipt)
        if receipt.status is ReceiptStatus.REJECTED:
            fields = {"event_id": envelope.event_id, "seq": envelope.seq}
            log.error("uplink.rejected", extra={"fields": fields})
        self._on_settled(envelope, receipt)

    def _unanswered(self, error: LinkDownError | ReceiptError | UplinkPausedError) -> float:
        self.online = False
        if isinstance(error, UplinkPausedError):
            # Somebody has to mend it: asked now and then, not as after a lost packet.
            self._trouble.add(error, logging.ERROR)
            return self._server.backoff_cap_s
        asked_s = error.min_delay_s if isinstance(error, LinkDownError) else 0.0
        return self._failed(error, logging.WARNING, asked_s)

    def _failed(self, error: KioskError, level: int, asked_s: float = 0.0) -> float:
        attempt = self._trouble.failures
        self._trouble.add(error, level)
        return delay_s(
            attempt,
            base_s=self._server.backoff_base_s,
            cap_s=self._server.backoff_cap_s,
            min_delay_s=asked_s,
            rng=self._rng,
        )
