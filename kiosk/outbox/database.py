"""One SQLite connection as the outbox needs it: settings proven, errors named, all or nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from kiosk.errors import (
    OutboxBrokenError,
    OutboxDamagedError,
    OutboxError,
    OutboxFullError,
)
from kiosk.outbox.faults import FAULTS, named, refuse_fatal
from kiosk.outbox.schema import APPLICATION_ID, LOCKING_MODE, MIGRATIONS, PAGE_BYTES, PRAGMAS
from kiosk.outbox.wal import FOLD_AT_FRAMES, Log

# In KiB, negative as SQLite wants it: ids go into their index in no order.
_SALVAGE_CACHE = -48_000
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
_COLUMNS = """
    SELECT m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk
    FROM sqlite_schema AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'
"""
# Pages of a backup between two looks for other work: a tenth of a second on a slow card.
_BACKUP_PAGES = 1024


class Database:
    """The connection. Made, used and closed by one thread; meanwhile the file is nobody else's.

    After an OutboxBrokenError every further transaction is refused with the same error: pages may
    be clean in memory and absent from the disk, so that only a new process sees what is there.
    """

    broken: OutboxBrokenError | None
    """What made it refuse everything, None while it is well."""
    opened_at: int
    """The version in which the file was found, 0 for one that was just made."""

    def __init__(self, path: Path, *, left_at: int | None = None) -> None:
        """Open or make the file and bring it to the newest version.

        `left_at` is the version in which our last process left it, None where nothing says that
        it ever was ours; what it cannot be after that is damage. OutboxLockedError: another
        process has it open. OutboxError: it cannot be opened for writing, or is another
        program's or a later kiosk's. OutboxDamagedError: it is damaged.
        """
        self._path = path
        self._left_at = left_at
        self.broken = None
        self.log = Log(path)
        self.log.take_back()
        # Kept open as long as the connection: to close it drops SQLite's locks on the file.
        self._descriptor = _private_file(path)
        try:
            with self._errors_named():
                # No waiting for a lock: its holder keeps it for as long as it runs.
                self._connection = sqlite3.connect(path, isolation_level=None, timeout=0.0)
        except BaseException:
            os.close(self._descriptor)
            raise
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        with self._errors_named():
            self._set(*LOCKING_MODE)
            self._check_ours()
            self._make_vacuumable()
            for pragma in PRAGMAS:
                self._set(*pragma)
            self.log.open()
        self._migrate()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT; on any error rolled back as a whole.

        OutboxFullError: nothing was changed. OutboxBrokenError: it is not known what is on disk.
        """
        if self.broken is not None:
            raise self.broken
        with self._errors_named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                # Not after a COMMIT, nor where SQLite has rolled back by itself (full disk).
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        if self.log.frames() >= FOLD_AT_FRAMES:
            self._fold_after_commit()

    def fold(self) -> None:
        """Write the log's pages into the database; it then begins anew.

        OutboxFullError: the database could not grow, the log keeps everything.
        """
        with self._errors_named():
            row = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if row[0] or row[1] != row[2]:
                raise OutboxBrokenError(
                    f"{self._path}: expected a log folded in whole, got {row[2]} of {row[1]} pages",
                    hint="another process reads the file: end it",
                )

    def free_pages(self) -> int:
        """Return how many pages can be written before the file must take more of the disk."""
        beyond = os.fstat(self._descriptor).st_size // PAGE_BYTES - self.pages()
        return self.pragma("freelist_count") + max(0, beyond)

    def pages(self) -> int:
        """Return the size of the database, free pages in it included."""
        return self.pragma("page_count")

    def extend(self, pages: int) -> bool:
        """Take so many pages of the disk beyond the end; False if it has not so many."""
        size = (self.pages() + pages) * PAGE_BYTES
        try:
            os.posix_fallocate(self._descriptor, 0, size)
        except OSError:
            # Whatever the reason: these pages cannot be had, and are not counted on.
            return False
        return True

    def give_back(self, pages: int) -> None:
        """Return so many free pages to the disk."""
        with self._errors_named():
            self._connection.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()

    def pragma(self, name: str) -> int:
        """Return the number that a pragma reads."""
        with self._errors_named():
            (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def check_schema(self) -> None:
        """OutboxDamagedError unless the tables are exactly those of this version.

        A later version's have at least every column of this one's.
        """
        ahead = self.pragma("user_version") > len(MIGRATIONS)
        query = _COLUMNS if ahead else _SCHEMA
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as plan:
            for statements in MIGRATIONS:
                for statement in statements:
                    plan.execute(statement)
            expected = plan.execute(query).fetchall()
        with self._errors_named():
            found = self._connection.execute(query).fetchall()
        if set(expected) - set(found) if ahead else expected != found:
            raise OutboxDamagedError(
                f"{self._path}: expected the tables of version {len(MIGRATIONS)}, got others"
            )

    def copy_to(self, path: Path, give_way: Callable[[], None]) -> None:
        """Write a whole copy of the file while it is in use; `give_way` is called now and then.

        What is committed in between is in the copy. OutboxError: it could not be written; that
        says nothing of the file itself.
        """
        try:
            with closing(sqlite3.connect(path)) as copy:
                self._connection.backup(
                    copy, pages=_BACKUP_PAGES, progress=lambda *_: give_way(), sleep=0
                )
        except sqlite3.Error as error:
            raise OutboxError(
                f"{path}: expected room for a copy of {self._path}, got: {error}",
                hint="free space; the queue itself goes on as before",
            ) from error

    def check(self, table: str) -> None:
        """OutboxDamagedError if SQLite's quick check finds fault with a table."""
        with self._errors_named():
            found = self._connection.execute(f"PRAGMA quick_check({table})").fetchall()
            if found != [("ok",)]:
                raise OutboxDamagedError(f"{self._path}: {table}: {found[0][0]}")

    @property
    def migrated(self) -> bool:
        """Whether this opening brought the file to a newer version, or made it."""
        return self.opened_at < len(MIGRATIONS)

    def close(self) -> None:
        """Close the file; its log is folded in, and stays for the next start."""
        try:
            with self._errors_named():
                if self.log.is_open:
                    self.log.keep()
                self._connection.close()
        finally:
            self.log.close(folded=self.broken is None)
            os.close(self._descriptor)

    def attach(self, wreck: Path) -> bool:
        """Open another database beside this one, as `wreck`; False if it cannot be read at all.

        What refers to a row that cannot be read may come over: whoever salvages sees to it.
        """
        with self._errors_named():
            self._set("foreign_keys", "OFF", 0)
            self._set("cache_size", str(_SALVAGE_CACHE), _SALVAGE_CACHE)
        opened = self.salvage("ATTACH ? AS wreck", (str(wreck),)) is not None
        return opened and self.peek("SELECT 1 FROM wreck.sqlite_schema LIMIT 1") != []

    def peek(self, query: str) -> list[Any]:
        """Return all rows of a query, none where they cannot be read."""
        try:
            return self._connection.execute(query).fetchall()
        except FAULTS as error:
            refuse_fatal(error, self._path)
            return []

    def salvage(self, statement: str, values: tuple[object, ...]) -> int | None:
        """Run a statement that reads from `wreck`; returns the rows it changed.

        None, with nothing changed, when that cannot be read or does not fit the tables here.
        """
        try:
            changed = self._connection.execute(statement, values).rowcount
        except FAULTS as error:
            refuse_fatal(error, self._path)
            return None
        if self.log.frames() >= FOLD_AT_FRAMES:
            self.fold()
        return changed

    def _fold_after_commit(self) -> None:
        """What was committed stays so, whatever comes of this: the next transaction is told."""
        try:
            self.fold()
        except OutboxFullError:
            # The log grows instead, if it can; if not, the next commit is refused.
            return
        except OutboxBrokenError as error:
            self.broken = error

    def _set(self, name: str, value: str, expected: object) -> None:
        """Set a pragma and read it back: SQLite ignores silently what it cannot do.

        One that stands already is left alone: to set it again may write to the file.
        """
        read = f"PRAGMA {name}"
        if self._connection.execute(read).fetchone() == (expected,):
            return
        self._connection.execute(f"PRAGMA {name} = {value}").fetchall()
        row = self._connection.execute(read).fetchone()
        # No row at all: this SQLite was built without memory mapping, which is what is wanted.
        got = 0 if row is None and name == "mmap_size" else row and row[0]
        if got != expected:
            raise OutboxBrokenError(
                f"{self._path}: expected PRAGMA {name} to become {expected}, got {got}",
                hint="this SQLite or file system cannot keep the queue safely; use a local disk",
            )

    def _check_ours(self) -> None:
        """Refuse another program's database before anything in it is changed."""
        version = self.opened_at = self.pragma("user_version")
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if self.pragma("application_id") != (APPLICATION_ID if tables or version else 0):
            raise self._not_ours()(
                f"{self._path}: expected an outbox, got another program's database",
                hint="move it away or set paths.state_dir; nothing in it was changed",
            )
        if version > len(MIGRATIONS) and not self._takes_us():
            raise (OutboxError if version == self._left_at else self._not_ours())(
                f"{self._path}: expected version {len(MIGRATIONS)} or older, got {version}",
                hint="a later kiosk wrote it: run that version",
            )

    def _takes_us(self) -> bool:
        """Whether a later kiosk's file says that this version can go on with it.

        A later kiosk notes its version in our mark before it touches the file; without that the
        number is damage.
        """
        if self._left_at not in (None, self.opened_at):
            return False
        named = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'reader'"
        if self._connection.execute(named).fetchone() is None:
            return False
        row = self._connection.execute("SELECT least FROM reader").fetchone()
        return row is not None and row[0] <= len(MIGRATIONS)

    def _not_ours(self) -> type[OutboxError]:
        return OutboxError if self._left_at is None else OutboxDamagedError

    def _make_vacuumable(self) -> None:
        """A file of an earlier kiosk is written anew, once: its free pages could not be told."""
        if self.pragma("user_version") and not self.pragma("auto_vacuum"):
            self._connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._connection.execute("VACUUM")

    def _migrate(self) -> None:
        applied = self.opened_at
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
        except FAULTS as error:
            problem = named(error, self._path)
            self._note(problem)
            raise problem from error
        except OutboxBrokenError as error:
            self._note(error)
            raise

    def _note(self, error: OutboxError) -> None:
        """Remember what broke it; the log is kept even if the process just ends."""
        if isinstance(error, OutboxBrokenError) and self.broken is None:
            self.broken = error
            if self.log.path.exists():
                self.log.keep()


def _private_file(path: Path) -> int:
    """Make sure that the file is there and can be written; the log beside it takes its mode."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutboxError(
            f"{path}: expected a file that can be written, got: {error.strerror}",
            hint="make its folder writable for this user, or set paths.state_dir",
        ) from error
