"""A disk whose power can be cut: ext4 in an image that a reflink file system can copy in no time.

Why a copy is a power cut. The kiosk writes into an ext4 that is mounted from an image through a
loop device; the image is a file on an XFS, itself in an image. What the kiosk wrote and nobody
synced lies in the page cache of the ext4: it is not in the image, and a copy does not have it.
What the ext4 wrote to its device is in the image file from the moment at which the device said
"done". FICLONE takes the lock that every write to the file takes, writes the file's own cached
pages out and then shares all its blocks: the copy holds every write that was done before, none that
came after, and of the ones in flight each whole or in part. That is what a disk holds whose power
fails and that lies about nothing. The control proves it: with synchronous=NORMAL commits are lost.
Where no XFS can be mounted, the image is copied byte by byte, and again for as long as its device
wrote anything meanwhile: the kiosk is stopped, so that it comes to rest.
What it does not show: a card that says "done" to a flush and has not, or that damages blocks
which nobody wrote.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_FICLONE = 0x40049409
_NO_REFLINK = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV}
# Columns of /sys/block/*/stat.
_WRITES, _IN_FLIGHT = 4, 8
_HOST_MIB = 1536
_DISK_MIB = 48
_HANG_S = 120.0
# Nobody sets it: what is waited for happens in the kernel.
_PAUSE = threading.Event()
_SHARED_MEMORY = Path("/dev/shm")


def scratch() -> Path | None:
    """A folder in memory if it is large enough: a sync there costs nothing; None for the usual."""
    if not os.access(_SHARED_MEMORY, os.W_OK):
        return None
    return _SHARED_MEMORY if shutil.disk_usage(_SHARED_MEMORY).free > _HOST_MIB << 20 else None


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """Mount an image; unmounted at the end."""
    where.mkdir(exist_ok=True)
    _run("mount", "-o", "loop,noatime", image, where)
    try:
        yield where
    finally:
        _run("umount", where)
        _until_let_go(image)


def _until_let_go(image: Path) -> None:
    """Wait until nobody writes to the image: a mount namespace made meanwhile may hold a copy."""
    deadline = time.monotonic() + _HANG_S
    while str(image) in _backing_files():
        if time.monotonic() > deadline:
            raise OSError(f"{image}: expected to be unmounted, somebody else holds it")
        _PAUSE.wait(0.01)


def _backing_files() -> set[str]:
    found = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        # Let go of between the two looks.
        with contextlib.suppress(OSError):
            found.add(file.read_text().strip())
    return found


@contextmanager
def host(folder: Path) -> Iterator[Path]:
    """A reflink file system for images, the folder itself where none can be made."""
    image = folder / "host.img"
    with ExitStack() as stack:
        try:
            _sized(image, _HOST_MIB)
            _run("mkfs.xfs", "-q", "-m", "reflink=1", image)
            where = stack.enter_context(mounted(image, folder / "host"))
        except OSError as error:
            print(f"no reflink file system, copying byte by byte instead: {error}")
            where = folder
        yield where


def new_disk(image: Path) -> None:
    """Make an empty ext4."""
    image.unlink(missing_ok=True)
    _sized(image, _DISK_MIB)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)


def cut(image: Path, copy: Path) -> None:
    """Copy what the disk holds at this moment; whoever writes to it is stopped."""
    with image.open("rb") as source, copy.open("wb") as target:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError as error:
            if error.errno not in _NO_REFLINK:
                raise
            _copy_at_rest(image, copy)


def _copy_at_rest(image: Path, copy: Path) -> None:
    written = None
    while written != (written := _written(image)):
        _run("cp", "--sparse=always", image, copy)


def _written(image: Path) -> int:
    """How many writes the image's device has done; waits until none is under way."""
    (device,) = [
        file.parent.parent
        for file in Path("/sys/block").glob("loop*/loop/backing_file")
        if file.read_text().strip() == str(image)
    ]
    while True:
        counts = (device / "stat").read_text().split()
        if counts[_IN_FLIGHT] == "0":
            return int(counts[_WRITES])


def fill(file: Path) -> None:
    """Write into a file until its disk has no byte left."""
    with file.open("wb", buffering=0) as target:
        for size in (1 << 20, 1):
            with contextlib.suppress(OSError):  # full: what was asked for
                while target.write(b"x" * size):
                    pass
        os.fsync(target.fileno())


def _sized(image: Path, mib: int) -> None:
    with image.open("wb") as file:
        file.truncate(mib << 20)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{command[0]} failed: {done.stderr.strip()}")
