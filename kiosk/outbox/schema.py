"""The queue's tables, and how a file comes from one version to the next.

`number` is gapless within an epoch and comes from `counter`, never from AUTOINCREMENT, which
gives numbers again after a damaged tail. Counts are kept beside the rows in the same
transaction, so that a status never scans years of settled events.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE identity (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch TEXT NOT NULL
    ) STRICT;
    CREATE TABLE counter (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counter VALUES ('number', 0), ('queued', 0), ('settled', 0), ('quarantined', 0);
    CREATE TABLE event (
        number INTEGER PRIMARY KEY,
        epoch TEXT NOT NULL,
        event_id TEXT NOT NULL UNIQUE,
        employee_tag BLOB,
        kind TEXT,
        utc_ms INTEGER NOT NULL,
        boottime_ns INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        trust TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'settled', 'quarantined')),
        attempts INTEGER NOT NULL DEFAULT 0,
        draft BLOB,
        body BLOB,
        body_sha256 BLOB,
        answer TEXT,
        CHECK (state = 'settled' OR draft IS NOT NULL)
    ) STRICT;
    CREATE INDEX event_queued ON event (number) WHERE state = 'queued';
    CREATE INDEX event_person ON event (employee_tag, kind, number) WHERE employee_tag IS NOT NULL;
    """,
)
"""One script for each version of the file; `PRAGMA user_version` is how many have been applied."""

PRAGMAS: tuple[tuple[str, str, str], ...] = (
    # (name, value to set, value to read back)
    ("locking_mode", "EXCLUSIVE", "exclusive"),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", "2"),
    ("secure_delete", "ON", "1"),
    ("foreign_keys", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("cell_size_check", "ON", "1"),
    ("mmap_size", "0", "0"),
    ("temp_store", "MEMORY", "2"),
)
"""`locking_mode` comes before WAL: then there is no shared memory file and no second opener."""
