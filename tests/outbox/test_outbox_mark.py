"""The high-water mark: what a log that was cut takes with it does not go unnoticed."""

import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kiosk.outbox import opening
from kiosk.outbox.mark import Loss, Mark, Reading, Standing, loss
from kiosk.outbox.schema import MIGRATIONS
from kiosk.vault import Vault

VERSION = len(MIGRATIONS)
FRAME = 24 + 1024

# Records so many punches and is killed before it closes, so that all of them are in the log.
CHILD = """
import os, sys
sys.path.insert(0, sys.argv[2])
import punching
from pathlib import Path
from kiosk.outbox.store import Outbox
from kiosk.vault import Vault

clock = punching.StillClock()
punches = punching.Punches(clock)
outbox = Outbox(Path(sys.argv[1]), vault=Vault(bytes(range(32))), device_id=punching.DEVICE,
                signer=None, clock=clock)
outbox.start()
for _ in range(int(sys.argv[3])):
    print(outbox.put(punches.make()), flush=True)
os._exit(0)
"""


@pytest.fixture
def killed(path):
    """An outbox whose process ended without closing it; returns the numbers it gave."""

    def run(count):
        command = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.split()

    return run


def cut(path, part):
    """Flip one bit of the log, this far into the frames that it holds."""
    log = path.with_name(path.name + "-wal")
    data = bytearray(log.read_bytes())
    salts = data[16:24]
    frames = 0
    while data[32 + frames * FRAME + 8 : 32 + frames * FRAME + 16] == salts:
        frames += 1
    data[32 + int(frames * part) * FRAME + 500] ^= 1
    log.write_bytes(data)


def messages(caplog, name):
    return [(r.levelname, r.fields) for r in caplog.records if r.message == name]


def test_a_log_cut_in_the_middle_is_noticed(killed, reopen, path, punches, caplog):
    """The loss is critical and has its bounds; numbers go on under a new name; the log is kept."""
    given = killed(20)
    cut(path, 0.5)
    damaged = path.with_name(path.name + "-wal").read_bytes()
    outbox = reopen(signer=None)
    left = outbox.status().pending
    assert 0 < left < 20
    ((level, told),) = messages(caplog, "outbox.lost")
    assert level == "CRITICAL"
    epoch = given[0].split(":")[0]
    assert (told["epoch"], told["first"], told["last"]) == (epoch, left + 1, 20)
    # The last one was noted as begun; that it was committed too would have been noted next.
    assert told["certain"] == 20 - left - 1
    assert Path(told["kept"]).read_bytes() == damaged
    punches.rng = random.Random(9)
    seq = outbox.put(punches.make())
    assert seq.endswith(":1")
    assert seq.split(":")[0] != epoch
    outbox.settle(outbox.lease(1)[0].event_id, receipt())
    caplog.clear()
    reopen(signer=None)
    assert messages(caplog, "outbox.lost") == []


def receipt():
    from kiosk.types import Receipt, ReceiptStatus

    return Receipt(ReceiptStatus.OK, 0.0)


def test_without_the_mark_the_same_cut_goes_unnoticed(killed, reopen, path, caplog, monkeypatch):
    """SQLite says nothing of it: the file is sound, and the numbers would be given again."""
    monkeypatch.setattr(opening, "loss", lambda *_: None)
    given = killed(20)
    cut(path, 0.5)
    outbox = reopen(signer=None)
    left = outbox.status().pending
    assert left < 20
    assert caplog.records == []
    assert outbox.status().epoch == given[0].split(":")[0]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_an_end_without_a_fault_loses_nothing_and_says_nothing(killed, reopen, caplog, count):
    """After a kill between two punches nothing is missing, and numbering goes on."""
    given = killed(count)
    outbox = reopen(signer=None)
    assert (outbox.status().pending, outbox.status().highest) == (count, count)
    assert [name.split(":")[0] for name in given] == [outbox.status().epoch] * count
    assert [r.message for r in caplog.records if r.levelname != "INFO"] == []


def test_an_older_copy_of_the_file_is_noticed(reopen, punches, path, caplog):
    """A queue put back from a backup lacks what was recorded since; that is told, not hidden."""
    outbox = reopen()
    outbox.put(punches.make())
    outbox = reopen()
    outbox.close(10.0)
    backup = path.read_bytes()
    outbox = reopen()
    for _ in range(3):
        outbox.put(punches.make())
    outbox.close(10.0)
    path.write_bytes(backup)
    path.with_name(path.name + "-wal").unlink()
    outbox = reopen()
    ((level, told),) = messages(caplog, "outbox.lost")
    assert (level, told["first"], told["last"], told["certain"]) == ("CRITICAL", 2, 4, 3)
    assert outbox.status().highest == 0


