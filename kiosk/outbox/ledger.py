"""What happens to an event, as transactions. Runs in the owner's thread only.

queued -> settled       the server has it: id, number, time and a hash stay, the rest is erased
queued -> quarantined   the server refuses it, or it cannot be sent: everything is kept
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from kiosk.errors import OutboxError, VaultError, WireError
from kiosk.outbox.database import Database
from kiosk.types import Direction, Envelope, ReceiptStatus, Stamp, Trust

log = logging.getLogger(__name__)

_STAMP = "event.utc_ms, event.boottime_ns, boot.boot_id, event.trust"
_EVENT = (
    "event.position, event.event_id, event.epoch, epoch.name || ':' || event.number,"
    f" event.state, event.attempts, event.body_sha256, {_STAMP}"
)
_JOINED = "JOIN boot ON boot.id = event.boot JOIN epoch ON epoch.id = event.epoch"
_OLDEST = (
    f"SELECT {_EVENT} FROM waiting JOIN event USING (position) {_JOINED}"  # noqa: S608 - constants
    " ORDER BY waiting.position LIMIT 1"
)
_BY_ID = f"SELECT {_EVENT} FROM event {_JOINED} WHERE event.event_id = ?"  # noqa: S608 - constants
_LAST_PUNCH = (
    f"SELECT {_STAMP} FROM last_punch JOIN event USING (position)"  # noqa: S608 - constants
    " JOIN boot ON boot.id = event.boot"
    " WHERE last_punch.employee_tag = ? AND last_punch.kind = ?"
)


class Bodies(Protocol):
    """What the ledger asks of whoever can open, write and seal messages."""

    def frozen(self, event_id: str, draft: bytes, seen: Stamp, seq: str) -> bytes:
        """Turn a sealed draft into the final body."""
        ...

    def sealed(self, event_id: str, body: bytes) -> bytes:
        """Seal a final body."""
        ...

    def opened(self, event_id: str, sealed: bytes) -> bytes:
        """Open a sealed body."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How the queue stands.

    Counts over all epochs; `oldest` is when the oldest waiting event was seen; `epoch` and
    `highest` are the epoch that gives numbers now and the highest one it has given.
    """

    pending: int
    quarantined: int
    settled: int
    oldest: Stamp | None
    epoch: str
    highest: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event's row, without what it holds."""

    position: int
    event_id: str
    epoch: int
    seq: str
    state: str
    attempts: int
    body_sha256: bytes | None
    seen: Stamp


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
        employee_tag: bytes | None,
        kind: Direction | None,
    ) -> str:
        """Record an event and return its SEQ. OutboxError when its id was recorded before."""
        with self._rows() as rows:
            earlier = rows.event(event_id)
            if earlier is not None:
                raise OutboxError(
                    f"expected a new event id, {event_id} was recorded as {earlier.seq}",
                    hint="make a new id for a new punch; the earlier one stays as it is",
                )
            epoch, name, number = rows.one(
                "UPDATE epoch SET highest = highest + 1, queued = queued + 1"
                " WHERE id = (SELECT max(id) FROM epoch) RETURNING id, name, highest"
            )
            rows.run("INSERT INTO boot (boot_id) VALUES (?) ON CONFLICT DO NOTHING", seen.boot_id)
            (position,) = rows.one(
                "INSERT INTO event (event_id, epoch, number, utc_ms, boottime_ns, boot, trust)"
                " VALUES (?, ?, ?, ?, ?, (SELECT id FROM boot WHERE boot_id = ?), ?)"
                " RETURNING position",
                *(uuid.UUID(event_id).bytes, epoch, number),
                *(seen.utc_ms, seen.boottime_ns, seen.boot_id, seen.trust.value),
            )
            rows.run("INSERT INTO waiting (position, draft) VALUES (?, ?)", position, draft)
            if employee_tag is not None:
                rows.run(
                    "INSERT INTO last_punch (employee_tag, kind, position) VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET position = excluded.position",
                    *(employee_tag, _kind_text(kind), position),
                )
        return f"{name}:{number}"

    def last_recorded(self, employee_tag: bytes, kind: Direction | None) -> Stamp | None:
        """Return the time of the latest event, in order of recording, of a person and direction."""
        with self._rows() as rows:
            row = rows.first(_LAST_PUNCH, employee_tag, _kind_text(kind))
        return None if row is None else _stamp(row)

    def lease(self) -> Envelope | None:
        """Return the oldest queued event, its body frozen and the attempt counted on disk.

        One whose bytes do not authenticate, or make no message, is set aside with a loud word:
        it must neither be sent nor hold up all that wait behind it.
        """
        while True:
            with self._rows() as rows:
                row = rows.first(_OLDEST)
                if row is None:
                    return None
                event = _recorded(row)
                try:
                    return self._leased(rows, event)
                except (VaultError, WireError) as error:
                    reason = f"cannot be sent: {error}"
                    rows.set_aside(event, reason, answer=None)
            log.error("outbox.unsendable", extra={"fields": _fields(event) | {"reason": reason}})

    def settle(self, event_id: str, status: ReceiptStatus) -> Recorded:
        """End a leased event by the server's word, and erase it unless it was rejected."""
        with self._rows() as rows:
            event = rows.queued(event_id)
            if event.body_sha256 is None:
                raise OutboxError(f"expected an event that was sent, {event_id} never was")
            if status is ReceiptStatus.REJECTED:
                rows.set_aside(event, "rejected by the server", answer=status)
            else:
                rows.run("DELETE FROM waiting WHERE position = ?", event.position)
                rows.move(event, "settled", status)
        return event

    def quarantine(self, event_id: str, reason: str) -> Recorded:
        """Set a queued event aside; all of it is kept."""
        with self._rows() as rows:
            event = rows.queued(event_id)
            rows.set_aside(event, reason, answer=None)
        return event

    def status(self) -> OutboxStatus:
        """Count, in the same time however many events were settled."""
        with self._rows() as rows:
            queued, quarantined, settled = rows.one(
                "SELECT sum(queued), sum(quarantined), sum(settled) FROM epoch"
            )
            name, highest = rows.one("SELECT name, highest FROM epoch ORDER BY id DESC LIMIT 1")
            oldest = rows.first(_OLDEST)
        seen = None if oldest is None else _recorded(oldest).seen
        return OutboxStatus(queued, quarantined, settled, seen, name, highest)

    def _leased(self, rows: _Rows, event: Recorded) -> Envelope:
        draft, sealed = rows.one(
            "SELECT draft, body FROM waiting WHERE position = ?", event.position
        )
        if sealed is None:
            body = self._bodies.frozen(event.event_id, draft, event.seen, event.seq)
            # The draft has become the body; a second copy of a face would only be one more.
            rows.run(
                "UPDATE waiting SET draft = NULL, body = ? WHERE position = ?",
                *(self._bodies.sealed(event.event_id, body), event.position),
            )
        else:
            body = self._bodies.opened(event.event_id, sealed)
        rows.run(
            "UPDATE event SET attempts = attempts + 1, body_sha256 = ? WHERE position = ?",
            *(hashlib.sha256(body).digest(), event.position),
        )
        return Envelope(event.seq, event.event_id, body, event.attempts + 1)

    @contextmanager
    def _rows(self) -> Iterator[_Rows]:
        with self._database.transaction() as connection:
            yield _Rows(connection)


