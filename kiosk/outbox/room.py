"""Space for the next punches, taken of the disk before another program takes it.

Between a punch and a full disk stand, in the order in which they are used: what the disk still
has, the ballast file, and the reserve, rows of nothing in the database whose pages hold punches.
A part of the free pages is never given to punches: the sender needs some, and what it sends frees
more.
"""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiosk.errors import OutboxBrokenError, OutboxError, OutboxFullError
from kiosk.outbox.database import Database
from kiosk.outbox.schema import PAGE_BYTES
from kiosk.vault import sync_folder

log = logging.getLogger(__name__)

BALLAST_FILE = "outbox.ballast"
BALLAST_BYTES = 16 << 20
RESERVE_ROWS = 128
_ROW_PAGES = 64
# Less than this is the sender's: a batch of bodies that are larger than their drafts.
_KEPT_PAGES = 256
_TAKEN_PAGES = 512
# More than this is given back to the disk, so much at a time.
_IDLE_PAGES = 8192
_GIVEN_BACK_PAGES = 64
_ROWS_AT_A_TIME = 8
FILLING, _NEARLY_FULL = 0.80, 0.95
# A warning is over when the disk is that much emptier again: it must not come and go.
_HYSTERESIS = 0.02


@dataclass(frozen=True, slots=True)
class Disk:
    """How the disk of the state folder stands: bytes this user can still have, share in use."""

    free_bytes: int
    used: float


