"""What the server keeps: one SQLite file, every change committed before the reply."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import KioskError, UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS face (
    id INTEGER PRIMARY KEY, employee TEXT NOT NULL, space TEXT NOT NULL, vector BLOB NOT NULL,
    UNIQUE (employee, space, vector)
) STRICT;
CREATE TABLE IF NOT EXISTS device_key (
    device TEXT NOT NULL, key_id TEXT NOT NULL, key BLOB NOT NULL, PRIMARY KEY (device, key_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attendance (
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL, device TEXT NOT NULL,
    body_sha256 BLOB NOT NULL, employee TEXT, claimed TEXT, matched TEXT, similarity REAL,
    kind TEXT, seen TEXT NOT NULL, score TEXT, quality TEXT, liveness TEXT, space TEXT, clock TEXT,
    seq TEXT, signed INTEGER NOT NULL, disagrees INTEGER NOT NULL,
    received TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')), embedding BLOB,
    UNIQUE (device, event_id)
) STRICT;
CREATE INDEX IF NOT EXISTS attendance_seen ON attendance (seen);
CREATE TABLE IF NOT EXISTS alarm (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    device TEXT NOT NULL, event_id TEXT NOT NULL, what TEXT NOT NULL
) STRICT;
"""
_SHOWN = (
    "event_id, device, employee, claimed, matched, similarity, kind, seen, score, quality,"
    " liveness, space, clock, seq, signed, disagrees, received"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of attendance; field names are the table's."""

    event_id: str
    device: str
    body_sha256: bytes
    employee: str | None
    claimed: str | None
    matched: str | None
    similarity: float | None
    kind: str | None
    seen: str
    score: str | None
    quality: str | None
    liveness: str | None
    space: str | None
    clock: str | None
    seq: str | None
    signed: bool
    disagrees: bool
    embedding: bytes | None


def path_of(url: str) -> Path:
    """The file of a sqlite:/// URL; UserError for any other scheme."""
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        raise UserError(f"--store sqlite:///PATH expected, got {url!r}")
    return Path(url.removeprefix(prefix))


class Store:
    """One connection behind a lock; callers may be any threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"--store {path}: a file to write to expected, {error}") from error
        self._connection.row_factory = sqlite3.Row

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._connection.execute(query, values)]

    def record(self, record: Record) -> str:
        """Insert: "ok"; "duplicate" for the same body again, "rejected" for another one."""
        names = Record.__slots__
        values = [getattr(record, name) for name in names]
        marks = ", ".join("?" * len(names))
        with self._transaction() as connection:
            old = connection.execute(
                "SELECT body_sha256 FROM attendance WHERE device = ? AND event_id = ?",
                (record.device, record.event_id),
            ).fetchone()
            if old is None:
                connection.execute(
                    f"INSERT INTO attendance ({', '.join(names)}) VALUES ({marks})",  # noqa: S608
                    values,
                )
                return "ok"
            if old["body_sha256"] == record.body_sha256:
                return "duplicate"
            connection.execute(
                "INSERT INTO alarm (device, event_id, what) VALUES (?, ?, ?)",
                (record.device, record.event_id, "another body under a known event id"),
            )
            return "rejected"

    def attendance(
        self, *, day: str | None, employee: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Records, the newest first, of one UTC day and one employee if given."""
        return self._rows(
            f"SELECT {_SHOWN} FROM attendance WHERE (?1 IS NULL OR substr(seen, 1, 10) = ?1)"  # noqa: S608
            " AND (?2 IS NULL OR employee = ?2) ORDER BY seen DESC, id DESC LIMIT ?3",
            *(day, employee, limit),
        )

    def alarms(self) -> list[dict[str, Any]]:
        """What somebody must look at, the newest first."""
        return self._rows("SELECT at, device, event_id, what FROM alarm ORDER BY id DESC LIMIT 100")

    def add_faces(self, employee: str, space: str, vectors: list[NDArray[np.float32]]) -> int:
        """Enrol unit vectors; returns how many this employee has in this space."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO face (employee, space, vector) VALUES (?, ?, ?)",
                [(employee, space, vector.astype("<f4").tobytes()) for vector in vectors],
            )
            row = connection.execute(
                "SELECT count(*) FROM face WHERE employee = ? AND space = ?", (employee, space)
            ).fetchone()
            return int(row[0])

    def faces(self, space: str) -> tuple[list[str], NDArray[np.float32] | None]:
        """Owners and vectors (n, dim) of a space; None when nobody is enrolled in it."""
        rows = self._rows("SELECT employee, vector FROM face WHERE space = ?", space)
        if not rows:
            return [], None
        matrix = np.stack([np.frombuffer(row["vector"], "<f4") for row in rows])
        return [row["employee"] for row in rows], matrix.astype(np.float32)

    def employees(self) -> list[dict[str, Any]]:
        """Everybody with the number of faces in each space."""
        return self._rows(
            "SELECT employee, space, count(*) AS faces FROM face GROUP BY employee, space"
            " ORDER BY employee, space"
        )

    def remove_employee(self, employee: str) -> int:
        """Forget an employee's faces; how many there were."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM face WHERE employee = ?", (employee,)).rowcount

    def register_key(self, device: str, key_id: str, key: bytes) -> None:
        """Keep a device's sign key; KioskError when another key has that id."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO device_key VALUES (?, ?, ?)", (device, key_id, key)
            )
            row = connection.execute(
                "SELECT key FROM device_key WHERE device = ? AND key_id = ?", (device, key_id)
            ).fetchone()
        if row["key"] != key:
            raise KioskError(
                f"key {key_id} of device {device}: the same key expected, got another",
                hint="rotate under a new key id",
            )

    def keys(self, device: str) -> dict[str, bytes]:
        """A device's sign keys by key id."""
        rows = self._rows("SELECT key_id, key FROM device_key WHERE device = ?", device)
        return {row["key_id"]: row["key"] for row in rows}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
