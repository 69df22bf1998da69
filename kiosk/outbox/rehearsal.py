"""Whether this kiosk can go on with a queue, tried on a copy of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kiosk.errors import OutboxError
from kiosk.outbox.database import Database
from kiosk.outbox.schema import TABLES


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What became of the copy: the version it came in, and the one it is in now."""

    before: int
    after: int


def rehearse(copy: Path) -> Rehearsal:
    """Bring a copy of a queue to this version, and read all its tables. The copy is changed.

    Nothing is opened that is sealed, so that no secret is needed. OutboxError: what the queue
    itself would be refused for.
    """
    if not copy.is_file():
        raise OutboxError(
            f"{copy}: expected a copy of a queue, there is none",
            hint="`kiosk outbox backup` makes one",
        )
    database = Database(copy)
    try:
        database.check_schema()
        for table in TABLES:
            database.check(table)
        return Rehearsal(database.opened_at, database.pragma("user_version"))
    finally:
        database.close()
