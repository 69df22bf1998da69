"""The loop that empties the queue: post, read the receipt, settle; on a failure, wait."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from kiosk.clock import Clock
from kiosk.config import Server
from kiosk.errors import (
    BareRefusalError,
    KioskError,
    LinkDownError,
    OutboxFullError,
    ReceiptError,
    UplinkPausedError,
)
from kiosk.types import Envelope, Receipt, ReceiptStatus, Stamp
from kiosk.uplink.answer import Answer, Reply
from kiosk.uplink.backoff import delay_s
from kiosk.uplink.pace import Pace
from kiosk.uplink.patience import Patience
from kiosk.uplink.suspicion import Next, Suspicion
from kiosk.uplink.trouble import Trouble

log = logging.getLogger(__name__)

# An empty queue is looked at anew so often, also for a `stop` set by someone who sets no `arrived`.
_IDLE_S = 1.0
# While the first body waits for the clock, the connection is looked at so often.
_CLOCK_S = 2.0
_SLACK_S = 60.0


class Queue(Protocol):
    """What the sender asks of the outbox."""

    arrived: threading.Event

    def waits(self, count: int = 1) -> bool:
        """Return whether so many events are not settled."""
        ...

    def lease(self, limit: int, *, beyond: str | None = None) -> Sequence[Envelope]:
        """Freeze and return the oldest events that are not settled, in order."""
        ...

    def settle_all(self, words: Sequence[tuple[str, Receipt]]) -> None:
        """End events by the server's word on each."""
        ...

    def quarantine(self, event_id: str, reason: str) -> None:
        """Set an event aside; nothing of it is lost."""
        ...


class Post(Protocol):
    """What the sender asks of the network."""

    def post(self, letter: Callable[[], Sequence[Envelope]], *, is_batch: bool) -> Reply | None:
        """Connect, then ask for the letter, then send it; returns what came back.

        None when there was no letter, and nothing was sent; an UplinkError for a failure.
        """
        ...


