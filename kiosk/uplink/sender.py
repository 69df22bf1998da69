"""The sender's loop: lease, post, read the receipt, settle, wait."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Protocol

from kiosk.clock import NS_PER_S, Clock
from kiosk.config import Server
from kiosk.errors import EventRefusedError, LinkDownError, ReceiptError, UplinkPausedError
from kiosk.types import Envelope, Receipt, ReceiptStatus, Stamp
from kiosk.uplink.backoff import delay_s

log = logging.getLogger(__name__)

# With nothing to send the sender sleeps until something arrives, or this long.
_IDLE_S = 5.0


class Queue(Protocol):
    """What the sender asks of the outbox."""

    arrived: threading.Event

    def lease(self) -> Envelope | None:
        """The oldest waiting event, None when nothing waits."""
        ...

    def settle(self, event_id: str, receipt: Receipt) -> None:
        """End an event by the server's word."""
        ...

    def quarantine(self, event_id: str, reason: str) -> None:
        """Set an event aside."""
        ...


class Post(Protocol):
    """What the sender asks of the network."""

    def post(self, envelope: Envelope) -> bytes:
        """The body of a 2xx reply, or an UplinkError."""
        ...


class Sender:
    """Sends oldest first, one request in flight, without a limit of attempts or age."""

    def __init__(
        self,
        queue: Queue,
        post: Post,
        read_receipt: Callable[[Envelope, bytes], Receipt],
        *,
        clock: Clock,
        rng: random.Random,
        server: Server,
        on_settled: Callable[[Envelope, Receipt], None],
    ) -> None:
        self._queue, self._post, self._read_receipt = queue, post, read_receipt
        self._clock, self._rng, self._server = clock, rng, server
        self._on_settled = on_settled
        self._failures = 0
        self._failing_since_ns = 0
        self._last_reason = ""
        self.online: bool | None = None
        self.last_receipt: Stamp | None = None

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set. Whoever sets it sets the queue's `arrived` too."""
        while not stop.is_set():
            self._queue.arrived.clear()
            envelope = self._queue.lease()
            if envelope is None:
                self._clock.wait(self._queue.arrived, _IDLE_S)
                continue
            self._clock.wait(stop, self._send(envelope, stop))

    def _send(self, envelope: Envelope, stop: threading.Event) -> float:
        """One attempt; returns how many seconds to wait before the next."""
        try:
            receipt = self._read_receipt(envelope, self._post.post(envelope))
        except (LinkDownError, ReceiptError) as error:
            if stop.is_set():
                return 0.0
            return self._failed(envelope, str(error), getattr(error, "min_delay_s", 0.0))
        except UplinkPausedError as error:
            self._failed(envelope, str(error), 0.0)
            return self._server.backoff_cap_s
        except EventRefusedError as error:
            self._recovered()
            self._queue.quarantine(envelope.event_id, str(error))
            log.error(  # noqa: TRY400 - the server's word, not a fault of ours
                "uplink.event_refused",
                extra={"fields": {"event_id": envelope.event_id, "reason": str(error)}},
            )
            return 0.0
        self._recovered()
        self._settle(envelope, receipt)
        return receipt.min_delay_s

    def _settle(self, envelope: Envelope, receipt: Receipt) -> None:
        self._queue.settle(envelope.event_id, receipt)
        self.last_receipt = self._clock.now()
        rejected = receipt.status is ReceiptStatus.REJECTED
        log.log(
            logging.ERROR if rejected else logging.INFO,
            "uplink.rejected" if rejected else "uplink.settled",
            extra={
                "fields": {
                    "event_id": envelope.event_id,
                    "seq": envelope.seq,
                    "answer": receipt.status.value,
                    "attempts": envelope.attempts,
                }
            },
        )
        self._on_settled(envelope, receipt)

    def _failed(self, envelope: Envelope, reason: str, min_delay_s: float) -> float:
        self.online = False
        self._failures += 1
        if self._failures == 1:
            self._failing_since_ns = self._clock.boottime_ns()
        wait_s = delay_s(
            self._failures,
            base_s=self._server.backoff_base_s,
            cap_s=self._server.backoff_cap_s,
            min_delay_s=min_delay_s,
            rng=self._rng,
        )
        # A repeated failure is counted, not repeated.
        if reason != self._last_reason:
            self._last_reason = reason
            fields = {"event_id": envelope.event_id, "reason": reason, "failures": self._failures}
            log.warning("uplink.failed", extra={"fields": fields})
        return wait_s

    def _recovered(self) -> None:
        self.online = True
        if self._failures:
            lasted = (self._clock.boottime_ns() - self._failing_since_ns) / NS_PER_S
            fields = {"failures": self._failures, "lasted_s": round(lasted, 1)}
            log.info("uplink.recovered", extra={"fields": fields})
        self._failures, self._last_reason = 0, ""
