"""A disk with a cache of its own loses power: what was not synced is there, or not, or in part.

A kiosk's life is recorded with strace: every change to a file, every sync, every word of its
account. For a moment in that life a folder is made as such a disk may leave it: what a file was
synced with is in it; of what came after, each 512-byte sector by itself is there or is not; of new,
removed and renamed files those up to some moment since the folder was synced. That is harder than
a power cut on ext4 (`faults.disk`), which keeps some order that SQLite does not ask for.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults.account import Said, read
from faults.nursery import Nursery
from faults.strace import Grip, watch
from faults.worker import Order

SECTOR = 512
_CALLS = (
    "openat,write,pwrite64,pwritev,pwritev2,writev,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,unlink,unlinkat,rename,renameat,renameat2,link,linkat,copy_file_range,sendfile"
)
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_TEXT = r'"((?:\\x[0-9a-f]{2})*)"'
_HELD = r"^(\d+)<((?:\\x[0-9a-f]{2})*)>"


@dataclass(frozen=True)
class Change:
    """One call: `name` and its file, and what else it said; `value` is what it returned."""

    name: str
    path: str
    texts: tuple[bytes, ...]
    numbers: tuple[int, ...]
    flags: str


def record(nursery: Nursery, folder: Path, order: Order) -> list[Change]:
    """Run a kiosk in an empty folder; every change it makes below `folder`, in order."""
    log = folder / "log"
    options = ("-f", "-xx", "-s", str(1 << 20), "-e", f"trace={_CALLS}")
    watched = watch(nursery, order, Grip("start", "main"), log, *options)
    if watched.status != 0:
        raise AssertionError(f"expected the life to end well, got status {watched.status}")
    changes = (_change(line) for line in watched.lines)
    return [one for one in changes if one is not None and one.path.startswith(f"{folder}/")]


def _change(line: str) -> Change | None:
    found = _LINE.match(line)
    if found is None or int(found[3]) < 0:
        return None
    name, said = found[1], found[2]
    texts = tuple(_bytes(text) for text in re.findall(_TEXT, said))
    held = re.match(_HELD, said)
    path = _bytes(held[2]) if held else texts[0]
    rest = re.sub(_TEXT, "", re.sub(r"<[^>]*>", "", said))
    numbers = tuple(int(n) for n in re.findall(r"(?<=, )\d+\b", rest))
    return Change(name, path.decode(), texts, numbers, rest)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _File:
    """What is safe, and what was written since."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes] | int] = field(default_factory=list)
    end: int = 0

    def sync(self) -> None:
        for one in self.since:
            _apply(self.safe, one)
        self.since.clear()

    def left(self, chance: random.Random, share: float) -> bytes:
        """Its bytes after the cut, when a sector is there with probability `share`."""
        data = bytearray(self.safe)
        for one in self.since:
            for part in _sectors(one):
                if chance.random() < share:
                    _apply(data, part)
        return bytes(data)


def _sectors(one: tuple[int, bytes] | int) -> Iterator[tuple[int, bytes] | int]:
    if isinstance(one, int):
        yield one
        return
    start, data = one
    while data:
        size = SECTOR - start % SECTOR
        yield start, data[:size]
        start, data = start + size, data[size:]


def _apply(data: bytearray, one: tuple[int, bytes] | int) -> None:
    if isinstance(one, int):
        data[one:] = bytes(max(0, one - len(data)))
        return
    start, new = one
    data.extend(bytes(max(0, start - len(data))))
    data[start : start + len(new)] = new


class Disk:
    """A folder on that disk, to which changes are made one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files: dict[str, _File] = {}
        self._nameless: dict[str, _File] = {}
        self._safe_names: dict[str, _File] = {}
        self._names_since: list[dict[str, _File]] = []

    def change(self, one: Change) -> None:
        """Make a change; one that this disk does not know is an error, not a guess."""
        if one.path == self._folder:
            if one.name in {"fsync", "fdatasync"}:
                self._safe_names = dict(self._files)
                self._names_since.clear()
            return
        getattr(self, f"_{one.name}")(one)

    def leave(self, into: Path, chance: random.Random) -> None:
        """Write into an empty folder what a cut at this moment leaves."""
        share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        names = chance.choice([self._safe_names, *self._names_since])
        for path, file in names.items():
            target = into / Path(path).relative_to(self._folder)
            target.write_bytes(file.left(chance, share))
            target.chmod(0o600)

    def _of(self, one: Change) -> _File:
        return (self._nameless if "(deleted)" in one.flags else self._files)[one.path]

    def _renamed(self) -> None:
        self._names_since.append(dict(self._files))

    def _openat(self, one: Change) -> None:
        path = one.texts[-1].decode()
        if path not in self._files and "O_CREAT" in one.flags:
            self._files[path] = _File()
            self._renamed()
        if path in self._files:
            self._files[path].end = 0
            if "O_TRUNC" in one.flags:
                self._files[path].since.append(0)

    def _pwrite64(self, one: Change) -> None:
        _, offset = one.numbers[-2:]
        self._of(one).since.append((offset, one.texts[0]))

    def _write(self, one: Change) -> None:
        file = self._of(one)
        file.since.append((file.end, one.texts[0]))
        file.end += len(one.texts[0])

    def _ftruncate(self, one: Change) -> None:
        self._of(one).since.append(one.numbers[-1])

    def _fallocate(self, one: Change) -> None:
        # Space, and with mode 0 a longer file of zeros.
        offset, size = one.numbers[-2:]
        file = self._of(one)
        whole = bytearray(file.safe)
        for before in file.since:
            _apply(whole, before)
        if len(whole) < offset + size and "KEEP_SIZE" not in one.flags:
            file.since.append(offset + size)

    def _fdatasync(self, one: Change) -> None:
        self._of(one).sync()

    _fsync = _fdatasync

    def _unlink(self, one: Change) -> None:
        path = one.texts[-1].decode()
        # It may still be open and written to, and be there under its name after the cut.
        self._nameless[path] = self._files.pop(path)
        self._renamed()

    _unlinkat = _unlink

    def _rename(self, one: Change) -> None:
        old, new = (text.decode() for text in one.texts)
        self._files[new] = self._files.pop(old)
        self._renamed()

    _renameat = _renameat2 = _rename

    def _link(self, one: Change) -> None:
        old, new = (text.decode() for text in one.texts)
        self._files[new] = self._files[old]
        self._renamed()

    _linkat = _link


class Life:
    """A recorded life, of which a moment can be called back."""

    def __init__(self, nursery: Nursery, folder: Path, order: Order) -> None:
        self._files, self._account = Path(order.folder), Path(order.account)
        self._changes = record(nursery, folder, order)
        self._words = folder / "words"

    def __len__(self) -> int:
        return len(self._changes)

    def cut(self, moment: int, into: Path, chance: random.Random) -> Said:
        """Leave in `into` what a cut before that change leaves; returns what was said by then."""
        disk = Disk(self._files)
        words = b""
        for one in self._changes[:moment]:
            if one.path == str(self._account):
                words += one.texts[0] if one.name == "write" else b""
            else:
                disk.change(one)
        disk.leave(into, chance)
        self._words.write_bytes(words)
        return read(self._words)
