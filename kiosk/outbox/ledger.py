"""What happens to an event, each step one transaction. Used by the owner's thread only.

queued -> settled       the server has it: id, number, time and a hash stay, the rest is erased
queued -> quarantined   the server refuses it, or it cannot be sent: everything is kept
quarantined -> queued   somebody asks for another try: the same bytes, in the old place
quarantined -> settled  somebody has taken a copy and drops it: its answer is `dropped`
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kiosk.clock import Clock
from kiosk.errors import OutboxError, UserError, VaultError, WireError
from kiosk.identity import ID_FILE
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.contents import Exported, Shown, content, keep_body, show
from kiosk.outbox.database import Database
from kiosk.outbox.mark import Mark
from kiosk.outbox.moments import Moments
from kiosk.outbox.rows import Recorded, Rows, SetAside
from kiosk.types import Direction, Envelope, ReceiptStatus, Stamp
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

    def __init__(self, database: Database, bodies: Bodies, clock: Clock, mark: Mark) -> None:
        self._database = database
        self._bodies = bodies
        self._clock = clock
        self._mark = mark

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
            if row == (ours[0], self._bodies.former_check()):
                self._move(rows, ours[1])
                return
        for name, right, came in zip((KEY_FILE, ID_FILE), row, ours, strict=True):
            if right != came:
                raise OutboxError(
                    f"{where}: expected the {name} that this queue was sealed with, got another",
                    hint=f"restore {name} from a backup, or move the queue away and begin anew",
                )

    def _move(self, rows: Rows, device_check: bytes) -> None:
        """The card came from another board: what it recorded there keeps id and numbers."""
        rows.run("UPDATE device SET device_check = ?", device_check)
        rows.begin_epoch()
        (queued,) = rows.one("SELECT sum(queued) FROM epoch")
        meaning = "what waits is sent under its id there, new events under a new id"
        fields = {"waiting": queued, "meaning": meaning}
        log.critical("outbox.moved_to_another_board", extra={"fields": fields})

    def epochs(self) -> dict[str, int]:
        """Return the highest number of every epoch by name, the newest last."""
        with self._rows() as rows:
            return rows.epochs()

    def begin_epoch(self) -> None:
        """Give numbers from 1 on under a new name, once some that were given are missing."""
        with self._rows() as rows:
            rows.begin_epoch()

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
        draft: Callable[[str], bytes],
        seen: Stamp,
        *,
        employee_tag: bytes | None,
        kind: Direction | None,
    ) -> str:
        """Record an event with its draft, sealed with its number; returns its SEQ.

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
            rows.run("INSERT INTO waiting (position, draft) VALUES (?, ?)", position, draft(seq))
            if employee_tag is not None:
                rows.remember(employee_tag, kind, position)
            # The commit's sync takes the mark to the disk as well.
            epoch, _, number = seq.partition(":")
            self._mark.begin(epoch, int(number))
        self._mark.done()
        return seq

    def last_recorded(self, employee_tag: bytes, kind: Direction | None) -> Stamp | None:
        """Return the time of a person's latest event in a direction, by order of recording."""
        with self._rows() as rows:
            seen = rows.last_punch(employee_tag, kind)
            return None if seen is None else self._moments(rows).dated(seen)

    def waits(self, count: int) -> bool:
        """Return whether at least so many events are queued; nothing is changed."""
        with self._rows() as rows:
            return rows.waits(count)

    def lease(self, limit: int, beyond: str | None) -> list[Envelope]:
        """Return the oldest queued events, bodies frozen and attempts counted on disk, all at once.

        One whose bytes do not authenticate, or make no message, is set aside with a loud word:
        it must neither be sent nor hold up all that wait behind it. `beyond`: only events that
        were recorded after that one.
        """
        while True:
            leased, unsendable = [], []
            with self._rows() as rows:
                moments = self._moments(rows)
                earlier = None if beyond is None else rows.event(beyond)
                events = rows.waiting(limit, beyond=earlier.position if earlier else 0)
                for event in events:
                    try:
                        leased.append(self._leased(rows, event, moments))
                    except (VaultError, WireError) as error:
                        reason = f"cannot be sent: {error}"
                        rows.set_aside(event, reason, self._now_ms())
                        unsendable.append((event, reason))
            for event, reason in unsendable:
                fields = {"event_id": event.event_id, "seq": event.seq, "reason": reason}
                log.error("outbox.unsendable", extra={"fields": fields})
            if leased or not events:
                return leased

    def settle(self, words: Sequence[tuple[str, ReceiptStatus]]) -> list[Recorded]:
        """End leased events by the server's word, all or none: erased, or set aside if rejected."""
        with self._rows() as rows:
            return [self._settled(rows, event_id, status) for event_id, status in words]

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

    def waiting(self, limit: int) -> list[Recorded]:
        """Return the oldest queued events; nothing is changed."""
        with self._rows() as rows:
            return rows.waiting(limit)

    def show(self, event_id: str) -> Shown:
        """Return all that is kept of one event; UserError if it never was recorded."""
        with self._rows() as rows:
            return show(rows, self._bodies, event_id)

    def export(self, limit: int, beyond: int) -> list[Exported]:
        """Freeze and return the oldest events that wait or were set aside, all at once.

        `beyond`: only events of later positions. The state of none of them changes.
        """
        with self._rows() as rows:
            moments = self._moments(rows)
            return [
                self._exported(rows, event, moments) for event in rows.held(limit, beyond=beyond)
            ]

    def _exported(self, rows: Rows, event: Recorded, moments: Moments) -> Exported:
        try:
            return Exported(event, self._frozen(rows, event, moments), None)
        except (VaultError, WireError) as error:
            return Exported(event, None, error.message)

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

    def drop(self, event_id: str, body_sha256: bytes) -> Recorded:
        """Settle an event in quarantine as dropped; UserError unless its body has this hash."""
        with self._rows() as rows:
            event = _in_quarantine(rows, event_id)
            if event.body_sha256 != body_sha256:
                known = "none yet" if event.body_sha256 is None else event.body_sha256.hex()
                raise UserError(
                    f"expected the SHA-256 of the message of {event_id}, {known}, got"
                    f" {body_sha256.hex()}",
                    hint="export it first; nothing was changed",
                )
            rows.drop(event)
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

    def _settled(self, rows: Rows, event_id: str, status: ReceiptStatus) -> Recorded:
        event = rows.queued(event_id)
        if event.body_sha256 is None:
            raise OutboxError(f"expected an event that was leased, {event_id} never was")
        if status is ReceiptStatus.REJECTED:
            rows.set_aside(event, "rejected by the server", self._now_ms(), status)
        else:
            rows.erase(event, status)
        return event

    def _leased(self, rows: Rows, event: Recorded, moments: Moments) -> Envelope:
        body = self._frozen(rows, event, moments)
        rows.run("UPDATE event SET attempts = attempts + 1 WHERE position = ?", event.position)
        return Envelope(event.seq, event.event_id, body, event.attempts + 1)

    def note_time(self, now: Stamp, *, rtc: bool) -> None:
        """Note that a boot has begun, and a moment in which its clock is synchronised."""
        with self._rows() as rows:
            self._moments(rows).note(now, rtc=rtc)

    def _moments(self, rows: Rows) -> Moments:
        return Moments(rows, self._bodies, self._clock)

    def _frozen(self, rows: Rows, event: Recorded, moments: Moments) -> bytes:
        """The body of an event that waits or was set aside; made now if there is none yet."""
        draft, sealed = content(rows, event)
        if sealed is not None:
            return self._bodies.open(event.event_id, sealed)
        # Until this moment a clock that was set right still counts.
        body, sealed, seen = self._bodies.freeze(event.event_id, draft or b"", moments.dated)
        if (seen.utc_ms, seen.trust) != (event.seen.utc_ms, event.seen.trust):
            rows.correct(event, seen)
        keep_body(rows, event, sealed, hashlib.sha256(body).digest())
        return body

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
