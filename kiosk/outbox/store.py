"""put, lease, settle, quarantine: the life of an event on disk.

queued -> settled      the server has it; body and draft are erased, ids, time and a hash stay
queued -> quarantined  the server refused it; everything stays
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiosk.clock import Clock
from kiosk.errors import OutboxError
from kiosk.outbox.database import Database
from kiosk.outbox.owner import Owner
from kiosk.types import Direction, Envelope, Punch, Receipt, ReceiptStatus, Stamp, Trust
from kiosk.vault import Vault
from kiosk.wire import message
from kiosk.wire.signing import Signer

_STAMP = "utc_ms, boottime_ns, boot_id, trust"


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """Counts of the queue; `oldest` is when the oldest waiting event was seen."""

    pending: int
    quarantined: int
    settled: int
    oldest: Stamp | None
    epoch: str
    highest: int


def status_document(status: OutboxStatus) -> dict[str, Any]:
    """The JSON form of a status."""
    return {
        "pending": status.pending,
        "quarantined": status.quarantined,
        "settled": status.settled,
        "oldest_ms": None if status.oldest is None else status.oldest.utc_ms,
        "epoch": status.epoch,
        "highest": status.highest,
    }


class Outbox:
    """The queue on disk. Every method may be called from any thread between start and close."""

    def __init__(
        self,
        path: Path,
        *,
        vault: Vault,
        device_id: str,
        signer: Signer | None,
        clock: Clock,
    ) -> None:
        self._path, self._vault, self._device = path, vault, device_id
        self._signer, self._clock = signer, clock
        self._owner = Owner("outbox")
        self._database = Database(path)
        row = self._database.row("SELECT epoch FROM identity")
        if row is None:
            raise OutboxError(f"{path}: an epoch expected, none found", hint="move the file away")
        self._epoch: str = row[0]
        self.arrived = threading.Event()

    def start(self) -> None:
        """Begin to take work."""
        self._owner.start()

    def close(self, timeout_s: float) -> None:
        """Finish what was handed in and close the file."""
        self._owner.close(timeout_s)
        self._database.close()

    def put(self, punch: Punch) -> str:
        """Commit a punch; returns its SEQ once it is on disk, and never before.

        OutboxFullError: rolled back, nothing recorded. OutboxBrokenError: uncertain, restart.
        OutboxError: this event id is already here.
        """
        draft = message.draft(punch)
        tag = None if punch.employee is None else self._vault.tag(punch.employee, "employee")
        seq = self._owner.ask(lambda: self._put(punch, draft, tag))
        self.arrived.set()
        return seq

    def last_recorded(self, employee: str, kind: Direction | None) -> Stamp | None:
        """When this person was last recorded in this direction, None if never."""
        tag = self._vault.tag(employee, "employee")
        return self._owner.ask(lambda: self._last(tag, kind))

    def lease(self) -> Envelope | None:
        """The oldest waiting event with its body frozen on disk, None when nothing waits."""
        return self._owner.ask(self._lease)

    def settle(self, event_id: str, receipt: Receipt) -> None:
        """End an event by the server's word; `rejected` sets it aside with everything it holds."""
        if receipt.status is ReceiptStatus.REJECTED:
            self.quarantine(event_id, "rejected by the server")
            return
        self._owner.ask(lambda: self._settle(event_id, receipt.status))

    def quarantine(self, event_id: str, reason: str) -> None:
        """Set a waiting event aside; nothing of it is lost."""
        self._owner.ask(lambda: self._quarantine(event_id, reason))

    def status(self) -> OutboxStatus:
        """Counts, without a look at settled rows."""
        return self._owner.ask(self._status)

    def _put(self, punch: Punch, draft: bytes, tag: bytes | None) -> str:
        database, seen = self._database, punch.seen
        if database.row("SELECT 1 FROM event WHERE event_id = ?", punch.event_id):
            raise OutboxError(f"a new event id expected, {punch.event_id} is already here")
        kind = None if punch.kind is None else punch.kind.value
        sealed = self._vault.seal(draft, self._context("draft", punch.event_id))
        stamp = (seen.utc_ms, seen.boottime_ns, seen.boot_id, seen.trust.value)
        with database.transaction():
            database.change("UPDATE counter SET value = value + 1 WHERE name = 'number'")
            row = database.row("SELECT value FROM counter WHERE name = 'number'")
            number = row[0] if row else 0
            database.change(
                f"INSERT INTO event (number, epoch, event_id, employee_tag, kind, {_STAMP}, state,"  # noqa: S608
                " draft) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)",
                *(number, self._epoch, punch.event_id, tag, kind, *stamp, sealed),
            )
            self._count("queued", +1)
        return f"{self._epoch}:{number}"

    def _last(self, tag: bytes, kind: Direction | None) -> Stamp | None:
        row = self._database.row(
            f"SELECT {_STAMP} FROM event WHERE employee_tag = ? AND kind IS ?"  # noqa: S608
            " ORDER BY number DESC LIMIT 1",
            *(tag, None if kind is None else kind.value),
        )
        return None if row is None else _stamp(row)

    def _lease(self) -> Envelope | None:
        row = self._database.row(
            f"SELECT number, epoch, event_id, attempts, draft, body, {_STAMP} FROM event"  # noqa: S608
            " WHERE state = 'queued' ORDER BY number LIMIT 1"
        )
        if row is None:
            return None
        number, epoch, event_id, attempts, draft, sealed = row[:6]
        seq = f"{epoch}:{number}"
        context = self._context("body", event_id)
        if sealed is not None:
            body = self._vault.unseal(sealed, context)
        else:
            # Frozen on disk before its first byte may reach a server; the same ever after.
            body = message.freeze(
                self._vault.unseal(draft, self._context("draft", event_id)),
                seen=_stamp(row[6:]),
                seq=seq,
                device_id=self._device,
                signer=self._signer,
            )
            sealed = self._vault.seal(body, context)
        with self._database.transaction():
            self._database.change(
                "UPDATE event SET body = ?, attempts = attempts + 1 WHERE number = ?",
                *(sealed, number),
            )
        return Envelope(seq, event_id, body, attempts + 1)

    def _settle(self, event_id: str, status: ReceiptStatus) -> None:
        sealed = self._waiting(event_id)
        body = self._vault.unseal(sealed, self._context("body", event_id))
        with self._database.transaction():
            self._database.change(
                "UPDATE event SET state = 'settled', draft = NULL, body = NULL, body_sha256 = ?,"
                " answer = ? WHERE event_id = ?",
                *(hashlib.sha256(body).digest(), status.value, event_id),
            )
            self._count("queued", -1)
            self._count("settled", +1)

    def _quarantine(self, event_id: str, reason: str) -> None:
        self._waiting(event_id)
        with self._database.transaction():
            self._database.change(
                "UPDATE event SET state = 'quarantined', answer = ? WHERE event_id = ?",
                *(reason, event_id),
            )
            self._count("queued", -1)
            self._count("quarantined", +1)

    def _waiting(self, event_id: str) -> bytes:
        """The sealed body of an event that was leased; OutboxError when it is not waiting."""
        row = self._database.row(
            "SELECT body FROM event WHERE event_id = ? AND state = 'queued'", event_id
        )
        if row is None or row[0] is None:
            raise OutboxError(f"a waiting, leased event expected, {event_id} is none")
        sealed: bytes = row[0]
        return sealed

    def _status(self) -> OutboxStatus:
        counts = {
            name: self._counter(name) for name in ("queued", "quarantined", "settled", "number")
        }
        row = self._database.row(
            f"SELECT {_STAMP} FROM event WHERE state = 'queued' ORDER BY number LIMIT 1"  # noqa: S608
        )
        return OutboxStatus(
            pending=counts["queued"],
            quarantined=counts["quarantined"],
            settled=counts["settled"],
            oldest=None if row is None else _stamp(row),
            epoch=self._epoch,
            highest=counts["number"],
        )

    def _counter(self, name: str) -> int:
        row = self._database.row("SELECT value FROM counter WHERE name = ?", name)
        return 0 if row is None else int(row[0])

    def _count(self, name: str, step: int) -> None:
        self._database.change("UPDATE counter SET value = value + ? WHERE name = ?", step, name)

    def _context(self, part: str, event_id: str) -> str:
        """What a sealed blob is bound to, so that rows cannot be swapped."""
        return f"{self._device}/outbox/{part}/{event_id}"


def _stamp(row: tuple[Any, ...]) -> Stamp:
    utc_ms, boottime_ns, boot_id, trust = row
    return Stamp(utc_ms, boottime_ns, boot_id, Trust(trust))
