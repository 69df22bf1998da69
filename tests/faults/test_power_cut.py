"""The power is cut at random moments under load: see `faults.disk` for why it is a power cut."""

import os
import random
import signal

import pytest

from faults import disk
from faults.account import Verdict, read
from faults.aftermath import copied, restart
from faults.worker import Order

# A kiosk's file grows; a new disk and a new kiosk now and then keep a cut at 50 ms.
CUTS_OF_A_LIFE = 60
CONTROL_CUTS = 12
PLAIN_CUTS = 6


class Bench:
    """Lives of kiosks on a disk that is copied, and what a restart makes of each copy."""

    def __init__(self, nursery, folder, images):
        self._nursery = nursery
        self._folder = folder
        self._disk, self._copy = images / "disk.img", images / "copy.img"

    def cuts(self, number, bug=""):
        """The verdict over that many cuts."""
        total = Verdict()
        for seed, first in enumerate(range(0, number, CUTS_OF_A_LIFE)):
            total += self._life(seed, min(CUTS_OF_A_LIFE, number - first), bug)
        return total

    def _life(self, seed, cuts, bug):
        account = self._folder / "account"
        account.unlink(missing_ok=True)
        disk.new_disk(self._disk)
        total = Verdict()
        chance = random.Random(seed)
        with disk.mounted(self._disk, self._folder / "disk") as where:
            pid = self._nursery.start(
                Order(str(where), str(account), ("load",), seed=seed, bug=bug)
            )
            try:
                for _ in range(cuts):
                    self._nursery.some_moment(pid, account, chance)
                    total += self._restart(self._cut(pid, account))
                    os.kill(pid, signal.SIGCONT)
            finally:
                self._nursery.kill(pid)
        return total

    def _cut(self, pid, account):
        """Cut; returns what was said at that moment, no more and no less.

        The kiosk is stopped, so that it says nothing while the disk is copied; what the kernel has
        under way for it goes on. Had it the time for one more word, the cut is made again.
        """
        os.kill(pid, signal.SIGSTOP)
        said = None
        while said != account.stat().st_size:
            said = account.stat().st_size
            disk.cut(self._disk, self._copy)
        return read(account)

    def _restart(self, said):
        # The new kiosk works on the files in memory: what it reads is what the copy holds.
        with disk.mounted(self._copy, self._folder / "copy") as where:
            files = copied(where, self._folder / "files")
        return restart(files, said)


@pytest.fixture
def bench(nursery, scratch, tools):
    """Kiosks on a disk that can be cut."""
    tools("mkfs.xfs", "mkfs.ext4")
    with disk.host(scratch) as images:
        yield Bench(nursery, scratch, images)


@pytest.fixture
def plain_bench(nursery, scratch, tools):
    """The same without a reflink file system."""
    tools("mkfs.ext4")
    return Bench(nursery, scratch, scratch)


@pytest.mark.parametrize("cuts", [60, pytest.param(3000, marks=pytest.mark.faults)])
def test_no_cut_loses_or_doubles_what_was_promised(bench, tell, cuts):
    """Whatever was called recorded before the cut reaches the server, once, in order."""
    verdict = bench.cuts(cuts)
    tell("power cut", cuts=cuts, **vars(verdict))
    assert verdict.kept, verdict
    # Some cuts fell between the server's word and its entry: messages did come twice.
    assert verdict.resent


def test_plain_copies_do_as_well(plain_bench, tell):
    """Where nothing can be copied in no time, a copy of a disk at rest finds the same."""
    verdict, control = plain_bench.cuts(PLAIN_CUTS), plain_bench.cuts(PLAIN_CUTS, "normal")
    tell("power cut, plain copies", cuts=PLAIN_CUTS, **vars(verdict))
    assert verdict.kept, verdict
    assert control.lost


@pytest.mark.parametrize("bug", ["normal", "promise-first"])
def test_the_cuts_find_a_kiosk_that_promises_too_early(bench, tell, bug):
    """Without a sync at each commit, or with the promise before it, the same cuts lose events."""
    verdict = bench.cuts(CONTROL_CUTS, bug)
    tell(f"power cut, control: {bug}", cuts=CONTROL_CUTS, **vars(verdict))
    assert verdict.lost
