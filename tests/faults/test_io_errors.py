"""The n-th write, sync or rename fails, once or for good; and a disk that another process fills."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from faults import disk, strace
from faults.account import Verdict, read
from faults.aftermath import copied, restart
from faults.worker import STOPPED, Order

SEED = 12
ERRORS = ("EIO", "ENOSPC")
CHANGES = {
    *("write", "pwrite64", "pwritev", "ftruncate", "fallocate", "openat", "unlink", "unlinkat"),
    *("fsync", "fdatasync", "sync_file_range"),
    *("rename", "renameat", "renameat2", "link", "linkat"),
}
# A life: the start, inserts and answers in turn, the log folded in, the end.
LIFE = ("put", "put", "send", "put", "send", "put", "put", "send", "close")
CHECKPOINT = 40


@dataclass(frozen=True)
class Point:
    """The n-th call of a name fails with `error`; `lasting`: and every one after it."""

    grip: strace.Grip
    call: str
    n: int
    error: str
    lasting: bool

    @property
    def option(self):
        """The same in strace's words."""
        return f"inject={self.call}:error={self.error}:when={self.n}{'+' * self.lasting}"


class Bench:
    """Lives of kiosks whose disk fails, and what a restart on a disk that works makes of them."""

    def __init__(self, nursery, folder, bug=""):
        self._nursery = nursery
        self._folder = folder
        self._bug = bug

    def points(self):
        """Every call of the queue's threads that changes something on a disk."""
        first = strace.Grip("born", "outbox")
        for grip in self._watched(first).grips:
            counted = strace.calls(self._watched(grip))
            changes = Counter({name: n for name, n in counted.items() if name in CHANGES})
            for call, n in strace.each(changes):
                for error in ERRORS:
                    for lasting in (False, True):
                        yield Point(grip, call, n, error, lasting)

    def fail(self, points):
        """The verdict over all points, those where nothing failed, and how the kiosks ended."""
        total, missed, ends = Verdict(), [], Counter()
        for point in points:
            watched = self._watched(point.grip, "-e", point.option)
            ends[watched.status] += 1
            if not watched.injected:
                missed.append(point)
            total += restart(self._folder / "files", read(self._folder / "account"))
        return total, missed, ends

    def _watched(self, grip, *options):
        (self._folder / "none").mkdir(exist_ok=True)
        files = copied(self._folder / "none", self._folder / "files")
        account = self._folder / "account"
        account.unlink(missing_ok=True)
        order = Order(
            str(files),
            str(account),
            LIFE,
            gates=True,
            checkpoint=CHECKPOINT,
            bug=self._bug,
        )
        return strace.watch(self._nursery, order, grip, self._folder / "log", *options)


@pytest.fixture
def bench(nursery, scratch, tools):
    """Kiosks whose disk fails."""
    tools("strace")
    return Bench(nursery, scratch)


@pytest.mark.parametrize("most", [60, pytest.param(None, marks=pytest.mark.faults)])
def test_nothing_is_called_recorded_that_is_not_there(bench, tell, most):
    """Whatever fails, what was promised is there after a restart, and what was refused is not."""
    points = list(bench.points())
    planned = points if most is None else random.Random(SEED).sample(points, min(most, len(points)))
    verdict, missed, _ = bench.fail(planned)
    hit = len(planned) - len(missed)
    tell("I/O errors", calls=len(points), planned=len(planned), hit=hit, **vars(verdict))
    assert verdict.kept, verdict
    assert not missed
    assert hit


def test_a_kiosk_whose_disk_fails_at_the_start_says_so_by_name(bench, tell):
    """It goes on, or stops with an error of its own; it never falls over."""
    points = [point for point in bench.points() if point.call == "openat"]
    verdict, missed, ends = bench.fail(points)
    tell("I/O errors, opening a file", planned=len(points), ends=dict(ends), **vars(verdict))
    assert not missed
    assert ends.keys() <= {0, STOPPED}, ends


def test_the_errors_find_a_kiosk_that_is_deaf_to_them(nursery, scratch, tools, tell):
    """A kiosk that promises although put raised an error is reported."""
    tools("strace")
    bench = Bench(nursery, scratch, "deaf")
    points = [p for p in bench.points() if p.call == "pwrite64" and p.lasting][::6]
    verdict, missed, _ = bench.fail(points)
    tell("I/O errors, control: deaf", planned=len(points), **vars(verdict))
    assert not missed
    assert verdict.lost


@pytest.mark.faults
@pytest.mark.parametrize("bug", ["", "deaf"])
def test_on_a_full_disk_nothing_is_promised_in_vain(nursery, scratch, tools, tell, bug):
    """Another process fills the disk under a running kiosk; with the control, the loss is seen."""
    tools("mkfs.ext4")
    image, account = scratch / "disk.img", scratch / "account"
    disk.new_disk(image)
    with disk.mounted(image, scratch / "disk") as where:
        nursery.start(Order(str(where), str(account), ("tend", "close")))
        assert nursery.finish() == 0
        nursery.start(Order(str(where), str(account), ("exhaust",), gates=True, bug=bug))
        for event in nursery.events():
            if event.get("gate") == "work":
                disk.fill(where / "another")
            if "gate" in event:
                nursery.open_gate()
        assert event["ended"] in {0, STOPPED}
        (where / "another").unlink()
        said = read(account)
        verdict = restart(copied(where, scratch / "files"), said)
    name = "full disk" + (f", control: {bug}" if bug else "")
    tell(name, recorded=len(said.recorded), refused=len(said.refused), **vars(verdict))
    assert said.refused or bug
    assert len(said.recorded) >= 2000
    assert verdict.kept != bool(bug), verdict
