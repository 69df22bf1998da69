"""What a disk may hold after its power was cut: many disks, from the log of one that was used."""

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from system.machine import Disk
from system.packages import run

# The format of the kernel's dm-log-writes, which QEMU's blklogwrites keeps to.
_MAGIC = 0x6A736677736872
_HEADER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4


class Cut(NamedTuple):
    """One disk. Whatever was safe when the log had `offset` bytes must be on it."""

    index: int
    path: Path
    offset: int


@dataclass(frozen=True)
class _Entry:
    start: int
    data: int
    size: int
    flags: int
    offset: int


def formatted(path: Path, size: str = "64M") -> Disk:
    """A second disk with an empty ext4."""
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "data", path, size)
    return Disk(path)


def crash_images(disk: Disk, folder: Path, count: int, seed: int) -> Iterator[Cut]:
    """Power cuts at `count` places of the log, from the first to the last.

    A flush makes everything before it safe. Of what was written after the last one, any part may
    have reached the disk: a random half does. All have the same path; each is gone with the next.
    """
    chance = random.Random(seed)
    entries = list(_entries(disk.log))
    flushes = [number for number, entry in enumerate(entries) if entry.flags & _FLUSH]
    assert flushes, "a disk that was flushed expected"
    places = sorted(chance.randint(flushes[0] + 1, len(entries)) for _ in range(count))
    safe, image = folder / "safe.img", folder / "crash.img"
    _copy(disk.before, safe)
    done = 0
    with disk.log.open("rb") as log:
        for index, place in enumerate(places):
            last = max(flush for flush in flushes if flush < place)
            _apply(log.fileno(), safe, entries[done:last])
            done = last
            _copy(safe, image)
            later = entries[last:place]
            kept = [one for one in later if one.flags & _FUA or chance.random() < 0.5]
            _apply(log.fileno(), image, kept)
            offset = entries[place].offset if place < len(entries) else disk.log.stat().st_size
            yield Cut(index, image, offset)


def contents(image: Path, folder: Path) -> Path:
    """The files on a disk as the next boot would find them, below `folder`; nothing is mounted."""
    repaired = subprocess.run(["e2fsck", "-fy", image], capture_output=True, text=True, check=False)
    # 1 and 2 say that something was put right, as it is after each cut.
    assert repaired.returncode in {0, 1, 2}, repaired.stdout
    folder.mkdir(parents=True)
    run("debugfs", "-R", f"rdump / {folder}", image)
    return folder


def _entries(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as log:
        magic, _, _, sector = _HEADER.unpack(log.read(_HEADER.size))
        assert magic == _MAGIC, "a log of writes expected"
        end = path.stat().st_size
        offset = sector
        while offset + sector <= end:
            log.seek(offset)
            start, sectors, flags, _ = _ENTRY.unpack(log.read(_ENTRY.size))
            if not sectors and not flags:
                break
            size = 0 if flags & _DISCARD else sectors * sector
            data = offset + sector
            if data + size > end:
                break
            yield _Entry(start * sector, data, size, flags, offset)
            offset = data + size


def _apply(log: int, image: Path, entries: list[_Entry]) -> None:
    target = os.open(image, os.O_WRONLY)
    try:
        for entry in entries:
            os.pwrite(target, os.pread(log, entry.size, entry.data), entry.start)
    finally:
        os.close(target)


def _copy(source: Path, target: Path) -> None:
    """Mostly holes, which are not read."""
    run("cp", "--sparse=auto", source, target)
