"""The file of SQLite's write-ahead log: how full it is, and that its space stays ours.

An insert grows the log before it grows anything else, so on a full disk the log decides. It is
extended beforehand, folded in before it would grow, and outlives the connection that SQLite would
have delete it. Its format: https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import os
from pathlib import Path

from kiosk.errors import OutboxBrokenError
from kiosk.outbox.schema import PAGE_BYTES

FOLD_AT_FRAMES = 4000
"""Folded in as seldom as this: only then can a card that lies about a sync do harm."""

_HEADER_BYTES = 32
_FRAME_BYTES = 24 + PAGE_BYTES
# Beyond the frame at which it is folded in: the largest transactions, and some.
_ROOM_FRAMES = FOLD_AT_FRAMES + 1500
LOG_BYTES = _HEADER_BYTES + _ROOM_FRAMES * _FRAME_BYTES

_SLICE_BYTES = 1 << 18


def kept_log(database: Path) -> Path:
    """The second name of a database's log."""
    return database.with_name(f"{database.name}-wal.kept")


class Log:
    """The log beside one database. Its methods are called by the thread that owns the database."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}-wal")
        # A second name for the same file: SQLite deletes the first one when it closes.
        self._kept = kept_log(database)
        self._descriptor: int | None = None
        self._salts = b""
        self._frames = 0

    def take_back(self) -> None:
        """Before SQLite opens: give a log that lost its name the name again.

        All that it holds is in the database, or belongs there: SQLite reads it anew.
        """
        if not self._kept.exists():
            return
        if self.path.exists():
            self._kept.unlink()
        else:
            self._kept.rename(self.path)

    @property
    def is_open(self) -> bool:
        """Whether SQLite has opened it."""
        return self._descriptor is not None

    def open(self) -> None:
        """Once SQLite has opened it."""
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutboxBrokenError(
                f"{self.path}: expected a log that can be opened, got: {error.strerror}",
                hint="see that the disk is there and can be written; what is on it is kept",
            ) from error

    def frames(self) -> int:
        """Return how many pages it holds since it was begun anew.

        A frame belongs to the log if it repeats the two random numbers of its header.
        """
        salts = self._read(16, 8)
        if salts != self._salts:
            self._salts, self._frames = salts, 0
        while self._read(_HEADER_BYTES + self._frames * _FRAME_BYTES + 8, 8) == salts != b"":
            self._frames += 1
        return self._frames

    def extend(self) -> bool:
        """Write one slice of zeros towards its full size; returns whether it has that size.

        Written, not just allocated: a first write into allocated space can need more space.
        """
        size = os.fstat(self._open_descriptor()).st_size
        if size >= LOG_BYTES:
            return True
        length = min(_SLICE_BYTES, LOG_BYTES - size)
        os.pwrite(self._open_descriptor(), bytes(length), size)
        os.fsync(self._open_descriptor())
        return size + length >= LOG_BYTES

    def keep(self) -> None:
        """Give the file its second name, so that it is still there when SQLite has deleted it."""
        if not self._kept.exists():
            self._kept.hardlink_to(self.path)

    def close(self, *, folded: bool) -> None:
        """Once SQLite has closed: the file goes back to its name.

        `folded`: SQLite may have folded all of it in, and where it then deleted it the log begins
        empty. Without that nothing in it is touched, and the next start reads it.
        """
        if self._descriptor is not None:
            if folded and self._kept.exists() and not self.path.exists():
                os.pwrite(self._descriptor, bytes(_HEADER_BYTES), 0)
                os.fdatasync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        self.take_back()

    def _read(self, offset: int, length: int) -> bytes:
        return os.pread(self._open_descriptor(), length, offset)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("expected a log that was opened, it is closed")
        return self._descriptor
