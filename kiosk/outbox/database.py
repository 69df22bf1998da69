"""One SQLite connection as the outbox wants it: settings proven, errors named, transactions whole."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kiosk.errors import OutboxBrokenError, OutboxError, OutboxFullError, OutboxLockedError
from kiosk.outbox.schema import MIGRATIONS, PRAGMAS


def named(error: sqlite3.Error, path: Path) -> OutboxError:
    """The outbox's own error for one of SQLite's."""
    name = str(getattr(error, "sqlite_errorname", "") or type(error).__name__)
    if name.startswith("SQLITE_FULL"):
        return OutboxFullError(
            f"{path}: no space left, nothing was recorded", hint="free space on this disk"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return OutboxLockedError(
            f"{path} is held by another process", hint="stop it, or ask the running daemon"
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return OutboxError(
            f"{path}: a file to write to expected, SQLite says {error}",
            hint="make the folder writable for this user or set paths.state_dir",
        )
    if name.startswith("SQLITE_NOTADB"):
        return OutboxBrokenError(
            f"{path}: an outbox expected, the file is something else",
            hint="move it away; it is never deleted",
        )
    return OutboxBrokenError(f"{path}: {name}: {error}", hint="the file is read anew at a restart")


class Database:
    """The connection. Used by one thread only; the file is open to nobody else meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=0.2
            )
            path.chmod(0o600)
        except sqlite3.Error as error:
            raise named(error, path) from error
        try:
            self._prove_settings()
            self._migrate()
        except (sqlite3.Error, OutboxError) as error:
            self._connection.close()
            raise named(error, path) if isinstance(error, sqlite3.Error) else error from error

    def _prove_settings(self) -> None:
        for name, value, expected in PRAGMAS:
            self._connection.execute(f"PRAGMA {name} = {value}").fetchone()
            got = self._connection.execute(f"PRAGMA {name}").fetchone()
            if str(got[0]).lower() != expected:
                raise OutboxBrokenError(
                    f"{self._path}: PRAGMA {name} {expected} expected, got {got[0]}",
                    hint="this SQLite or file system cannot hold the queue safely",
                )

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise OutboxError(
                f"{self._path}: version {len(MIGRATIONS)} or older expected, got {version}",
                hint="a newer kiosk wrote this file; run that one",
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            with self.transaction():
                for statement in script.split(";"):
                    if statement.strip():
                        self._connection.execute(statement)
                if number == 1:
                    epoch = secrets.token_hex(4)
                    self._connection.execute("INSERT INTO identity VALUES (1, ?)", (epoch,))
                # The record of a step commits with the step.
                self._connection.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE .. COMMIT; rolled back on any error, SQLite's own errors named."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            # SQLite rolls back by itself on some errors; then there is nothing left to undo.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise named(error, self._path) from error
            raise

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, None if there is none."""
        try:
            result: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise named(error, self._path) from error
        return result

    def change(self, statement: str, *values: Any) -> int:
        """Run a statement inside a transaction; how many rows it changed."""
        return self._connection.execute(statement, values).rowcount

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        try:
            self._connection.close()
        except sqlite3.Error as error:
            raise named(error, self._path) from error
