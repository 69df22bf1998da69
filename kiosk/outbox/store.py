"""The outbox as the other rooms see it: a queue on disk, open to every thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kiosk.clock import Clock, elapsed_s
from kiosk.errors import OutboxDamagedError, OutboxError
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.contents import Exported, Shown
from kiosk.outbox.ledger import Ledger, OutboxStatus
from kiosk.outbox.opening import Queue, open_queue
from kiosk.outbox.owner import Owner
from kiosk.outbox.rows import Recorded, SetAside
from kiosk.types import Direction, Envelope, Punch, Receipt, ReceiptStatus, Stamp
from kiosk.vault import Vault
from kiosk.wire.signing import Signer

__all__ = ["Outbox", "OutboxStatus", "status_document"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# A commit on a worn card may take seconds; beyond this the disk hangs.
_DEADLINE_S = 20.0
# A start may have to salvage years of events from a damaged file.
_START_DEADLINE_S = 900.0
# A hundred megabytes on a worn card.
BACKUP_S = 300.0
BACKUP_FILE = "outbox.backup"


class Outbox:
    """Events on disk until the server has them. Any thread may call, from start to close.

    Every method but `start` raises OutboxError when it is closed, OutboxBrokenError when the disk
    failed or does not answer: the process must then end and read the file anew.
    """

    arrived: threading.Event
    """Set when something new waits; the sender clears it."""

    def __init__(
        self,
        path: Path,
        *,
        vault: Vault,
        device_id: str,
        signer: Signer | None,
        clock: Clock,
        former_id: str = "",
    ) -> None:
        """`former_id`: the device's id on the board that its card came from, "" for none."""
        self._path = path
        self._clock = clock
        self._bodies = Bodies(vault, device_id, signer, former_id=former_id)
        self._owner = Owner("outbox", deadline_s=_DEADLINE_S)
        self._queue: Queue | None = None
        self._copying = False
        self.arrived = threading.Event()

    def start(self) -> None:
        """Open the file in the thread that will own it; once only.

        OutboxLockedError: another process has it. OutboxError: it cannot be written, is not an
        outbox of this version, or was sealed with another device id or secret. A damaged file
        is set aside, and what can be trusted of it taken over; OutboxDamagedError where nothing
        says that it ever was a queue.
        """
        self._owner.start()
        try:
            self._owner.ask(self._open, deadline_s=_START_DEADLINE_S)
        except BaseException:
            self._owner.close(self._shut, _DEADLINE_S)
            raise

    def close(self, timeout_s: float) -> None:
        """Finish what was accepted and close the file; closing again does nothing.

        OutboxBrokenError when that takes longer: what was committed is on disk all the same.
        """
        self._owner.close(self._shut, timeout_s)

    def put(self, punch: Punch) -> str:
        """Record a punch; returns its SEQ after it was committed and synced, never before.

        OutboxFullError: no space, nothing was recorded. OutboxError: this event id was recorded
        before (an id is never taken twice, also not with the same content). WireError: no server
        could read it.
        """
        draft = self._bodies.draft(punch)
        employee = punch.employee
        tag = None if employee is None else self._bodies.employee_tag(employee)

        def put(ledger: Ledger) -> str:
            return ledger.put(punch.event_id, draft, punch.seen, employee_tag=tag, kind=punch.kind)

        seq = self._owner.ask(lambda: self._with_room(put))
        self.arrived.set()
        log.info("outbox.committed", extra={"fields": {"event_id": punch.event_id, "seq": seq}})
        return seq

    def last_recorded(self, employee: str, kind: Direction | None) -> Stamp | None:
        """Return when a person was last recorded in a direction, None if never.

        By order of recording, not by the wall clock, and whatever became of the event since.
        """
        tag = self._bodies.employee_tag(employee)
        return self._ask(lambda ledger: ledger.last_recorded(tag, kind))

    def waits(self, count: int = 1) -> bool:
        """Return whether so many events are not settled; nothing is changed by asking."""
        return self._ask(lambda ledger: ledger.waits(count))

    def lease(self, limit: int, *, beyond: str | None = None) -> list[Envelope]:
        """Return the events that have waited longest, the oldest first, at most `limit`.

        A body is frozen on disk by its first lease and the same ever after, also after a restart:
        to be called when the connection stands, immediately before the first byte. The same
        events are returned until they are settled or set aside. With `beyond`, the id of an
        event, only those that were recorded after it.
        """
        return self._ask(lambda ledger: ledger.lease(limit, beyond))

    def settle(self, event_id: str, receipt: Receipt) -> None:
        """End one leased event, as `settle_all` does."""
        self.settle_all([(event_id, receipt)])

    def settle_all(self, words: Sequence[tuple[str, Receipt]]) -> None:
        """End leased events by the server's word on each, in one commit: all or none.

        `rejected` sets one aside with all it holds; any other erases it but for its id, SEQ, time
        and the SHA-256 of its body. OutboxError for an event that is not queued and leased.
        """
        statuses = [(event_id, receipt.status) for event_id, receipt in words]
        events = self._ask(lambda ledger: ledger.settle(statuses))
        for event, (_, status) in zip(events, statuses, strict=True):
            if status is ReceiptStatus.REJECTED:
                self._told_aside(event, "rejected by the server")
                continue
            fields = self._facts(event) | {"answer": status.value}
            log.info("outbox.settled", extra={"fields": fields})

    def quarantine(self, event_id: str, reason: str) -> None:
        """Set a queued event aside; all of it is kept. OutboxError if it is not queued."""
        self._told_aside(self._ask(lambda ledger: ledger.quarantine(event_id, reason)), reason)

    def in_quarantine(self, limit: int) -> list[SetAside]:
        """Return the oldest events that were set aside, at most `limit`."""
        return self._ask(lambda ledger: ledger.in_quarantine(limit))

    def waiting(self, limit: int) -> list[Recorded]:
        """Return the events that have waited longest, at most `limit`; nothing is changed."""
        return self._ask(lambda ledger: ledger.waiting(limit))

    def show(self, event_id: str) -> Shown:
        """Return all that is kept of one event; UserError if it never was recorded."""
        return self._ask(lambda ledger: ledger.show(event_id))

    def export(self, limit: int, *, beyond: int) -> list[Exported]:
        """Return the oldest events that wait or were set aside, as the messages they are sent as.

        Bodies are frozen as by a lease, so that what is exported and what is sent later are the
        same bytes; nothing else changes. `beyond`: only those after that position, 0 for all.
        """
        return self._ask(lambda ledger: ledger.export(limit, beyond))

    def retry(self, event_ids: Sequence[str] | None) -> list[str]:
        """Queue events that were set aside again, None for all; returns their ids.

        All or nothing: UserError for an id that is not in quarantine. The body, if there is one,
        is the same bytes as before.
        """
        events = self._ask(lambda ledger: ledger.retry(event_ids))
        for event in events:
            log.warning("outbox.retried", extra={"fields": self._facts(event)})
        self.arrived.set()
        return [event.event_id for event in events]

    def drop(self, event_id: str, body_sha256: bytes) -> Recorded:
        """Take out an event that was set aside: all but id, SEQ, time and hash is erased.

        Its number stays accounted for, as settled with the answer `dropped`. `body_sha256` proves
        that whoever asks has the message: UserError for another one, and for an event that is not
        in quarantine; nothing is changed then.
        """
        event = self._ask(lambda ledger: ledger.drop(event_id, body_sha256))
        fields = self._facts(event) | {"body_sha256": body_sha256.hex()}
        log.warning("outbox.dropped", extra={"fields": fields})
        return event

    def note_time(self, now: Stamp, *, rtc: bool) -> None:
        """Note the clock of this boot: what dates or bounds the events seen without one.

        `rtc`: whether the board has a clock that runs while it is off. To be called at the start,
        when the clock becomes synchronised, and every hour.
        """
        self._ask(lambda ledger: ledger.note_time(now, rtc=rtc))

    def gallery_mark(self) -> int:
        """Return the number of the newest gallery, 0 if none was noted; VaultError if changed."""
        return self._ask(Ledger.gallery_mark)

    def mark_gallery(self, number: int) -> None:
        """Note the number of the newest gallery, so that an older one is told from it."""
        self._ask(lambda ledger: ledger.mark_gallery(number))

    def status(self) -> OutboxStatus:
        """Return counts and the oldest waiting event; never looks at settled ones."""
        return self._ask(Ledger.status)

    def tend(self) -> bool:
        """Take one small step of upkeep; whether more of them should follow soon.

        Space is taken of the disk or given back to it, the share of the disk that is in use is
        looked at, and what was not checked at the start is read. To be called now and then for
        as long as the outbox is open. OutboxDamagedError: the next start sets the file aside.
        """
        return self._owner.ask(lambda: self._guarded(self._tend))

    def inspect(self) -> None:
        """Begin to read the whole queue anew, as after an unclean end; `tend` goes on with it.

        OutboxDamagedError: the next start sets the file aside.
        """
        self._owner.ask(lambda: self._guarded(lambda queue: queue.inspection.again()))

    def backup(self) -> Path:
        """Write a copy of the queue, as sealed as it is; punches are recorded meanwhile.

        It lies beside the queue, an earlier one is replaced as a whole. OutboxError: there is no
        space for it, or another one is being written; the queue goes on.
        """
        path = self._path.with_name(BACKUP_FILE)
        self._owner.ask(
            lambda: self._guarded(lambda queue: self._back_up(queue, path)), deadline_s=BACKUP_S
        )
        return path

    @property
    def inspecting(self) -> bool:
        """Whether a part of what was ever recorded is still to be read; asks no disk."""
        return self._queue is not None and self._queue.inspection.under_way

    @property
    def cannot_record(self) -> str:
        """Why no punch can be recorded for want of space, "" while they can; asks no disk."""
        return "" if self._queue is None else self._queue.room.cannot_record

    def room(self) -> dict[str, Any]:
        """Return what `status` says of the disk and of what is kept of it for punches."""
        return {} if self._queue is None else self._queue.room.document()

    def _ask(self, work: Callable[[Ledger], T]) -> T:
        return self._owner.ask(lambda: self._guarded(lambda queue: work(queue.ledger)))

    def _guarded(self, work: Callable[[Queue], T]) -> T:
        """Damage that comes to light is noted, so that the next start does not trust the file."""
        queue = self._opened()
        try:
            return work(queue)
        except OutboxDamagedError:
            queue.note_damage()
            raise

    def _with_room(self, put: Callable[[Ledger], T]) -> T:
        return self._guarded(lambda queue: queue.with_room(put))

    def _back_up(self, queue: Queue, path: Path) -> None:
        if self._copying:
            raise OutboxError("expected one backup at a time, another is being written")
        half = path.with_name(f"{path.name}.half")
        self._copying = True
        try:
            queue.room.check_for_copy()
            half.unlink(missing_ok=True)
            half.touch(0o600)
            queue.database.copy_to(half, self._owner.give_way)
            half.replace(path)
        finally:
            self._copying = False
            half.unlink(missing_ok=True)

    def _tend(self, queue: Queue) -> bool:
        queue.mark.confirm()
        return queue.room.tend() | queue.inspection.go_on()

    def _open(self) -> None:
        self._queue = open_queue(self._path, self._bodies, self._clock)

    def _opened(self) -> Queue:
        if self._queue is None:
            raise OutboxError("expected an open outbox, it never was opened")
        return self._queue

    def _shut(self) -> None:
        if self._queue is not None:
            self._queue.close()

    def _told_aside(self, event: Recorded, reason: str) -> None:
        log.error("outbox.quarantined", extra={"fields": self._facts(event) | {"reason": reason}})

    def _facts(self, event: Recorded) -> dict[str, str | int | float]:
        return {
            "event_id": event.event_id,
            "seq": event.seq,
            "attempts": event.attempts,
            "age_s": round(elapsed_s(event.seen, self._clock.now()), 1),
        }


def status_document(status: OutboxStatus) -> dict[str, Any]:
    """Return a status as the command line and the control socket print it."""
    return {
        "pending": status.pending,
        "quarantined": status.quarantined,
        "settled": status.settled,
        "oldest_ms": None if status.oldest is None else status.oldest.utc_ms,
        "epoch": status.epoch,
        "highest": status.highest,
    }