class Room:
    """The space of one queue. Used by the thread that owns the database.

    `cannot_record` says why no punch can be recorded now, "" while they can; any thread may read.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._ballast = folder / BALLAST_FILE
        self._warned = 0.0
        self._log_ready = False
        self.cannot_record = ""
        self.reserve_rows = 0
        self.disk = _disk(folder)

    def make_way(self) -> None:
        """See to it that a punch fits; OutboxFullError when it does not, and nothing more can go.

        What it takes of the database's own it takes last.
        """
        if self._database.free_pages() >= _KEPT_PAGES or self._database.extend(_TAKEN_PAGES):
            return
        if self.drop_ballast() and self._database.extend(_TAKEN_PAGES):
            return
        while self._database.free_pages() < _KEPT_PAGES:
            if not self._spend_a_row():
                raise OutboxFullError(
                    f"{self._folder}: no space left on its disk, and none in reserve;"
                    " nothing was recorded",
                    hint="free space; what was recorded before is kept, and is being sent",
                )

    def drop_ballast(self) -> bool:
        """Give the ballast's space to the queue; False when it is gone already."""
        try:
            self._ballast.unlink()
        except FileNotFoundError:
            return False
        sync_folder(self._folder)
        fields = {"bytes": BALLAST_BYTES, "meaning": "the disk is full, this was the queue's own"}
        log.critical("outbox.ballast_dropped", extra={"fields": fields})
        return True

    def check_for_copy(self) -> None:
        """OutboxError unless the disk takes a copy of the queue without coming near its end."""
        size = self._database.pages() * PAGE_BYTES
        free = _disk(self._folder).free_bytes
        if free < size + 2 * BALLAST_BYTES:
            raise OutboxError(
                f"{self._folder}: expected {size + 2 * BALLAST_BYTES} bytes free for a copy of the"
                f" queue, got {free}",
                hint="free space; nothing was written",
            )

    def refused(self, error: OutboxFullError) -> None:
        """Note that a punch could not be recorded for want of space."""
        if not self.cannot_record:
            log.critical("outbox.cannot_record", extra={"fields": {"reason": str(error)}})
        self.cannot_record = str(error)

    def accepted(self) -> None:
        """Note that a punch was recorded, or could be."""
        if self.cannot_record:
            log.warning("outbox.records_again", extra={"fields": {"pages": self.free_pages()}})
        self.cannot_record = ""

    def free_pages(self) -> int:
        """Pages that punches can have without the disk's."""
        return max(0, self._database.free_pages() - _KEPT_PAGES)

    def document(self) -> dict[str, Any]:
        """The disk and the reserve as `status` prints them; any thread may ask."""
        return {
            "used": round(self.disk.used, 4),
            "free_bytes": self.disk.free_bytes,
            "ballast": self._ballast.exists(),
            "reserve": round(self.reserve_rows / RESERVE_ROWS, 3),
        }

    def tend(self) -> bool:
        """Take one small step: look at the disk, take of it, or give back; whether it did."""
        self.disk = _disk(self._folder)
        self._warn()
        self._see_whether_it_records()
        return not self.cannot_record and self._restore()

    def _see_whether_it_records(self) -> None:
        try:
            self.make_way()
            if self.cannot_record and not self._log_ready:
                self._extend_log()
        except OutboxFullError as error:
            self.refused(error)
        else:
            self.accepted()

    def _extend_log(self) -> None:
        try:
            self._log_ready = self._database.log.extend()
        except OSError as error:
            raise _named(error, self._folder) from error

    def _restore(self) -> bool:
        """The log first: without it nothing can be written at all. Then pages, then ballast."""
        try:
            if not self._log_ready:
                self._extend_log()
            elif self._fill_reserve():
                pass
            elif not self._ballast.exists() and self.disk.free_bytes >= 2 * BALLAST_BYTES:
                self._make_ballast()
            elif self._database.pragma("freelist_count") > _IDLE_PAGES:
                self._database.give_back(_GIVEN_BACK_PAGES)
            else:
                return False
        except OutboxFullError:
            # Told by its share of the disk, and once more by the first punch that does not fit.
            return False
        return True

    def _fill_reserve(self) -> bool:
        """Add rows to the reserve, while the disk has pages for them; whether it did."""
        with self._database.transaction() as connection:
            (rows,) = connection.execute("SELECT count(*) FROM reserve").fetchone()
        self.reserve_rows = rows
        wanted = min(_ROWS_AT_A_TIME, RESERVE_ROWS - rows)
        if wanted <= 0 or not self._database.extend(_TAKEN_PAGES + wanted * _ROW_PAGES):
            return False
        size = (_ROW_PAGES - 2) * PAGE_BYTES
        with self._database.transaction() as connection:
            for _ in range(wanted):
                connection.execute("INSERT INTO reserve (filler) VALUES (zeroblob(?))", (size,))
        self.reserve_rows += wanted
        return True

    def _make_ballast(self) -> None:
        temporary = self._ballast.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(self._ballast)
            sync_folder(self._folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _named(error, self._folder) from error

    def _spend_a_row(self) -> bool:
        with self._database.transaction() as connection:
            gone = connection.execute(
                "DELETE FROM reserve WHERE id = (SELECT max(id) FROM reserve)"
            ).rowcount
            (self.reserve_rows,) = connection.execute("SELECT count(*) FROM reserve").fetchone()
        if gone:
            log.error("outbox.reserve_spent", extra={"fields": {"rows_left": self.reserve_rows}})
        return bool(gone)

    def _warn(self) -> None:
        used = self.disk.used
        reached = max((limit for limit in (FILLING, _NEARLY_FULL) if used >= limit), default=0.0)
        if reached > self._warned:
            level = logging.ERROR if reached == _NEARLY_FULL else logging.WARNING
            fields = {"used": round(used, 3), "free_bytes": self.disk.free_bytes}
            log.log(level, "disk.filling", extra={"fields": fields})
            self._warned = reached
        elif used < self._warned - _HYSTERESIS:
            log.info("disk.emptier", extra={"fields": {"used": round(used, 3)}})
            self._warned = reached


def _disk(folder: Path) -> Disk:
    facts = os.statvfs(folder)
    used = facts.f_blocks - facts.f_bfree
    # As df does: what is kept for root is in nobody's reach, neither used nor free.
    share = used / max(1, used + facts.f_bavail)
    return Disk(facts.f_bavail * facts.f_frsize, share)


def _named(error: OSError, folder: Path) -> OutboxError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutboxFullError(f"{folder}: no space left on its disk", hint="free space")
    return OutboxBrokenError(
        f"{folder}: {error.strerror or error}; what is on disk is uncertain",
        hint="restart; if it comes again, replace the card",
    )
