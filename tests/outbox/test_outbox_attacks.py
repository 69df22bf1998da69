"""What somebody who wanted to break the queue broke once, each shown to hold now."""

import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest

from kiosk.outbox.mark import Standing
from kiosk.outbox.schema import PAGE_BYTES
from kiosk.types import Trust

DAY_MS = 86_400_000
BOOT = "00000000-0000-4000-8000-00000000000"


def boots(clock, name, utc_ms, trust):
    clock.boot_id, clock.utc_ms, clock.trust = BOOT + name, utc_ms, trust
    clock.boot_ns = 10_000_000_000


@pytest.fixture
def run(reopen, clock, punches):
    """One boot: its clock noted, some punches; the outbox, which the next boot closes."""

    def boot(name, utc_ms, trust, count=0):
        boots(clock, name, utc_ms, trust)
        outbox = reopen()
        outbox.note_time(clock.now(), rtc=False)
        for _ in range(count):
            clock.forward(60)
            outbox.put(punches.make())
        return outbox

    return boot


def sent(outbox):
    return [json.loads(envelope.body) for envelope in outbox.lease(100)]


def test_a_flipped_byte_in_an_index_dates_no_punch_by_another_boot(run, clock, path):
    """SQLite's quick check says ok, and a look-up would be answered from the index alone."""
    start = clock.utc_ms
    run("1", start, Trust.SYNCED, 1)
    run("2", start + 1000, Trust.UNSYNCED, 1)
    run("3", start + 30 * DAY_MS, Trust.SYNCED).close(10.0)
    with sqlite3.connect(path) as file:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_boot_1'"
        (page,) = file.execute(query).fetchone()
    file.close()
    data = bytearray(path.read_bytes())
    at = data.index((BOOT + "2").encode(), (page - 1) * PAGE_BYTES) + len(BOOT) + 1
    assert data[at] == 2
    data[at] = 3
    path.write_bytes(data)
    second = sent(run("3", start + 30 * DAY_MS + 60_000, Trust.SYNCED))[1]
    assert second["CLK"] == "estimated"
    assert second["TS1_MIN"] < "2026-09-22" < second["TS1_MAX"]


def test_a_moment_dates_only_its_own_boot(run, clock, ask):
    """A boot that is given the number of one that was lost is not dated by its moments."""
    start = clock.utc_ms
    outbox = run("1", start, Trust.SYNCED)
    ask(outbox, "UPDATE boot SET boot_id = 'another' WHERE boot_id = ?", BOOT + "1")
    outbox = run("2", start + 9 * DAY_MS, Trust.UNSYNCED, 1)
    ask(outbox, "UPDATE boot SET boot_id = ? WHERE boot_id = 'another'", "x")
    (message,) = sent(outbox)
    assert message["CLK"] == "estimated"
    assert message["TS1_MIN"] == "1970-01-01T00:00:00.000Z"


class PowerCut(BaseException):
    """Nothing after this happens."""


@pytest.mark.parametrize("at", range(1, 5))
def test_a_power_cut_in_a_salvage_loses_nothing(build, clock, punches, path, monkeypatch, at):
    """Cut after each change of a name: the next start has all that waits."""
    outbox = build()
    outbox.start()
    for _ in range(5):
        outbox.put(punches.make())
    outbox.close(10.0)
    outbox = build()
    outbox.start()
    for _ in range(20):
        outbox.put(punches.make())
    outbox._owner.ask(lambda: outbox._queue.mark.stand(Standing.DAMAGED))
    left = path.parent / "left"
    left.mkdir()
    for file in path.parent.glob("outbox*"):
        (left / file.name).write_bytes(file.read_bytes())
    outbox.close(10.0)
    for file in path.parent.glob("outbox*"):
        file.unlink()
    for file in left.iterdir():
        file.rename(path.parent / file.name)
    count = 0
    for name in ("rename", "hardlink_to", "unlink"):
        real = getattr(Path, name)

        def cut(self, *arguments, real=real, **named):
            nonlocal count
            done = real(self, *arguments, **named)
            if ("wreck" not in self.name and "new" not in self.name) or real.__name__ == "rename":
                count += 1
                if count == at:
                    raise PowerCut
            return done

        monkeypatch.setattr(Path, name, cut)
    outbox = build()
    with pytest.raises(PowerCut):
        outbox.start()
    monkeypatch.undo()
    outbox = build()
    outbox.start()
    assert outbox.status().pending == 25
    outbox.close(10.0)


def fill(file):
    """Until the disk takes no byte more."""
    with file.open("wb", buffering=0) as other:
        while True:
            try:
                other.write(bytes(4096))
            except OSError:
                return


def test_a_damaged_queue_on_a_full_disk_starts(tmp_path, vault, clock, device, punches):
    """The ballast is there for this; without it the start says what is missing and how much."""
    if os.geteuid() != 0:
        pytest.skip("to mount a file system takes root")
    from kiosk.outbox.store import Outbox
    from outbox.test_outbox_full import run as command

    folder = tmp_path / "disk"
    folder.mkdir()
    assert command("mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", folder).returncode == 0

    def build():
        file = folder / "outbox.db"
        return Outbox(file, vault=vault, device_id=device, signer=None, clock=clock)

    try:
        outbox = build()
        outbox.start()
        while outbox.tend():
            pass
        for _ in range(30):
            outbox.put(punches.make())
        outbox._owner.ask(lambda: outbox._queue.mark.stand(Standing.DAMAGED))
        outbox.close(10.0)
        fill(folder / "other")
        outbox = build()
        outbox.start()
        assert outbox.status().pending == 30
        outbox.close(10.0)
    finally:
        assert command("umount", folder).returncode == 0


class Unreadable:
    """The card does not give back one block of one file: reads that touch it fail with EIO."""

    def __init__(self, monkeypatch, path, block):
        self.path, pread, read_bytes = path, os.pread, Path.read_bytes

        def failing_pread(descriptor, size, at):
            name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            if name == str(path) and at // 4096 == block:
                raise OSError(errno.EIO, "Input/output error")
            return pread(descriptor, size, at)

        def failing_read(file):
            if file == path and self.path is not None:
                raise OSError(errno.EIO, "Input/output error")
            return read_bytes(file)

        monkeypatch.setattr(os, "pread", failing_pread)
        monkeypatch.setattr(Path, "read_bytes", failing_read)


def test_a_block_that_cannot_be_read_costs_what_is_on_it(build, punches, path, monkeypatch):
    """Salvage copies what the card still gives back, zeros for the rest, and starts."""
    outbox = build()
    outbox.start()
    for _ in range(30):
        outbox.put(punches.make())
    outbox._owner.ask(lambda: outbox._queue.mark.stand(Standing.DAMAGED))
    outbox._owner.close(lambda: None, 10.0)
    Unreadable(monkeypatch, path, 1000)
    outbox = build()
    outbox.start()
    assert outbox.status().pending == 30
    outbox.close(10.0)


def test_a_mark_that_cannot_be_read_is_made_anew(build, punches, path, monkeypatch, caplog):
    """It is set aside under another name; whether anything was lost is told as unknown."""
    outbox = build()
    outbox.start()
    outbox.put(punches.make())
    outbox.close(10.0)
    mark = path.parent / "outbox.mark"
    Unreadable(monkeypatch, mark, 0)
    outbox = build()
    outbox.start()
    assert outbox.status().pending == 1
    outbox.close(10.0)
    assert (path.parent / "outbox.mark.unreadable").exists()
    assert "outbox.mark_lost" in [record.message for record in caplog.records]
