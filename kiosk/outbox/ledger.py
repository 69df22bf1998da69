"""What happens to an event, each step one transaction. Used by the owner's thread only.

queued -> settled       the server has it: id, number, time and a hash stay, the rest is erased
queued -> quarantined   the server refuses it, or it cannot be sent: everything is kept
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kiosk.errors import OutboxError, VaultError, WireError
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.database import Database
from kiosk.outbox.rows import Recorded, Rows
from kiosk.types import Direction, Envelope, ReceiptStatus, Stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How the queue stands.

    Counts over all epochs; `oldest` is when the event that waits longest was seen; `epoch` and
    `highest` are the epoch that gives numbers now and the last number it gave.
    """

    pending: int
    quarantined: int
    settled: int
    oldest: Stamp | None
    epoch: str
    highest: int


class Ledger:
    """The life of events in one database."""

    def __init__(self, database: Database, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies

    def put(
        self,
        event_id: str,
        draft: bytes,
        seen: Stamp,
        *,
        employee_tag: bytes | None,
        kind: Direction | None,
    ) -> str:
        """Record an event with its sealed draft; returns its SEQ.

        OutboxError if the id was recorded before, be it years ago: nothing is changed.
        """
        with self._rows() as rows:
            earlier = rows.event(event_id)
            if earlier is not None:
                raise OutboxError(
                    f"expected a new event id, {event_id} was recorded as {earlier.seq}",
                    hint="make a new id for a new punch; the earlier one stays as it is",
                )
            position, seq = rows.add(event_id, seen)
            rows.run("INSERT INTO waiting (position, draft) VALUES (?, ?)", position, draft)
            if employee_tag is not None:
                rows.remember(employee_tag, kind, position)
        return seq

    def last_recorded(self, employee_tag: bytes, kind: Direction | None) -> Stamp | None:
        """Return the time of a person's latest event in a direction, by order of recording."""
        with self._rows() as rows:
            return rows.last_punch(employee_tag, kind)

    def lease(self) -> Envelope | None:
        """Return the oldest queued event, its body frozen and the attempt counted on disk.

        One whose bytes do not authenticate, or make no message, is set aside with a loud word:
        it must neither be sent nor hold up all that wait behind it.
        """
        while True:
            with self._rows() as rows:
                event = rows.oldest()
                if event is None:
                    return None
                try:
                    return self._leased(rows, event)
                except (VaultError, WireError) as error:
                    reason = f"cannot be sent: {error}"
                    rows.set_aside(event, reason)
            fields = {"event_id": event.event_id, "seq": event.seq, "reason": reason}
            log.error("outbox.unsendable", extra={"fields": fields})

    def settle(self, event_id: str, status: ReceiptStatus) -> Recorded:
        """End a leased event by the server's word: erase it, or set it aside if rejected."""
        with self._rows() as rows:
            event = rows.queued(event_id)
            if event.body_sha256 is None:
                raise OutboxError(f"expected an event that was leased, {event_id} never was")
            if status is ReceiptStatus.REJECTED:
                rows.set_aside(event, "rejected by the server", status)
            else:
                rows.erase(event, status)
        return event

    def quarantine(self, event_id: str, reason: str) -> Recorded:
        """Set a queued event aside."""
        with self._rows() as rows:
            event = rows.queued(event_id)
            rows.set_aside(event, reason)
        return event

    def status(self) -> OutboxStatus:
        """Return the counts, in the same time however many events were settled."""
        with self._rows() as rows:
            queued, quarantined, settled = rows.one(
                "SELECT sum(queued), sum(quarantined), sum(settled) FROM epoch"
            )
            name, highest = rows.one("SELECT name, highest FROM epoch ORDER BY id DESC LIMIT 1")
            oldest = rows.oldest()
        seen = None if oldest is None else oldest.seen
        return OutboxStatus(queued, quarantined, settled, seen, name, highest)

    def _leased(self, rows: Rows, event: Recorded) -> Envelope:
        draft, sealed = rows.one(
            "SELECT draft, body FROM waiting WHERE position = ?", event.position
        )
        if sealed is None:
            body, sealed = self._bodies.freeze(event.event_id, draft, event.seen, event.seq)
            # The draft has become the body: one copy of a face is enough.
            rows.run(
                "UPDATE waiting SET draft = NULL, body = ? WHERE position = ?",
                *(sealed, event.position),
            )
        else:
            body = self._bodies.open(event.event_id, sealed)
        rows.run(
            "UPDATE event SET attempts = attempts + 1, body_sha256 = ? WHERE position = ?",
            *(hashlib.sha256(body).digest(), event.position),
        )
        return Envelope(event.seq, event.event_id, body, event.attempts + 1)

    @contextmanager
    def _rows(self) -> Iterator[Rows]:
        with self._database.transaction() as connection:
            yield Rows(connection)