class Sender:
    """Sends oldest first, one request in flight; attempts and age have no limit.

    What is behind goes in batches, as large as the server takes them. `read_receipt` finds the
    receipt in an answer, or raises ReceiptError or UplinkPausedError; `on_settled` is told after
    the queue was. `clock_is_kept`: a time service is at work, and worth a wait before the first
    body is frozen. `beat` hears before each step what it is, and how long it takes at most.
    """

    online: bool | None
    """Whether the last attempt got the server's word on its events; None before the first."""
    problem: str
    """Why not, "" while it answers."""
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
        clock_is_kept: bool,
        beat: Callable[[str, float], None],
    ) -> None:
        self._queue = queue
        self._post = post
        self._read_receipt = read_receipt
        self._clock = clock
        self._rng = rng
        self._server = server
        self._on_settled = on_settled
        self._trouble = Trouble(clock)
        # A 2xx for a batch that names no event is no word on a hundred of them.
        self._pace = Pace(clock, single=server.accept_plain_receipts)
        self._suspicion = Suspicion()
        self._patience = Patience(clock, kept=clock_is_kept)
        self._leased: Sequence[Envelope] = ()
        self._asked_s = 0.0
        self._beat = beat
        # A name that cannot be looked up, beside the post's own deadline.
        self._send_s = server.connect_timeout_s + server.read_timeout_s + _SLACK_S
        self.online = None
        self.problem = ""
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
            self._asked_s = 0.0
            self._beat("sends", self._send_s)
            try:
                wait_s = self._step(stop)
            except OutboxFullError as error:
                # Space may come back. What could not be settled is sent again, and the server
                # knows its id.
                wait_s = self._failed(error, logging.ERROR)
            # Whatever came of it: what the server asked for is waited for.
            wait_s = max(wait_s, self._asked_s)
            if wait_s > 0:
                self._beat("waits for its next attempt", wait_s + _SLACK_S)
                self._clock.wait(stop, wait_s)

    def _step(self, stop: threading.Event) -> float:
        """Send the oldest events, if any; returns the seconds to wait before the next step."""
        if not self._queue.waits():
            self._clock.wait(self._queue.arrived, _IDLE_S)
            return 0.0
        self._leased = ()
        try:
            return self._delivered(self._send())
        except BareRefusalError as error:
            return self._refused(error)
        except (LinkDownError, ReceiptError, UplinkPausedError) as error:
            # Cut off by the stop itself: that says nothing about the link.
            return 0.0 if stop.is_set() else self._unanswered(error)

    def _delivered(self, reply: Reply | None) -> float:
        """Take what came back; ReceiptError or UplinkPausedError where it is no answer."""
        if reply is None:
            self._suspicion.end()
            return self._asked_s
        self._asked_s = reply.min_delay_s
        if reply.has_no_batch or reply.is_too_large or reply.is_refused_batch:
            return self._smaller(reply)
        words, doubtful = self._words(reply)
        self._settle(reply, words)
        if doubtful is not None:
            raise doubtful
        self._trouble.over()
        self._pace.went(len(words))
        self._suspicion.answered()
        return max(receipt.min_delay_s for _, receipt in words)

    def _send(self) -> Reply | None:
        """One request; what it leases is frozen only when it can be sent.

        Until then a clock that is set right, or a key that is set, still changes it.
        """
        alone = self._suspicion.active or not self._queue.waits(2)
        limit = 1 if alone else self._pace.limit()

        def letter() -> Sequence[Envelope]:
            if self._patience.holds():
                self._asked_s = _CLOCK_S
                return ()
            self._leased = self._queue.lease(limit, beyond=self._suspicion.beyond)
            return self._leased

        return self._post.post(letter, is_batch=limit > 1)

    def _words(self, reply: Reply) -> tuple[list[tuple[Envelope, Receipt]], ReceiptError | None]:
        """The server's word on each event, and what was wrong with the first that has none.

        ReceiptError when there is not one word.
        """
        words: list[tuple[Envelope, Receipt]] = []
        doubtful: ReceiptError | None = None
        for answer in reply.answers():
            try:
                words.append((answer.envelope, self._read_receipt(answer)))
            except ReceiptError as error:
                doubtful = doubtful or error
        if doubtful is not None and not words:
            raise doubtful
        return words, doubtful

    def _settle(self, reply: Reply, words: Sequence[tuple[Envelope, Receipt]]) -> None:
        self.online = True
        self.problem = ""
        self.last_receipt = self._clock.now()
        if 200 <= reply.status < 300:
            self._queue.settle_all([(envelope.event_id, word) for envelope, word in words])
        else:
            for envelope, _ in words:
                reason = f"refused by the server with status {reply.status}"
                self._queue.quarantine(envelope.event_id, reason)
        for envelope, receipt in words:
            self._tell(envelope, receipt)

    def _tell(self, envelope: Envelope, receipt: Receipt) -> None:
        if receipt.status is ReceiptStatus.REJECTED:
            fields = {"event_id": envelope.event_id, "seq": envelope.seq}
            log.error("uplink.rejected", extra={"fields": fields})
        self._on_settled(envelope, receipt)

    def _smaller(self, reply: Reply) -> float:
        """A batch was refused as such: the same events again, fewer at once, without a wait."""
        count = len(reply.envelopes)
        if reply.is_refused_batch:
            self._pace.failed(count)
        else:
            self._pace.hold(1 if reply.has_no_batch else max(1, count // 2))
        fields = {"status": reply.status, "events": count, "next": self._pace.limit()}
        log.warning("uplink.batch_refused", extra={"fields": fields})
        return 0.0

    def _refused(self, error: BareRefusalError) -> float:
        """One event, without a signature, was refused by a status alone: is it this event?"""
        (envelope,) = self._leased
        verdict = self._suspicion.refused(envelope, others_wait=self._queue.waits(2))
        if verdict is Next.PAUSE:
            return self._unanswered(error)
        if verdict is Next.SET_ASIDE:
            reason = f"{error.message}, twice, and took another event in between"
            self._queue.quarantine(envelope.event_id, reason)
            self._tell(envelope, Receipt(ReceiptStatus.REJECTED, 0.0))
        return 0.0

    def _unanswered(self, error: LinkDownError | ReceiptError | UplinkPausedError) -> float:
        self.online, self.problem = False, str(error)
        self._suspicion.end()
        is_pause = isinstance(error, UplinkPausedError)
        self._pace.failed(len(self._leased), paused=is_pause)
        if not isinstance(error, ReceiptError):
            self._asked_s = max(self._asked_s, error.min_delay_s)
        if is_pause:
            # Somebody has to mend it: asked now and then, not as after a lost packet.
            self._trouble.add(error, logging.ERROR)
            return self._server.backoff_cap_s
        return self._failed(error, logging.WARNING)

    def _failed(self, error: KioskError, level: int) -> float:
        attempt = self._trouble.failures
        self._trouble.add(error, level)
        return delay_s(
            attempt,
            base_s=self._server.backoff_base_s,
            cap_s=self._server.backoff_cap_s,
            min_delay_s=self._asked_s,
            rng=self._rng,
        )
