"""What the server keeps: one SQLite file, every change committed before the reply."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kiosk.clock import Clock
from kiosk.errors import Fate, KioskError, UserError
from kiosk.server.tables import (
    APPLICATION_ID,
    COUNT,
    DEVICES,
    EMPLOYEES,
    INSERT,
    LIST,
    PRAGMAS,
    TABLES,
    UPGRADES,
    VERSION,
    Filter,
    Record,
    Unreadable,
    values_of,
)
from kiosk.types import FloatArray, ReceiptStatus

_SCHEME = "sqlite:///"
_OTHER_BODY = "another body under a known event id"
_ALARMS_SHOWN = 100
_NAMES_SHOWN = 1000


class StoreError(KioskError):
    """The file could not be read or written; what was asked was not done."""

    fate = Fate.RETRY


class KeyTakenError(KioskError):
    """A key id that stands for another key already."""

    fate = Fate.REFUSE


class NotInvitedError(KioskError):
    """No one-time code stands for what was asked."""


def path_of(url: str) -> Path:
    """The file of a sqlite:///PATH URL; UserError that names any other scheme.

    The error repeats no URL of another scheme: it may hold a password.
    """
    scheme, colon, _ = url.partition(":")
    if colon and scheme == "sqlite" and not url.startswith(_SCHEME):
        rest = url.partition(":")[2].lstrip("/") or "attendance.db"
        raise UserError(
            f"--store: expected {_SCHEME}PATH, with three slashes, got {url!r}",
            hint=f"{_SCHEME}{rest}, or {_SCHEME}/PATH for a path from the root",
        )
    if not url.startswith(_SCHEME) or url == _SCHEME:
        came = f"the scheme {scheme!r}" if colon and scheme != "sqlite" else repr(url)
        raise UserError(
            f"--store: expected {_SCHEME}PATH, got {came}",
            hint="SQLite is what this version keeps its records in",
        )
    return Path(url.removeprefix(_SCHEME))


class Store:
    """One connection behind a lock: callers may be any threads, and wait for each other.

    StoreError from any method: the file could not be read or written.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """Open the file or make it, mode 0600; UserError when that cannot be.

        A file that turns out not to be ours is left as it was, its mode too.
        """
        self._lock = threading.Lock()
        self._clock = clock
        try:
            # Made before SQLite would, so that it is nobody else's for a moment either.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise UserError(f"--store: expected a file to write to, got: {error}") from error
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._connection.close()
            raise UserError(f"--store {path}: expected an SQLite file, got: {error}") from error
        except OSError as error:
            self._connection.close()
            raise UserError(f"--store {path}: expected a file of this user's: {error}") from error
        except UserError:
            self._connection.close()
            raise
        self._connection.row_factory = sqlite3.Row

    def _prepare(self, path: Path) -> None:
        execute = self._connection.execute
        version = int(execute("PRAGMA user_version").fetchone()[0])
        owner = int(execute("PRAGMA application_id").fetchone()[0])
        tables = int(execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
        if tables and (owner != APPLICATION_ID or version not in (VERSION, *UPGRADES)):
            raise UserError(
                f"--store {path}: expected an attendance file of version {VERSION},"
                f" got another program's, or version {version}",
                hint="give a path of its own",
            )
        # Only now that it proved to be ours. A log that looking made has taken its mode over.
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if file.exists():
                file.chmod(0o600)
        for pragma in PRAGMAS:
            execute(f"PRAGMA {pragma}")
        if not tables:
            self._connection.executescript(TABLES)
        elif version in UPGRADES:
            self._connection.executescript(UPGRADES[version])

    def record(self, events: Sequence[Record | Unreadable]) -> list[ReceiptStatus]:
        """Commit events, all or none, in their order: what is to be said about each.

        OK; DUPLICATE for the same body again, for ever; REJECTED for another body under a known
        id, and for one that could not be read. A rejected body leaves an alarm, once.
        """
        now = self._now()
        with self._transaction() as connection:
            return [_recorded(connection, event, now) for event in events]

    def is_known(self, device: str, event_id: str) -> bool:
        """Whether this event has been recorded."""
        with self._reading() as connection:
            return _digest_of(connection, device, event_id) is not None

    def is_recorded(self, device: str, event_id: str, body_sha256: bytes) -> bool:
        """Whether this event has been recorded with this very body."""
        with self._reading() as connection:
            return _digest_of(connection, device, event_id) == body_sha256

    def attendance(self, wanted: Filter, *, limit: int, offset: int = 0) -> list[dict[str, Any]]:
        """Records that fit, the newest first, `limit` of them after the first `offset`."""
        return [
            row | {"signed": bool(row["signed"]), "disagrees": bool(row["disagrees"])}
            for row in self._rows(LIST, wanted.values() | {"limit": limit, "offset": offset})
        ]

    def count(self, wanted: Filter) -> int:
        """How many records fit."""
        return int(self._rows(COUNT, wanted.values())[0]["total"])

    def recorded(self) -> dict[str, list[str]]:
        """Whom and what records are of: `devices` and `employees`, in order, 1,000 of each."""
        names = {"devices": DEVICES, "employees": EMPLOYEES}
        most = {"most": _NAMES_SHOWN}
        return {
            what: [row["name"] for row in self._rows(query, most)] for what, query in names.items()
        }

    def alarms(self) -> list[dict[str, Any]]:
        """What somebody must look at, the newest first, at most 100."""
        return self._rows(
            "SELECT at, device, event_id, what FROM alarm ORDER BY id DESC LIMIT ?",
            (_ALARMS_SHOWN,),
        )

    def add_faces(self, employee: str, space: str, vectors: Sequence[FloatArray]) -> int:
        """Enrol unit vectors; how many faces the employee has in the space now."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO face (employee, space, vector) VALUES (?, ?, ?)",
                [(employee, space, vector.astype("<f4").tobytes()) for vector in vectors],
            )
            connection.execute("UPDATE gallery SET version = version + 1")
            row = connection.execute(
                "SELECT count(*) FROM face WHERE employee = ? AND space = ?", (employee, space)
            ).fetchone()
            return int(row[0])

    def remove_employee(self, employee: str) -> int:
        """Forget an employee's faces; how many there were."""
        with self._transaction() as connection:
            connection.execute("UPDATE gallery SET version = version + 1")
            return connection.execute("DELETE FROM face WHERE employee = ?", (employee,)).rowcount

    def gallery_version(self) -> int:
        """A number that grows with every change of faces, by whichever process."""
        return int(self._rows("SELECT version FROM gallery")[0]["version"])

    def faces(self, space: str) -> tuple[tuple[str, ...], FloatArray]:
        """Owners and unit vectors, float32 (faces, dim), of a space; shape (0, 0) if empty."""
        rows = self._rows("SELECT employee, vector FROM face WHERE space = ? ORDER BY id", (space,))
        if not rows:
            return (), np.empty((0, 0), np.float32)
        matrix = np.stack([np.frombuffer(row["vector"], "<f4") for row in rows])
        return tuple(row["employee"] for row in rows), matrix.astype(np.float32)

    def employees(self) -> list[dict[str, Any]]:
        """Employee, space and number of faces, one for each employee and space."""
        return self._rows(
            "SELECT employee, space, count(*) AS faces FROM face GROUP BY employee, space"
            " ORDER BY employee, space"
        )

    def register_key(self, device: str, key_id: str, key: bytes) -> None:
        """Keep a device's sign key for ever; KeyTakenError when another one has that id."""
        with self._transaction() as connection:
            _keep_key(connection, device, key_id, key)

    def invite(self, code_sha256: bytes, minutes: int) -> None:
        """Let whoever knows a code register one key, once, within so many minutes."""
        now_ms = self._clock.now().utc_ms
        with self._transaction() as connection:
            connection.execute("DELETE FROM invitation WHERE until_ms < ?", (now_ms,))
            connection.execute(
                "INSERT INTO invitation (code_sha256, until_ms) VALUES (?, ?)",
                (code_sha256, now_ms + minutes * 60_000),
            )

    def register_invited(self, device: str, key_id: str, key: bytes, code_sha256: bytes) -> None:
        """Keep a key for a one-time code; the same once more changes nothing.

        NotInvitedError: the code is none of ours, too old, or was used for another key.
        KeyTakenError as of `register_key`; the code can then be used still.
        """
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT until_ms, device, key_id FROM invitation WHERE code_sha256 = ?",
                (code_sha256,),
            ).fetchone()
            used = row is not None and row["device"] is not None
            if row is None or row["until_ms"] < self._clock.now().utc_ms:
                raise NotInvitedError("code: expected one of this server's, got none or an old one")
            if used and (row["device"], row["key_id"]) != (device, key_id):
                raise NotInvitedError("code: expected one that was not used yet, this one was")
            _keep_key(connection, device, key_id, key)
            connection.execute(
                "UPDATE invitation SET device = ?, key_id = ? WHERE code_sha256 = ?",
                (device, key_id, code_sha256),
            )

    def keys(self, device: str) -> dict[str, bytes]:
        """A device's sign keys by key id."""
        rows = self._rows("SELECT key_id, key FROM device_key WHERE device = ?", (device,))
        return {row["key_id"]: row["key"] for row in rows}

    def close(self) -> None:
        """Close the file, once whoever uses it is done."""
        with self._lock:
            self._connection.close()

    def _now(self) -> str:
        seconds, milliseconds = divmod(self._clock.now().utc_ms, 1000)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"the store: expected it to answer, got: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT; rolled back as a whole on any error."""
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk among them.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _rows(
        self, query: str, values: Mapping[str, object] | Sequence[object] = ()
    ) -> list[dict[str, Any]]:
        with self._reading() as connection:
            return [dict(row) for row in connection.execute(query, values)]


