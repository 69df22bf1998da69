"""SQLite's errors as the outbox's own: which stop it, which are damage, which are want of space."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from kiosk.errors import (
    OutboxBrokenError,
    OutboxDamagedError,
    OutboxError,
    OutboxFullError,
    OutboxLockedError,
)

FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""Damaged text, be it only in the words of an error, comes as the second one."""

# The low byte of SQLite's extended result codes (https://www.sqlite.org/rescode.html).
_PRIMARY_CODE = 0xFF


def refuse_fatal(error: Exception, path: Path) -> None:
    """Raise what is no damage of the file that is read, but trouble of the disk or of memory."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & _PRIMARY_CODE
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}:
        raise named(error, path) from error


def named(error: Exception, path: Path) -> OutboxError:
    """Return the outbox's own error for one of SQLite's; what is not known to be harmless stops."""
    # Errors of the Python module itself carry no code: text that is no UTF-8, for one.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & _PRIMARY_CODE
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
        return OutboxDamagedError(
            f"{path}: expected an outbox, got a file that is no database",
            hint="move it away and keep it; a new one is made at the next start",
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT}:
        return OutboxDamagedError(
            f"{path}: {name}: {error}; it is damaged",
            hint="restart: it is set aside, and what can be trusted is taken over",
        )
    return OutboxBrokenError(
        f"{path}: {name}: {error}; what is on disk is uncertain",
        hint="restart, so that the file is read anew; if it comes again, replace the card",
    )
