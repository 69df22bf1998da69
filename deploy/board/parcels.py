"""Files on their way: kept under their hash, taken up where the link was lost."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, TypeGuard

from board.channel import Channel
from board.layout import SPARE_BYTES, Layout
from board.refusal import RefusedError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# No package is nearly so large.
_MOST = 1 << 34
# A link that brings nothing for so long is gone.
_SILENCE_S = 60.0


def have(layout: Layout, files: list[dict[str, Any]]) -> dict[str, int]:
    """How many bytes of each file are here already, by its hash."""
    here = {}
    for file in files:
        path, size = place(layout, file["name"], file["sha256"]), file["size"]
        _check_numbers(file["name"], size)
        whole = path.exists() and _hash_of(path) == file["sha256"]
        here[file["sha256"]] = size if whole else _begun(_part(layout, file["sha256"]), path, size)
    wanted = sum(file["size"] - here[file["sha256"]] for file in files)
    _check_room(layout, wanted)
    return here


def receive(
    layout: Layout, channel: Channel, *, name: str, sha256: str, size: int, offset: int
) -> dict[str, str]:
    """Take the bytes of a file from `offset` on; RefusedError where they do not make that file.

    LinkGoneError: what came is kept, and the next deploy goes on behind it.
    """
    path, part = place(layout, name, sha256), _part(layout, sha256)
    _check_numbers(name, size, offset, part.stat().st_size if part.exists() else 0)
    part.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        left = size - offset
        while left:
            chunk = channel.part(left, _SILENCE_S)
            left -= os.write(descriptor, chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if not _named(part, path):
        raise RefusedError(
            f"{name}: expected the bytes that were announced, got others",
            "the link spoilt them; try again",
        )
    return {"name": name}


def place(layout: Layout, name: str, sha256: str) -> Path:
    """Where a file lies once it is whole: wheels under their own name, for pip reads it."""
    if not _is(_NAME, name) or not _is(_SHA256, sha256):
        raise RefusedError(
            f"expected a plain file name and its hash, got {name!r} and {sha256!r}",
            "nothing was kept of it",
        )
    folder = layout.wheels if name.endswith(".whl") else layout.incoming
    return folder / sha256[:16] / name


def _part(layout: Layout, sha256: str) -> Path:
    return layout.incoming / f"{sha256}.part"


def _is(pattern: re.Pattern[str], word: object) -> bool:
    return isinstance(word, str) and pattern.fullmatch(word) is not None


def _check_numbers(name: str, size: object, offset: object = 0, here: int = 0) -> None:
    """RefusedError unless they are bytes of that file, without a gap behind those that are here."""
    for number, most in ((size, _MOST), (offset, min(size, here) if _count(size) else 0)):
        if not _count(number) or number > most:
            raise RefusedError(
                f"{name}: expected a size and an offset within it, with {here} bytes here;"
                f" got {size!r} and {offset!r}",
                "nothing was kept of it",
            )


def _count(number: object) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _begun(part: Path, path: Path, size: int) -> int:
    """How much of a file is here. All of it, and not named yet: that is seen to now.

    Otherwise nobody would send a byte of it any more, and it would never get its name.
    """
    if not part.exists():
        return 0
    here = part.stat().st_size
    if here < size:
        return here
    path.parent.mkdir(parents=True, exist_ok=True)
    return size if _named(part, path) else 0


def _named(part: Path, path: Path) -> bool:
    """Give what came its name; nothing of it stays where the bytes are others."""
    if _hash_of(part) != part.stem:
        part.unlink()
        return False
    part.chmod(0o644)
    part.replace(path)
    return True


def _check_room(layout: Layout, wanted: int) -> None:
    layout.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(layout.home).free
    # Sent, and then unpacked to about three times that.
    need = 4 * wanted + SPARE_BYTES
    if free < need:
        raise RefusedError(
            f"{layout.home}: expected {need >> 20} MB free for this release, got {free >> 20} MB",
            "make room, or use a larger card; nothing was sent",
        )


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
