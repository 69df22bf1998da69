"""A damaged file is set aside as it is, and what can be trusted goes over into a new one.

Trusted is what authenticates: the drafts and bodies that wait or were set aside. Of settled events
only id, number, time and hash are there, and are taken as they stand: they are never sent.
"""

from __future__ import annotations

import errno
import itertools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kiosk.errors import OutboxFullError, VaultError
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.database import Database
from kiosk.outbox.wal import kept_log
from kiosk.types import Trust
from kiosk.vault import sync_folder

# The reserve holds nothing, the number of gallery and device is one row.
_BY_POSITION = ("epoch", "boot", "event", "waiting", "quarantine", "device")
_WHOLE = ("last_punch", "good_time")
_KEYS = {"event": "position", "waiting": "position", "quarantine": "position"}
_UNKNOWN_HIGHEST = 1 << 22
# A damaged root makes every row of its table unreadable: that many refusals say so.
_MOST_REFUSALS = 20_000
_AT_A_TIME = 500
# What a card loses it loses in such pieces, or in multiples of them.
_BLOCK = 4096
# A replacement that is complete: nothing but its name is to be done.
_READY = "ready"
_PIECE = 1 << 17
_MOST_KEYS = 1 << 26


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was taken over, and what was not.

    `unreadable` counts events that the old file had numbers for and that are in the new one in no
    state; `refused` are rows that were read and did not authenticate.
    """

    aside: Path
    waiting: int
    quarantined: int
    settled: int
    unreadable: int
    refused: int


def salvage(path: Path, bodies: Bodies, *, stamp: str) -> Salvaged:
    """Replace a damaged database by a new one; `stamp` names what is set aside.

    OutboxFullError: no space for the copy that is read, or for the new file; nothing was changed.
    A power cut at any moment leaves the damaged file in its place, or the new one complete.
    """
    new, copy = _beside(path, "new"), _beside(path, "wreck")
    log = _log_of(path)
    for name in (*_files(new), *_files(copy), _beside(path, "wreck-wal.kept")):
        name.unlink(missing_ok=True)
    aside = _unused(path, log, stamp)
    try:
        # SQLite changes what it opens: what is set aside stays as it was found.
        for source, target in zip((path, log), _files(copy), strict=True):
            if source.exists():
                _copy_readable(source, target)
        found = _rebuild(new, copy, bodies, aside)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutboxFullError(
            f"{path}: it is damaged, and there is no space to salvage it",
            hint="free as much as the file takes, twice; nothing was changed",
        ) from error
    finally:
        for name in _files(copy):
            name.unlink(missing_ok=True)
    # Second names first: until the new one is in its place nothing of the old one is taken away.
    for source, target in zip((path, log), _files(aside), strict=True):
        if source.exists() and not target.exists():
            target.hardlink_to(source)
    _files(new)[1].unlink(missing_ok=True)
    new.rename(_beside(path, _READY))
    sync_folder(path.parent)
    finish(path)
    return found


def _copy_readable(source: Path, target: Path) -> None:
    """Copy a file; a block that the card does not give back any more is zeros."""
    with source.open("rb", buffering=0) as reading, target.open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        for at in range(0, size, _BLOCK):
            try:
                block = os.pread(reading.fileno(), _BLOCK, at)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                block = bytes(min(_BLOCK, size - at))
            writing.write(block)


def finish(path: Path) -> None:
    """Put a complete replacement in its place, also one that a power cut kept from it.

    The old log goes first: SQLite would apply it to the new database.
    """
    ready = _beside(path, _READY)
    if ready.exists():
        for log in (_files(path)[1], kept_log(path)):
            log.unlink(missing_ok=True)
        sync_folder(path.parent)
        ready.rename(path)
        sync_folder(path.parent)


def _unused(path: Path, log: Path, stamp: str) -> Path:
    """A name for what is set aside: one that nothing has, or only these very files."""

    def is_free(aside: Path) -> bool:
        pairs = zip((path, log), _files(aside), strict=True)
        return all(not t.exists() or (s.exists() and t.samefile(s)) for s, t in pairs)

    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (_beside(path, f"damaged-{stamp}{suffix}") for suffix in suffixes)
    return next(filter(is_free, names))


def _log_of(path: Path) -> Path:
    """The log, under the second name that it has while a kiosk runs if that is what is left."""
    log, kept = _files(path)[1], kept_log(path)
    return kept if kept.exists() and not log.exists() else log


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _files(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(f"{path.name}-wal")


def _rebuild(new: Path, copy: Path, bodies: Bodies, aside: Path) -> Salvaged:
    database = Database(new)
    try:
        if copy.exists() and database.attach(copy):
            for table in _BY_POSITION:
                _copy_ranges(database, table)
            for table in _WHOLE:
                _copy_whole(database, table)
        refused = _drop_strangers(database, bodies)
        _take_ownership(database, bodies)
        return _settle_accounts(database, aside, refused)
    finally:
        database.close()


def _columns(database: Database, table: str) -> str:
    """The columns that both files have: the damaged one may be an earlier version's."""
    there = {row[1] for row in database.peek(f"PRAGMA wreck.table_info({table})")}
    here = [row[1] for row in database.peek(f"PRAGMA main.table_info({table})")]
    return ", ".join(name for name in here if name in there)


def _copy_whole(database: Database, table: str) -> None:
    columns = _columns(database, table)
    if columns:
        copying = f"INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns}"
        database.salvage(f"{copying} FROM wreck.{table}", ())


