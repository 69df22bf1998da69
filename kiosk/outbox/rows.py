"""The outbox's rows, read and changed inside one transaction."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from kiosk.errors import OutboxDamagedError, OutboxError
from kiosk.types import Direction, ReceiptStatus, Stamp, Trust
from kiosk.wire.eventid import is_event_id

DROPPED = "dropped"
"""Stands where a settled event has the server's answer, for one that a person took out."""
_TRUSTS = tuple(trust.value for trust in Trust)
_STAMP = "event.utc_ms, event.boottime_ns, boot.boot_id, event.trust"
_EVENT = (
    "event.position, event.event_id, event.epoch, epoch.name || ':' || event.number,"
    f" event.state, event.attempts, event.body_sha256, {_STAMP}"
)
_JOINED = "JOIN boot ON boot.id = event.boot JOIN epoch ON epoch.id = event.epoch"
# All are put together from the constants above, never from values.
_BY_ID = f"SELECT {_EVENT} FROM event {_JOINED} WHERE event.event_id = ?"  # noqa: S608
_OLDEST = (
    f"SELECT {_EVENT} FROM waiting JOIN event USING (position) {_JOINED}"  # noqa: S608
    " WHERE waiting.position > ? ORDER BY waiting.position LIMIT ?"
)
_WAITING = (
    f"SELECT {_EVENT}, waiting.draft, waiting.body,"  # noqa: S608
    " (SELECT known.position FROM event AS known WHERE known.event_id = event.event_id)"
    # CROSS: waiting first, so that never more of `event` is read than waits.
    f" FROM waiting CROSS JOIN event USING (position) {_JOINED}"
    " WHERE waiting.position >= ? ORDER BY waiting.position LIMIT ?"
)
# The second SELECT goes by the index alone, where the first one has read the table.
_ACCOUNTED = (
    "WITH slice AS MATERIALIZED (SELECT position, event_id, length(trust) FROM event"
    " WHERE position > ? ORDER BY position LIMIT ?)"
    " SELECT max(position), count(*), sum((SELECT known.position FROM event AS known"
    " WHERE known.event_id = slice.event_id) = slice.position) FROM slice"
)
_SET_ASIDE = (
    f"SELECT {_EVENT}, quarantine.reason, quarantine.utc_ms"  # noqa: S608
    f" FROM quarantine JOIN event USING (position) {_JOINED}"
    " ORDER BY quarantine.position LIMIT ?"
)
_HELD = (
    f"SELECT {_EVENT} FROM ("  # noqa: S608
    "SELECT position FROM waiting WHERE position > ?1"
    " UNION ALL SELECT position FROM quarantine WHERE position > ?1 ORDER BY position LIMIT ?2"
    f") AS held JOIN event ON event.position = held.position {_JOINED} ORDER BY held.position"
)
_LAST_PUNCH = (
    f"SELECT {_STAMP} FROM last_punch JOIN event USING (position)"  # noqa: S608
    " JOIN boot ON boot.id = event.boot"
    " WHERE last_punch.employee_tag = ? AND last_punch.kind = ?"
)


class Connection(Protocol):
    """The one method of a database connection that rows need."""

    def execute(self, sql: str, parameters: tuple[Any, ...], /) -> Any:
        """Run one statement."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event's row: all that stays of it for ever. `seq` is `epoch:number`."""

    position: int
    event_id: str
    epoch: int
    seq: str
    state: str
    attempts: int
    body_sha256: bytes | None
    seen: Stamp


@dataclass(frozen=True, slots=True)
class SetAside:
    """One event in quarantine: why, and when by the clock of that moment (None: not noted)."""

    event: Recorded
    reason: str
    utc_ms: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """One queued event with its sealed draft, or its sealed body once that was frozen.

    `known_at` is the position at which its id is found.
    """

    event: Recorded
    draft: bytes | None
    body: bytes | None
    known_at: int | None


