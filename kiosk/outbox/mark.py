"""The high-water mark: the last number given, in a file of its own.

A write-ahead log that is damaged in the middle is cut there by SQLite without a word, and what is
left looks sound. This file knows better. It is written before each commit, directly to the device
and in place; the commit's own sync flushes the device and the mark with it, so that a punch still
costs one sync. Two slots are written in turn: a torn one leaves the other.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from kiosk.errors import OutboxBrokenError, OutboxError, OutboxFullError
from kiosk.outbox.schema import MIGRATIONS
from kiosk.vault import TAG_BYTES

_MAGIC = b"KMRK"
# Magic, generation, standing, version, epoch, begun, given; the keyed hash follows.
_SLOT = struct.Struct("<4sQBH8sQQ")
# A slot has a block of the file system to itself; only its first sector is written.
_SLOT_BYTES = 4096
_WRITTEN_BYTES = 512
_NOT_WRITABLE = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS
}  # fmt: skip


class Standing(Enum):
    """How the last process left the queue."""

    CLEAN = 1
    RUNNING = 2
    DAMAGED = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """What the mark says: of `epoch`, `given` numbers were committed, `begun` is the last tried.

    `version` is that of the tables, as the last process left them.
    """

    standing: Standing
    version: int
    epoch: str
    begun: int
    given: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Numbers of an epoch that the mark knows and the database does not.

    `first` to `last`; `certain` of them were committed. With `certain` 0 the last one was being
    recorded when the process or the power went: nobody can say whether it was called recorded.
    """

    epoch: str
    first: int
    last: int
    certain: int


def loss(reading: Reading, highest: Mapping[str, int]) -> Loss | None:
    """Hold the mark against the highest number of every epoch in the database."""
    known = highest.get(reading.epoch, 0)
    if known >= reading.begun:
        return None
    certain = max(0, reading.given - known)
    return Loss(reading.epoch, known + 1, reading.begun, certain)


class Mark:
    """The file. Made, used and closed by the thread that owns the database."""

    def __init__(self, path: Path, tags: Callable[[bytes], Sequence[bytes]]) -> None:
        """Open it, or make it; `tags` are keyed hashes that nobody else can make, ours first.

        OutboxFullError: no space to make it. OutboxBrokenError: it cannot be read or written.
        """
        self._path, self._tags = path, tags
        self._buffer = mmap.mmap(-1, _SLOT_BYTES)
        self._generation = 0
        with self._errors_named():
            content = _content(path)
            if len(content) != 2 * _SLOT_BYTES:
                _make(path)
            self._open()
        # One that is all zeros was made by a process that came no further.
        self.existed = any(content)
        self.reading = self._newest(content)
        # A later kiosk's file stays in its version.
        self.version = max(len(MIGRATIONS), self.reading.version if self.reading else 0)
        self._now = self.reading or Reading(Standing.RUNNING, self.version, "", 0, 0)
        self._written = self._now

    def announce(self) -> None:
        """Note, before they are touched, that the tables may be of our version from now on.

        A process that ends while it brings them there leaves a file that the kiosk before it must
        not take for damage.
        """
        if self.reading is not None and self.reading.version != self.version:
            self._now = replace(self.reading, standing=Standing.RUNNING, version=self.version)
            self._write(sync=True)

    def begin(self, epoch: str, number: int) -> None:
        """Note that a number is about to be committed; all before it were."""
        self._now = self._running(epoch, number, number - 1)
        self._write(sync=not self._direct)

    def done(self) -> None:
        """Note, for the next write, that the number begun last was committed."""
        self._now = replace(self._now, given=self._now.begun)

    def confirm(self) -> None:
        """Write what was committed since the last write; without a sync, for it is only sooner."""
        if self._now != self._written:
            self._write(sync=False)

    def count(self, epoch: str, given: int) -> None:
        """Begin to count in an epoch of which so many numbers were given; waits for the disk."""
        self._now = self._running(epoch, given, given)
        self._write(sync=True)

    def stand(self, standing: Standing) -> None:
        """Write how the queue stands, and wait until it is on disk."""
        now = self._now
        begun = now.given if standing is Standing.CLEAN else now.begun
        self._now = replace(now, standing=standing, begun=begun)
        self._write(sync=True)

    def close(self) -> None:
        """Close the file as it is."""
        os.close(self._descriptor)

    def _running(self, epoch: str, begun: int, given: int) -> Reading:
        return Reading(Standing.RUNNING, self.version, epoch, begun, given)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            self._descriptor, self._direct = os.open(self._path, flags | os.O_DIRECT), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system in memory has no device to write to.
            self._descriptor, self._direct = os.open(self._path, flags), False

    def _write(self, *, sync: bool) -> None:
        self._generation += 1
        now = self._now
        data = _SLOT.pack(
            _MAGIC,
            self._generation,
            now.standing.value,
            now.version,
            now.epoch.encode("ascii"),
            now.begun,
            now.given,
        )
        data += self._tags(data)[0]
        # Direct writes need memory and lengths in whole sectors.
        self._buffer[: len(data)] = data
        offset = self._generation % 2 * _SLOT_BYTES
        with self._errors_named():
            self._put(offset)
            if sync:
                os.fdatasync(self._descriptor)
        self._written = now

    def _put(self, offset: int) -> None:
        sector = memoryview(self._buffer)[:_WRITTEN_BYTES]
        try:
            os.pwrite(self._descriptor, sector, offset)
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL:
                raise
            # Its device wants larger sectors: from now on by way of the page cache, with a sync.
            os.close(self._descriptor)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._direct = False
            os.pwrite(self._descriptor, sector, offset)
            os.fdatasync(self._descriptor)

    def _newest(self, content: bytes) -> Reading | None:
        """Return the newest slot that authenticates, None if neither does."""
        newest: Reading | None = None
        for offset in (0, _SLOT_BYTES):
            end = offset + _SLOT.size
            data, tag = content[offset:end], content[end : end + TAG_BYTES]
            if len(data) < _SLOT.size or not data.startswith(_MAGIC) or tag not in self._tags(data):
                continue
            _, generation, standing, version, epoch, begun, given = _SLOT.unpack(data)
            if generation > self._generation:
                self._generation = generation
                name = epoch.rstrip(b"\0").decode("ascii")
                newest = Reading(Standing(standing), version, name, begun, given)
        return newest

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise OutboxFullError(
                    f"{self._path}: no space left on its disk; nothing was recorded",
                    hint="free space; what was recorded before is kept",
                ) from error
            if error.errno in _NOT_WRITABLE:
                raise OutboxError(
                    f"{self._path}: expected a file that can be written, got: {error.strerror}",
                    hint="make its folder writable for this user, or set paths.state_dir",
                ) from error
            raise OutboxBrokenError(
                f"{self._path}: {error.strerror or error}; what is on disk is uncertain",
                hint="restart, so that it is read anew; if it comes again, replace the card",
            ) from error


def _content(path: Path) -> bytes:
    """What the file holds, nothing where there is none; of an unreadable one that it was there.

    Its second name keeps it for whoever wants to look: it is made anew.
    """
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    path.rename(path.with_name(f"{path.name}.unreadable"))
    return b"unreadable"


def _make(path: Path) -> None:
    """Write the file whole, once: from then on it needs no space."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(2 * _SLOT_BYTES), 0)
        os.ftruncate(descriptor, 2 * _SLOT_BYTES)
        os.fsync(descriptor)
        os.fsync(folder)
    finally:
        os.close(folder)
        os.close(descriptor)
