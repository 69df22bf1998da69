"""The tables of the server's store, version 3, and the row that comes in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

# Tells our files from other programs' (https://www.sqlite.org/fileformat2.html, offset 68).
APPLICATION_ID = 0x4B41_5453
VERSION = 3

PRAGMAS = (
    "journal_mode = WAL",
    # A reply promises that its event is on the disk, so each COMMIT waits for it.
    "synchronous = FULL",
    # A deleted face is not to be found in the file's free pages.
    "secure_delete = ON",
)

# A code lets one kiosk hand in one key, once: only its hash is kept, and who used it.
_INVITATION = """
CREATE TABLE invitation (
    code_sha256 BLOB PRIMARY KEY, until_ms INTEGER NOT NULL, device TEXT, key_id TEXT
) STRICT, WITHOUT ROWID;
"""

UPGRADES = {2: f"BEGIN; {_INVITATION} PRAGMA user_version = {VERSION}; COMMIT;"}
"""What makes a file of an earlier version one of this."""

TABLES = f"""
BEGIN;
{_INVITATION}
CREATE TABLE face (
    id INTEGER PRIMARY KEY, employee TEXT NOT NULL, space TEXT NOT NULL, vector BLOB NOT NULL,
    UNIQUE (employee, space, vector)
) STRICT;
CREATE TABLE gallery (version INTEGER NOT NULL) STRICT;
INSERT INTO gallery VALUES (0);
CREATE TABLE device_key (
    device TEXT NOT NULL, key_id TEXT NOT NULL, key BLOB NOT NULL, PRIMARY KEY (device, key_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE attendance (
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL, device TEXT NOT NULL,
    body_sha256 BLOB NOT NULL, employee TEXT, claimed TEXT, matched TEXT, similarity REAL,
    kind TEXT, seen TEXT NOT NULL, earliest TEXT, latest TEXT, score REAL, quality REAL,
    liveness REAL, space TEXT, clock TEXT,
    seq TEXT, signed INTEGER NOT NULL, disagrees INTEGER NOT NULL, embedding BLOB,
    received TEXT NOT NULL, UNIQUE (device, event_id)
) STRICT;
CREATE INDEX attendance_seen ON attendance (seen);
CREATE INDEX attendance_employee ON attendance (employee, seen);
CREATE TABLE alarm (
    id INTEGER PRIMARY KEY, device TEXT NOT NULL, event_id TEXT NOT NULL,
    body_sha256 BLOB NOT NULL, what TEXT NOT NULL, at TEXT NOT NULL,
    UNIQUE (device, event_id, body_sha256)
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - two numbers of our own


@dataclass(frozen=True, slots=True)
class Record:
    """One row of attendance; the names are the table's.

    `employee` is whom the event counts for: `claimed` (E1), else `matched` (this server's own
    match), else nobody. `seen` is UTC as TS1 writes it, and `earliest` and `latest` bound it where
    `clock` says that it is estimated; `similarity` and `score` -1..1, `quality`
    and `liveness` 0..1. `embedding`: float32, little endian.
    """

    event_id: str
    device: str
    body_sha256: bytes
    employee: str | None
    claimed: str | None
    matched: str | None
    similarity: float | None
    kind: str | None
    seen: str
    earliest: str | None
    latest: str | None
    score: float | None
    quality: float | None
    liveness: float | None
    space: str | None
    clock: str | None
    seq: str | None
    signed: bool
    disagrees: bool
    embedding: bytes | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are asked for: of one UTC day (YYYY-MM-DD), one employee, one device (D1)."""

    day: str | None = None
    employee: str | None = None
    device: str | None = None

    def values(self) -> dict[str, str | None]:
        """What COUNT and LIST are given."""
        return {
            "first": self.day and f"{self.day}T00:00:00.000Z",
            "last": self.day and f"{self.day}T23:59:59.999Z",
            "employee": self.employee,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An event of a known sender that could not be recorded, and why."""

    event_id: str
    device: str
    body_sha256: bytes
    what: str


_COLUMNS = tuple(field.name for field in fields(Record))
values_of = attrgetter(*_COLUMNS)
"""The values of a record in the order of INSERT, which adds when it was received."""
_SHOWN = ", ".join(name for name in _COLUMNS if name not in {"body_sha256", "embedding"})
# The names in both texts are our own; values are always bound.
INSERT = (
    f"INSERT INTO attendance ({', '.join(_COLUMNS)}, received)"  # noqa: S608
    f" VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)
_FITS = """
(:first IS NULL OR seen BETWEEN :first AND :last)
  AND (:employee IS NULL OR employee = :employee) AND (:device IS NULL OR device = :device)
"""
COUNT = f"SELECT count(*) AS total FROM attendance WHERE {_FITS}"  # noqa: S608
LIST = f"""
SELECT {_SHOWN}, received, (
    SELECT count(*) FROM alarm
    WHERE alarm.device = attendance.device AND alarm.event_id = attendance.event_id
) AS conflicts
FROM attendance
WHERE {_FITS}
ORDER BY seen DESC, id DESC LIMIT :limit OFFSET :offset
"""  # noqa: S608
# From one value of an index to the next: `DISTINCT` would read every row.
_NAMES = """
WITH RECURSIVE known (name) AS (
    SELECT min({column}) FROM attendance
    UNION ALL
    SELECT (SELECT min({column}) FROM attendance WHERE {column} > name) FROM known
    WHERE name IS NOT NULL
)
SELECT name FROM known WHERE name IS NOT NULL LIMIT :most
"""
DEVICES, EMPLOYEES = (_NAMES.format(column=column) for column in ("device", "employee"))