class Rows:
    """Named reads and changes over one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, statement: str, *values: object) -> None:
        """Run a statement that returns nothing."""
        self._connection.execute(statement, values)

    def first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row, None if there is none."""
        # All are fetched: a cursor left open would keep its statement, and the log, busy.
        rows = self.all(query, *values)
        return rows[0] if rows else None

    def all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return every row."""
        rows: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return rows

    def one(self, query: str, *values: object) -> tuple[Any, ...]:
        """Return the row that the tables' own rules say is there."""
        row = self.first(query, *values)
        if row is None:
            raise OutboxDamagedError(
                f"expected a row, got none for: {query}",
                hint="the file was changed by hand or is damaged; restart",
            )
        return row

    def begin_epoch(self) -> None:
        """Give numbers from 1 on under a new name."""
        self.run("INSERT INTO epoch (name) VALUES (lower(hex(randomblob(4))))")

    def epochs(self) -> dict[str, int]:
        """Return the highest number of every epoch, the newest last."""
        query = "SELECT name, highest FROM epoch ORDER BY id"
        return dict(self._connection.execute(query, ()).fetchall())

    def counts(self) -> tuple[int, int]:
        """Return how many events the epochs count as queued, and as set aside."""
        queued, aside = self.one("SELECT sum(queued), sum(quarantined) FROM epoch")
        return queued, aside

    def waiting_from(self, position: int, limit: int) -> list[Kept]:
        """Return what waits from a position on, as it is kept."""
        rows = self._connection.execute(_WAITING, (position, limit)).fetchall()
        return [Kept(_recorded(row[:-3]), *row[-3:]) for row in rows]

    def unaccounted(self, after: int, limit: int) -> tuple[int, int] | None:
        """Read settled and other events after a position, and find each again by its id.

        Returns the last position read and how many were not found; None after the last event.
        """
        last, read, found = self.one(_ACCOUNTED, after, limit)
        return None if last is None else (last, read - found)

    def waits(self, count: int) -> bool:
        """Return whether at least so many are queued; looks at no more than them."""
        return self.first("SELECT 1 FROM waiting LIMIT 1 OFFSET ?", count - 1) is not None

    def oldest(self) -> Recorded | None:
        """Return the event that has waited longest."""
        return next(iter(self.waiting(1)), None)

    def waiting(self, limit: int, *, beyond: int = 0) -> list[Recorded]:
        """Return the queued events that have waited longest, of those recorded after `beyond`."""
        rows = self._connection.execute(_OLDEST, (beyond, limit)).fetchall()
        return [_recorded(row) for row in rows]

    def held(self, limit: int, *, beyond: int) -> list[Recorded]:
        """Return the oldest events that are waiting or set aside, recorded after `beyond`."""
        rows = self._connection.execute(_HELD, (beyond, limit)).fetchall()
        return [_recorded(row) for row in rows]

    def event(self, event_id: str) -> Recorded | None:
        """Return an event in whatever state, None if it was never recorded."""
        if not is_event_id(event_id):
            return None
        row = self.first(_BY_ID, uuid.UUID(event_id).bytes)
        return None if row is None else _recorded(row)

    def queued(self, event_id: str) -> Recorded:
        """Return a queued event; OutboxError if it is none."""
        event = self.event(event_id)
        if event is None:
            raise OutboxError(f"expected a recorded event, {event_id} never was recorded")
        if event.state != "queued":
            raise OutboxError(f"expected a queued event, {event_id} is {event.state}")
        return event

    def add(self, event_id: str, seen: Stamp) -> tuple[int, str]:
        """Add an event with the next number; returns its position and SEQ."""
        epoch, name, number = self.one(
            "UPDATE epoch SET highest = highest + 1, queued = queued + 1"
            " WHERE id = (SELECT max(id) FROM epoch) RETURNING id, name, highest"
        )
        self.begin_boot(seen.boot_id)
        (position,) = self.one(
            "INSERT INTO event (event_id, epoch, number, utc_ms, boottime_ns, trust, boot)"
            " VALUES (?, ?, ?, ?, ?, ?, (SELECT id FROM boot WHERE boot_id = ?))"
            " RETURNING position",
            *(uuid.UUID(event_id).bytes, epoch, number),
            *(seen.utc_ms, seen.boottime_ns, seen.trust.value, seen.boot_id),
        )
        return position, f"{name}:{number}"

    def begin_boot(self, boot_id: str) -> None:
        """Make sure that a boot has its number."""
        self.run("INSERT INTO boot (boot_id) VALUES (?) ON CONFLICT DO NOTHING", boot_id)

    def remember(self, employee_tag: bytes, kind: Direction | None, position: int) -> None:
        """Make an event the latest one of a person and direction."""
        self.run(
            "INSERT INTO last_punch (employee_tag, kind, position) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET position = excluded.position",
            *(employee_tag, _kind_text(kind), position),
        )

    def last_punch(self, employee_tag: bytes, kind: Direction | None) -> Stamp | None:
        """Return the time of the latest event of a person and direction."""
        row = self.first(_LAST_PUNCH, employee_tag, _kind_text(kind))
        return None if row is None else _stamp(row)

    def erase(self, event: Recorded, answer: ReceiptStatus) -> None:
        """Delete what a queued event holds: the server has it."""
        self.run("DELETE FROM waiting WHERE position = ?", event.position)
        self.run(
            "UPDATE event SET state = 'settled', answer = ? WHERE position = ?",
            *(answer.value, event.position),
        )
        self.run(
            "UPDATE epoch SET queued = queued - 1, settled = settled + 1 WHERE id = ?", event.epoch
        )

    def correct(self, event: Recorded, seen: Stamp) -> None:
        """Give a queued event its corrected wall time: what is sent is what stays."""
        self.run(
            "UPDATE event SET utc_ms = ?, trust = ? WHERE position = ?",
            *(seen.utc_ms, seen.trust.value, event.position),
        )

    def set_aside(
        self, event: Recorded, reason: str, at_ms: int, answer: ReceiptStatus | None = None
    ) -> None:
        """Move all that a queued event holds to the quarantine."""
        self.run(
            "INSERT INTO quarantine (position, draft, body, reason, utc_ms)"
            " SELECT position, draft, body, ?, ? FROM waiting WHERE position = ?",
            *(reason, at_ms, event.position),
        )
        self.run("DELETE FROM waiting WHERE position = ?", event.position)
        self.run(
            "UPDATE event SET state = 'quarantined', answer = ? WHERE position = ?",
            *(None if answer is None else answer.value, event.position),
        )
        self.run(
            "UPDATE epoch SET queued = queued - 1, quarantined = quarantined + 1 WHERE id = ?",
            event.epoch,
        )

    def in_quarantine(self, limit: int) -> list[SetAside]:
        """Return the oldest events in quarantine."""
        return [
            SetAside(_recorded(row[:-2]), row[-2], row[-1])
            for row in self._connection.execute(_SET_ASIDE, (limit,)).fetchall()
        ]

    def drop(self, event: Recorded) -> None:
        """Delete what an event in quarantine holds: somebody has its message elsewhere."""
        self.run("DELETE FROM quarantine WHERE position = ?", event.position)
        self.run(
            "UPDATE event SET state = 'settled', answer = ? WHERE position = ?",
            *(DROPPED, event.position),
        )
        self.run(
            "UPDATE epoch SET quarantined = quarantined - 1, settled = settled + 1 WHERE id = ?",
            event.epoch,
        )

    def take_back(self, event: Recorded) -> None:
        """Move all that an event in quarantine holds back to its old place in the queue."""
        self.run(
            "INSERT INTO waiting (position, draft, body)"
            " SELECT position, draft, body FROM quarantine WHERE position = ?",
            event.position,
        )
        self.run("DELETE FROM quarantine WHERE position = ?", event.position)
        self.run(
            "UPDATE event SET state = 'queued', answer = NULL WHERE position = ?", event.position
        )
        self.run(
            "UPDATE epoch SET queued = queued + 1, quarantined = quarantined - 1 WHERE id = ?",
            event.epoch,
        )


def _kind_text(kind: Direction | None) -> str:
    return "" if kind is None else kind.value


def _recorded(row: tuple[Any, ...]) -> Recorded:
    position, event_id, epoch, seq, state, attempts, digest = row[:7]
    name = str(uuid.UUID(bytes=event_id))
    return Recorded(position, name, epoch, seq, state, attempts, digest, _stamp(row[7:]))


def _stamp(row: tuple[Any, ...]) -> Stamp:
    utc_ms, boottime_ns, boot_id, trust = row
    if trust not in _TRUSTS:
        raise OutboxDamagedError(f"expected one of {', '.join(_TRUSTS)}, got {trust!r}")
    return Stamp(utc_ms, boottime_ns, boot_id, Trust(trust))
