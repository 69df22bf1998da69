"""One SQLite connection as the outbox needs it: settings proven, errors named, all or nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kiosk.errors import OutboxBrokenError, OutboxError, OutboxFullError, OutboxLockedError
from kiosk.outbox.schema import APPLICATION_ID, LOCKING_MODE, MIGRATIONS, PRAGMAS

# The low byte of SQLite's extended result codes (https://www.sqlite.org/rescode.html).
_PRIMARY_CODE = 0xFF


class Database:
    """The connection. Made, used and closed by one thread; meanwhile the file is nobody else's.

    After an OutboxBrokenError every further transaction is refused with the same error: pages may
    be clean in memory and absent from the disk, so that only a new process sees what is there.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file and bring it to the newest version.

        OutboxLockedError: another process has it open. OutboxError: it cannot be opened for
        writing, or is another program's or a later kiosk's. OutboxBrokenError: it is damaged.
        """
        self._path = path
        self._broken: OutboxBrokenError | None = None
        _make_private_file(path)
        with self._errors_named():
            # No waiting for a lock: its holder keeps it for as long as it runs.
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0.0)
        try:
            with self._errors_named():
                self._set(*LOCKING_MODE)
                self._check_ours()
                for pragma in PRAGMAS:
                    self._set(*pragma)
            self._migrate()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT; on any error rolled back as a whole.

        OutboxFullError: nothing was changed. OutboxBrokenError: it is not known what is on disk.
        """
        if self._broken is not None:
            raise self._broken
        with self._errors_named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                # Not after a COMMIT, nor where SQLite has rolled back by itself (full disk).
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file; its write-ahead log is folded in."""
        with self._errors_named():
            self._connection.close()

    def _set(self, name: str, value: str, expected: object) -> None:
        """Set a pragma and read it back: SQLite ignores silently what it cannot do."""
        self._connection.execute(f"PRAGMA {name} = {value}").fetchall()
        row = self._connection.execute(f"PRAGMA {name}").fetchone()
        # No row at all: this SQLite was built without memory mapping, which is what is wanted.
        got = 0 if row is None and name == "mmap_size" else row and row[0]
        if got != expected:
            raise OutboxBrokenError(
                f"{self._path}: expected PRAGMA {name} to become {expected}, got {got}",
                hint="this SQLite or file system cannot keep the queue safely; use a local disk",
            )

    def _check_ours(self) -> None:
        """Refuse another program's database before anything in it is changed."""
        version = self._pragma("user_version")
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if self._pragma("application_id") != (APPLICATION_ID if tables or version else 0):
            raise OutboxError(
                f"{self._path}: expected an outbox, got another program's database",
                hint="move it away or set paths.state_dir; nothing in it was changed",
            )
        if version > len(MIGRATIONS):
            raise OutboxError(
                f"{self._path}: expected version {len(MIGRATIONS)} or older, got {version}",
                hint="a later kiosk wrote it: run that version",
            )

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def _migrate(self) -> None:
        applied = self._pragma("user_version")
        for version, statements in enumerate(MIGRATIONS[applied:], start=applied + 1):
            with self.transaction() as connection:
                for statement in statements:
                    connection.execute(statement)
                # The record of a step commits with the step.
                connection.execute(f"PRAGMA user_version = {version}")

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            named = _named(error, self._path)
            if isinstance(named, OutboxBrokenError):
                self._broken = named
            raise named from error


def _make_private_file(path: Path) -> None:
    """Make sure that the file is there and can be written; the log beside it takes its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise OutboxError(
            f"{path}: expected a file that can be written, got: {error.strerror}",
            hint="make its folder writable for this user, or set paths.state_dir",
        ) from error


def _named(error: sqlite3.Error, path: Path) -> OutboxError:
    """Return the outbox's own error for one of SQLite's; what is not known to be harmless stops."""
    # Errors of the Python module itself carry no code of SQLite's.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
    if code == sqlite3.SQLITE_FULL:
        return OutboxFullError(
            f"{path}: no space left on its disk; rolled back, nothing was recorded",
            hint="free space; what was recorded before is kept",
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return OutboxLockedError(
            f"{path}: expected to be its only user, another process has it open",
            hint="stop the other kiosk, or ask the running one",
        )
    if code == sqlite3.SQLITE_NOTADB:
        return OutboxBrokenError(
            f"{path}: expected an outbox, got a file that is no database",
            hint="move it away and keep it; a new one is made at the next start",
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return OutboxBrokenError(
        f"{path}: {name}: {error}; what is on disk is uncertain",
        hint="restart, so that the file is read anew; if it comes again, replace the card",
    )