def _recorded(
    connection: sqlite3.Connection, event: Record | Unreadable, now: str
) -> ReceiptStatus:
    old = _digest_of(connection, event.device, event.event_id)
    if old == event.body_sha256:
        return ReceiptStatus.DUPLICATE
    if old is None and isinstance(event, Record):
        connection.execute(INSERT, (*values_of(event), now))
        return ReceiptStatus.OK
    what = event.what if isinstance(event, Unreadable) else _OTHER_BODY
    connection.execute(
        "INSERT OR IGNORE INTO alarm (device, event_id, body_sha256, what, at)"
        " VALUES (?, ?, ?, ?, ?)",
        (event.device, event.event_id, event.body_sha256, what, now),
    )
    return ReceiptStatus.REJECTED


def _keep_key(connection: sqlite3.Connection, device: str, key_id: str, key: bytes) -> None:
    connection.execute("INSERT OR IGNORE INTO device_key VALUES (?, ?, ?)", (device, key_id, key))
    row = connection.execute(
        "SELECT key FROM device_key WHERE device = ? AND key_id = ?", (device, key_id)
    ).fetchone()
    if row["key"] != key:
        raise KeyTakenError(
            f"K1: expected the key that {key_id} of this device stands for, got another",
            hint="register a new key under a new id",
        )


def _digest_of(connection: sqlite3.Connection, device: str, event_id: str) -> bytes | None:
    row = connection.execute(
        "SELECT body_sha256 FROM attendance WHERE device = ? AND event_id = ?", (device, event_id)
    ).fetchone()
    return None if row is None else bytes(row["body_sha256"])