@pytest.mark.parametrize("how", ["gone", "emptied", "garbage", "short"])
def test_a_lost_mark_is_told_and_begins_an_epoch(reopen, punches, path, caplog, how):
    """Without the mark nothing can be said about losses: so it is said, and nothing is lost."""
    outbox = reopen()
    seq = outbox.put(punches.make())
    outbox.close(10.0)
    mark = path.with_name("outbox.mark")
    if how == "gone":
        mark.unlink()
    else:
        mark.write_bytes({"emptied": b"", "garbage": os.urandom(8192), "short": b"KMRK"}[how])
    outbox = reopen()
    assert messages(caplog, "outbox.mark_lost")[0][0] == "CRITICAL"
    assert outbox.status().pending == 1
    assert outbox.put(punches.make()).split(":") != [seq.split(":")[0], "2"]


def test_one_torn_slot_leaves_the_other(reopen, punches, path, caplog):
    """A write of the mark that was cut off costs nothing: the slot before it stands."""
    outbox = reopen()
    outbox.put(punches.make())
    outbox.close(10.0)
    mark = path.with_name("outbox.mark")
    data = bytearray(mark.read_bytes())
    generations = [struct.unpack_from("<Q", data, offset + 4)[0] for offset in (0, 4096)]
    newest = generations.index(max(generations)) * 4096
    data[newest + 20] ^= 255
    mark.write_bytes(data)
    assert reopen().put(punches.make()).endswith(":2")
    assert [r.message for r in caplog.records if r.levelname != "INFO"] == []


def test_the_mark_of_another_device_is_none(tmp_path):
    """The mark authenticates: one that was brought along, or written by hand, says nothing."""
    mine, other = Vault(bytes(32)), Vault(bytes(range(32)))
    path = tmp_path / "outbox.mark"
    mark = Mark(path, lambda data: [mine.tag(data.hex(), "test")])
    mark.count("01234567", 5)
    mark.close()
    for vault, known in ((mine, 5), (other, None)):
        mark = Mark(path, lambda data, vault=vault: [vault.tag(data.hex(), "test")])
        mark.close()
        assert (mark.reading and mark.reading.given) == known
        assert mark.existed


def test_the_mark_is_whole_after_every_write(tmp_path):
    """What is read back is what was written last, whatever was written in between."""

    def tag(data):
        return Vault(bytes(32)).tag(data.hex(), "test")

    path = tmp_path / "outbox.mark"
    mark = Mark(path, lambda data: [tag(data)])
    steps = [
        (lambda: mark.count("0a0b0c0d", 7), (Standing.RUNNING, 7, 7)),
        (lambda: mark.begin("0a0b0c0d", 8), (Standing.RUNNING, 8, 7)),
        (lambda: (mark.done(), mark.confirm()), (Standing.RUNNING, 8, 8)),
        (lambda: mark.begin("0a0b0c0d", 9), (Standing.RUNNING, 9, 8)),
        (lambda: mark.stand(Standing.DAMAGED), (Standing.DAMAGED, 9, 8)),
        (lambda: mark.stand(Standing.CLEAN), (Standing.CLEAN, 8, 8)),
    ]
    for step, (standing, begun, given) in steps:
        step()
        other = Mark(path, lambda data: [tag(data)])
        other.close()
        assert other.reading == Reading(standing, VERSION, "0a0b0c0d", begun, given)
    mark.close()


@pytest.mark.parametrize(
    ("begun", "given", "highest", "expected"),
    [
        (5, 5, {"e": 5}, None),
        (5, 4, {"e": 5}, None),
        (5, 5, {"e": 9}, None),
        (5, 4, {"e": 4}, Loss("e", 5, 5, 0)),
        (5, 4, {"e": 2}, Loss("e", 3, 5, 2)),
        (5, 5, {"e": 0}, Loss("e", 1, 5, 5)),
        (5, 4, {"other": 7}, Loss("e", 1, 5, 4)),
        (0, 0, {"other": 7}, None),
    ],
)
def test_the_bounds_of_a_loss(begun, given, highest, expected):
    """Certain is what was committed; the number in work when it ended may or may not be lost."""
    assert loss(Reading(Standing.RUNNING, VERSION, "e", begun, given), highest) == expected


def test_a_punch_costs_one_sync(killed, tmp_path):
    """The mark needs none of its own: counted by the system, 40 punches more are 40 syncs more."""
    counts = []
    for number in (10, 50):
        folder = tmp_path / str(number)
        folder.mkdir()
        trace = folder / "trace"
        command = ["strace", "-f", "-c", "-e", "trace=fdatasync,fsync,sync", "-o", str(trace)]
        child = [sys.executable, "-c", CHILD, str(folder / "outbox.db"), str(Path(__file__).parent)]
        try:
            done = subprocess.run(
                [*command, *child, str(number)], capture_output=True, timeout=120, check=False
            )
        except FileNotFoundError:
            pytest.skip("strace is not installed")
        if done.returncode != 0:
            pytest.skip(f"strace may not trace here: {done.stderr[-200:]!r}")
        lines = [line.split() for line in trace.read_text().splitlines()]
        counts.append(sum(int(line[3]) for line in lines if line and "sync" in line[-1]))
    assert counts[1] - counts[0] == 40