def _copy_ranges(database: Database, table: str) -> None:
    """Copy by key; a range that cannot be read is halved until what is damaged stands alone."""
    columns, key = _columns(database, table), _KEYS.get(table, "id")
    if not columns:
        return
    believed = ", ".join(f"'{trust.value}'" for trust in Trust)
    only = f" AND trust IN ({believed})" if table == "event" else ""
    # A new file has an epoch of its own already; the old one's of that number goes before it.
    copying = f"INSERT OR REPLACE INTO main.{table} ({columns}) SELECT {columns}"
    statement = f"{copying} FROM wreck.{table} WHERE {key} BETWEEN ? AND ?{only}"
    highest = database.peek(f"SELECT max({key}) FROM wreck.{table}")  # noqa: S608
    last = highest[0][0] if highest and isinstance(highest[0][0], int) else _UNKNOWN_HIGHEST
    ranges, refusals = _ranges(last), 0
    while ranges and refusals < _MOST_REFUSALS:
        low, high = ranges.pop()
        if database.salvage(statement, (low, high)) is None:
            refusals += 1
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]


def _ranges(last: int) -> list[tuple[int, int]]:
    """Cut 1 to `last` into pieces, the lowest at the end of the list."""
    if last > _MOST_KEYS:
        # No kiosk has had so many: the key itself is damaged, and most of the range is empty.
        return [(_MOST_KEYS + 1, last), *_ranges(_MOST_KEYS)]
    return [(low, min(last, low + _PIECE - 1)) for low in reversed(range(1, last + 1, _PIECE))]


def _drop_strangers(database: Database, bodies: Bodies) -> int:
    """Delete what does not authenticate as the event that it stands beside."""
    refused = 0
    for table in ("waiting", "quarantine"):
        orphans = f"DELETE FROM {table} WHERE position NOT IN (SELECT position FROM event)"  # noqa: S608
        refused += database.salvage(orphans, ()) or 0
        for position, event_id, draft, body in _sealed(database, table):
            try:
                bodies.check(str(uuid.UUID(bytes=event_id)), draft, body)
            except VaultError:
                refused += 1
                database.salvage(f"DELETE FROM {table} WHERE position = ?", (position,))  # noqa: S608
    return refused


def _take_ownership(database: Database, bodies: Bodies) -> None:
    """The queue is this device's; a gallery's number that does not open is no number."""
    ours = (bodies.secret_check(), bodies.device_check())
    database.salvage("UPDATE device SET secret_check = ?, device_check = ?", ours)
    for (sealed,) in database.peek("SELECT gallery_mark FROM device"):
        try:
            _ = sealed is None or bodies.open_mark(sealed)
        except VaultError:
            database.salvage("UPDATE device SET gallery_mark = NULL", ())


def _sealed(database: Database, table: str) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    after = 0
    while True:
        rows = database.peek(
            "SELECT position, event_id, draft, body"  # noqa: S608
            f" FROM main.{table} JOIN main.event USING (position)"
            f" WHERE position > {after} ORDER BY position LIMIT {_AT_A_TIME}"
        )
        if not rows:
            return
        yield from rows
        after = rows[-1][0]


_ACCOUNTS = (
    "DELETE FROM quarantine WHERE position IN (SELECT position FROM waiting)",
    "UPDATE event SET state = 'queued' WHERE position IN (SELECT position FROM waiting)"
    " AND state <> 'queued'",
    "UPDATE event SET state = 'quarantined' WHERE state <> 'quarantined'"
    " AND position IN (SELECT position FROM quarantine)",
    "DELETE FROM event WHERE state = 'queued' AND position NOT IN (SELECT position FROM waiting)",
    "DELETE FROM event WHERE state = 'quarantined'"
    " AND position NOT IN (SELECT position FROM quarantine)",
    "DELETE FROM last_punch WHERE position NOT IN (SELECT position FROM event)",
    "INSERT OR IGNORE INTO epoch (id, name)"
    " SELECT DISTINCT epoch, lower(hex(randomblob(4))) FROM event",
    "INSERT OR IGNORE INTO boot (id, boot_id) SELECT DISTINCT boot, 'unknown-' || boot FROM event",
    "CREATE TEMP TABLE held AS SELECT epoch, max(number) AS highest, count(*) AS events,"
    " sum(state = 'queued') AS queued, sum(state = 'quarantined') AS quarantined,"
    " sum(state = 'settled') AS settled FROM event GROUP BY epoch",
    "UPDATE epoch SET queued = 0, quarantined = 0, settled = 0",
    "UPDATE epoch SET highest = max(epoch.highest, held.highest, held.events),"
    " queued = held.queued, quarantined = held.quarantined, settled = held.settled"
    " FROM held WHERE held.epoch = epoch.id",
    "DROP TABLE held",
    "INSERT INTO epoch (name) VALUES (lower(hex(randomblob(4))))",
)


def _settle_accounts(database: Database, aside: Path, refused: int) -> Salvaged:
    """Make states and counts agree with what is there, and begin a new epoch."""
    with database.transaction() as connection:
        for statement in _ACCOUNTS:
            connection.execute(statement)
        waiting, quarantined, settled, highest = connection.execute(
            "SELECT sum(queued), sum(quarantined), sum(settled), sum(highest) FROM epoch"
        ).fetchone()
    unreadable = highest - waiting - quarantined - settled
    return Salvaged(aside, waiting, quarantined, settled, unreadable, refused)
