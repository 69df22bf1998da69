"""What happens to an event, each step one transaction. Used by the owner's thread only.

queued -> settled       the server has it: id, number, time and a hash stay, the rest is erased
queued -> quarantined   the server refuses it, or it cannot be sent: everything is kept
quarantined -> queued   somebody asks for another try: the same bytes, in the old place
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kiosk.clock import Clock
from kiosk.errors import OutboxError, UserError, VaultError, WireError
from kiosk.identity import ID_FILE
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.database import Database
from kiosk.outbox.hindsight import GoodTime, in_hindsight
from kiosk.outbox.rows import Recorded, Rows, SetAside
from kiosk.types import Direction, Envelope, ReceiptStatus, Stamp, Trust
from kiosk.vault import KEY_FILE

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

    def __init__(self, database: Database, bodies: Bodies, clock: Clock) -> None:
        self._database = database
        self._bodies = bodies
        self._clock = clock

    def bind(self, where: Path) -> None:
        """Make the queue this device's, once; OutboxError if it is another one's.

        Sent under another id its events would be another kiosk's, and under another secret not
        one of them opens: each would be set aside instead of sent.
        """
        ours = (self._bodies.secret_check(), self._bodies.device_check())
        with self._rows() as rows:
            row = rows.first("SELECT secret_check, device_check FROM device")
            if row is None:
                rows.run(
                    "INSERT INTO device (id, secret_check, device_check) VALUES (1, ?, ?)", *ours
                )
                return
        for name, right, came in zip((KEY_FILE, ID_FILE), row, ours, strict=True):
            if right != came:
                raise OutboxError(
                    f"{where}: expected the {name} that this queue was sealed with, got another",
                    hint=f"restore {name} from a backup, or move the queue away and begin anew",
                )

    def gallery_mark(self) -> int:
        """Return the number of the newest gallery, 0 if none was noted; VaultError if changed."""
        with self._rows() as rows:
            (sealed,) = rows.one("SELECT gallery_mark FROM device")
        return 0 if sealed is None else self._bodies.open_mark(sealed)

    def mark_gallery(self, number: int) -> None:
        """Note the number of the newest gallery."""
        with self._rows() as rows:
            rows.run("UPDATE device SET gallery_mark = ?", self._bodies.seal_mark(number))

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
            seen = rows.last_punch(employee_tag, kind)
            return None if seen is None else self._in_hindsight(rows, seen)

    def waits(self) -> bool:
        """Return whether anything is queued; nothing is changed."""
        with self._rows() as rows:
            return rows.waits()

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
                    rows.set_aside(event, reason, self._now_ms())
            fields = {"event_id": event.event_id, "seq": event.seq, "reason": reason}
            log.error("outbox.unsendable", extra={"fields": fields})

    def settle(self, event_id: str, status: ReceiptStatus) -> Recorded:
        """End a leased event by the server's word: erase it, or set it aside if rejected."""
        with self._rows() as rows:
            event = rows.queued(event_id)
            if event.body_sha256 is None:
                raise OutboxError(f"expected an event that was leased, {event_id} never was")
            if status is ReceiptStatus.REJECTED:
                rows.set_aside(event, "rejected by the server", self._now_ms(), status)
            else:
                rows.erase(event, status)
        return event

    def quarantine(self, event_id: str, reason: str) -> Recorded:
        """Set a queued event aside."""
        with self._rows() as rows:
            event = rows.queued(event_id)
            rows.set_aside(event, reason, self._now_ms())
        return event

    def in_quarantine(self, limit: int) -> list[SetAside]:
        """Return the oldest events in quarantine."""
        with self._rows() as rows:
            return rows.in_quarantine(limit)

    def retry(self, event_ids: Sequence[str] | None) -> list[Recorded]:
        """Queue these events again, None for all; UserError, and nothing done, for a wrong id."""
        with self._rows() as rows:
            if event_ids is None:
                events = [aside.event for aside in rows.in_quarantine(-1)]
            else:
                events = [_in_quarantine(rows, name) for name in dict.fromkeys(event_ids)]
            for event in events:
                rows.take_back(event)
        return events

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
            # Until this moment a clock that was set right still counts.
            seen = self._in_hindsight(rows, event.seen)
            body, sealed = self._bodies.freeze(event.event_id, draft, seen, event.seq)
            if seen is not event.seen:
                rows.correct(event, seen)
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

    def note_time(self, now: Stamp, *, rtc: bool) -> None:
        """Note that a boot has begun, and a moment in which its clock is synchronised."""
        with self._rows() as rows:
            rows.begin_boot(now.boot_id)
            rows.note_rtc(now.boot_id, rtc)
            if now.trust is Trust.SYNCED:
                rows.note_good_time(now)
                if not rows.undated():
                    rows.keep_last_good_time()

    def _in_hindsight(self, rows: Rows, seen: Stamp) -> Stamp:
        if seen.trust is not Trust.UNSYNCED:
            return seen
        good, now = rows.good_times(), self._clock.now()
        if now.trust is Trust.SYNCED:
            # It dates what was seen in this boot, and bounds what was seen before it.
            good.append(GoodTime(rows.boot(now.boot_id), now.boottime_ns, now.utc_ms))
        return in_hindsight(seen, rows.boot(seen.boot_id), good)

    def _now_ms(self) -> int:
        return self._clock.now().utc_ms

    @contextmanager
    def _rows(self) -> Iterator[Rows]:
        with self._database.transaction() as connection:
            yield Rows(connection)


def _in_quarantine(rows: Rows, event_id: str) -> Recorded:
    event = rows.event(event_id)
    if event is None or event.state != "quarantined":
        state = "never was recorded" if event is None else f"is {event.state}"
        raise UserError(
            f"expected an event that was set aside, {event_id} {state}",
            hint="`kiosk outbox quarantine` lists them; nothing was changed",
        )
    return event
