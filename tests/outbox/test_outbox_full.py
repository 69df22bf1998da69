"""A disk that another program has filled: a small file system, and nothing simulated.

Needs root for the mount; each file system ends with its test.
"""

import logging
import os
import subprocess

import pytest

from kiosk.errors import OutboxFullError
from kiosk.outbox import room
from kiosk.outbox.store import Outbox
from kiosk.types import Embedding, Receipt, ReceiptStatus

DISK_MB = 96
PROMISED = 2000


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request, tmp_path):
    """A file system of its own, 96 MB large."""
    if os.geteuid() != 0:
        pytest.skip("to mount a file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "tmpfs":
        mounted = run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder))
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(DISK_MB << 20)
        made = run("mkfs.ext4", "-q", "-m", "0", str(image))
        if made.returncode != 0:
            pytest.skip(f"mkfs.ext4: {made.stderr}")
        mounted = run("mount", "-o", "loop", str(image), str(folder))
    if mounted.returncode != 0:
        pytest.skip(f"mount: {mounted.stderr}")
    yield folder
    assert run("umount", str(folder)).returncode == 0


@pytest.fixture
def open_on(vault, clock, device):
    """Open an outbox in a folder; all are closed at the end."""
    opened = []

    def make(folder):
        outbox = Outbox(
            folder / "outbox.db", vault=vault, device_id=device, signer=None, clock=clock
        )
        outbox.start()
        opened.append(outbox)
        return outbox

    yield make
    for outbox in opened:
        outbox.close(60.0)


def settle_down(outbox):
    """All the upkeep there is to do."""
    while outbox.tend():
        pass


def fill(folder, name="other"):
    """Another program takes every block that it can get; again and again, as one that runs."""
    taken = 0
    with (folder / name).open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 512):
            while True:
                try:
                    written = file.write(bytes(size))
                except OSError:
                    break
                taken += written
                if written < size:
                    break
        os.fsync(file.fileno())
    return taken


def record_until_full(outbox, punches, folder, most=100_000):
    """Punches until one is refused; whatever becomes free meanwhile the other program takes."""
    recorded = []
    while len(recorded) < most:
        punch = punches.make(f"E-{len(recorded) % 300}")
        try:
            outbox.put(punch)
        except OutboxFullError:
            return recorded
        recorded.append(punch.event_id)
        if len(recorded) % 20 == 0:
            fill(folder)
    raise AssertionError("expected a disk that ends")


@pytest.mark.parametrize("dim", [192, 1024])
def test_a_full_disk_still_takes_two_thousand_punches(disk, open_on, punches, caplog, dim, numbers):
    """The ballast gone as well, the reserve holds 2,000; then it is said, and sending goes on.

    Space coming back is noticed without a restart, and the reserve is filled again.
    """
    punches.embedding = Embedding.of(numbers.standard_normal(dim), "test-space")
    outbox = open_on(disk)
    settle_down(outbox)
    (disk / "outbox.ballast").unlink()
    fill(disk)
    recorded = record_until_full(outbox, punches, disk)
    print(f"{dim} values: {len(recorded)} punches on a full disk without ballast")
    assert len(recorded) >= PROMISED
    assert "none in reserve" in outbox.cannot_record
    outbox.tend()
    assert outbox.cannot_record
    assert outbox.room()["used"] > 0.99
    assert [r.levelno for r in caplog.records if r.message == "outbox.cannot_record"] == [50]
    for name in recorded[:300]:
        (envelope,) = outbox.lease(1)
        assert envelope.event_id == name
        outbox.settle(name, Receipt(ReceiptStatus.OK, 0.0))
    outbox.tend()
    assert not outbox.cannot_record
    outbox.put(punches.make())
    (disk / "other").unlink()
    settle_down(outbox)
    assert outbox.room()["reserve"] == 1.0
    assert outbox.room()["ballast"]
    assert outbox.status().pending == len(recorded) - 300 + 1


@pytest.fixture
def numbers():
    import numpy as np

    return np.random.default_rng(3)


def test_without_what_was_kept_a_full_disk_takes_next_to_nothing(disk, open_on, punches):
    """The promise rests on the reserve: an outbox that was never tended records no 2,000."""
    outbox = open_on(disk)
    outbox.put(punches.make())
    fill(disk)
    assert len(record_until_full(outbox, punches, disk)) < PROMISED / 4


def test_the_ballast_goes_first(disk, open_on, punches, caplog):
    """With a full disk the ballast is dropped, loudly, before the reserve is touched."""
    outbox = open_on(disk)
    settle_down(outbox)
    fill(disk)
    while (disk / "outbox.ballast").exists():
        outbox.put(punches.make())
    assert [r.levelno for r in caplog.records if r.message == "outbox.ballast_dropped"] == [50]
    assert outbox.room()["reserve"] == 1.0


def test_it_starts_on_a_full_disk(disk, open_on, punches):
    """A restart, clean or not, needs no space: all is there, and a punch can be recorded."""
    outbox = open_on(disk)
    settle_down(outbox)
    outbox.put(punches.make())
    fill(disk)
    outbox.close(60.0)
    fill(disk)
    again = open_on(disk)
    assert again.status().pending == 1
    for _ in range(200):
        again.put(punches.make())
    assert again.status().pending == 201


def test_warnings_come_at_80_and_95_percent_once_each(outbox, monkeypatch, caplog):
    """Once on the way up, and again only after the disk was emptier."""
    caplog.set_level(logging.INFO)
    for used in (0.5, 0.81, 0.82, 0.79, 0.96, 0.97, 0.5, 0.8):
        monkeypatch.setattr(room, "_disk", lambda _, used=used: room.Disk(1 << 30, used))
        outbox.tend()
    told = [(r.message, r.levelno) for r in caplog.records if r.message.startswith("disk.")]
    filling, nearly = ("disk.filling", logging.WARNING), ("disk.filling", logging.ERROR)
    assert told == [filling, nearly, ("disk.emptier", logging.INFO), filling]