class _Connection(Protocol):
    def execute(self, sql: str, parameters: tuple[Any, ...], /) -> Any: ...


class _Rows:
    """The rows, inside one transaction."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def run(self, statement: str, *values: object) -> None:
        self._connection.execute(statement, values)

    def first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        # All rows are fetched: a cursor left open would keep its statement, and the log, busy.
        rows: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return rows[0] if rows else None

    def one(self, query: str, *values: object) -> tuple[Any, ...]:
        row = self.first(query, *values)
        if row is None:
            raise OutboxError(f"expected a row, got none for: {query}", hint="restore the file")
        return row

    def event(self, event_id: str) -> Recorded | None:
        row = self.first(_BY_ID, _id_bytes(event_id))
        return None if row is None else _recorded(row)

    def queued(self, event_id: str) -> Recorded:
        event = self.event(event_id)
        if event is None:
            raise OutboxError(f"expected an event that was recorded, {event_id} never was")
        if event.state != "queued":
            raise OutboxError(f"expected a queued event, {event_id} is {event.state}")
        return event

    def set_aside(self, event: Recorded, reason: str, answer: ReceiptStatus | None) -> None:
        self.run(
            "INSERT INTO quarantine (position, draft, body, reason)"
            " SELECT position, draft, body, ? FROM waiting WHERE position = ?",
            *(reason, event.position),
        )
        self.run("DELETE FROM waiting WHERE position = ?", event.position)
        self.move(event, "quarantined", answer)

    def move(self, event: Recorded, state: str, answer: ReceiptStatus | None) -> None:
        self.run(
            "UPDATE event SET state = ?, answer = ? WHERE position = ?",
            *(state, answer and answer.value, event.position),
        )
        self.run(
            "UPDATE epoch SET queued = queued - 1, settled = settled + ?,"
            " quarantined = quarantined + ? WHERE id = ?",
            *(state == "settled", state == "quarantined", event.epoch),
        )


def _id_bytes(event_id: str) -> bytes:
    return uuid.UUID(event_id).bytes


def _kind_text(kind: Direction | None) -> str:
    return "" if kind is None else kind.value


def _fields(event: Recorded) -> dict[str, str | int]:
    return {"event_id": event.event_id, "seq": event.seq, "attempts": event.attempts}


def _recorded(row: tuple[Any, ...]) -> Recorded:
    position, event_id, epoch, seq, state, attempts, digest = row[:7]
    identity = str(uuid.UUID(bytes=event_id))
    return Recorded(position, identity, epoch, seq, state, attempts, digest, _stamp(row[7:]))


def _stamp(row: tuple[Any, ...]) -> Stamp:
    utc_ms, boottime_ns, boot_id, trust = row
    return Stamp(utc_ms, boottime_ns, boot_id, Trust(trust))
