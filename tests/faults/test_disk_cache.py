"""A disk with a cache of its own loses power: see `faults.cache` for what it may leave."""

import random

import pytest

from faults.account import Verdict
from faults.aftermath import copied, restart
from faults.cache import Life
from faults.worker import Order

SEED = 13
# The log is folded in every few punches, and anew at the end.
STEPS = ("put", "put", "send", "put", "send", "send") * 6 + ("put", "put", "close")
CHECKPOINT = 40


class Bench:
    """Moments of one recorded life, and what a restart makes of what the disk left."""

    def __init__(self, nursery, folder):
        self._nursery = nursery
        self._folder = folder

    def cuts(self, number, bug=""):
        """The verdict over that many moments."""
        for name in ("files", "none"):
            (self._folder / name).mkdir()
        order = Order(
            str(self._folder / "files"),
            str(self._folder / "account"),
            STEPS,
            gates=True,
            checkpoint=CHECKPOINT,
            bug=bug,
        )
        life = Life(self._nursery, self._folder, order)
        chance = random.Random(SEED)
        total = Verdict()
        for _ in range(number):
            left = copied(self._folder / "none", self._folder / "left")
            said = life.cut(chance.randrange(len(life) + 1), left, chance)
            total += restart(left, said)
        return total


@pytest.fixture
def bench(nursery, scratch, tools):
    """Kiosks on such a disk."""
    tools("strace")
    return Bench(nursery, scratch)


@pytest.mark.parametrize("cuts", [150, pytest.param(5000, marks=pytest.mark.faults)])
def test_a_cache_that_is_lost_takes_nothing_that_was_promised(bench, tell, cuts):
    """Every sector that was not synced may be missing: what was promised does not need it."""
    verdict = bench.cuts(cuts)
    tell("lost disk cache", cuts=cuts, **vars(verdict))
    assert verdict.kept, verdict
    assert verdict.resent


@pytest.mark.parametrize("bug", ["normal", "promise-first"])
def test_the_cuts_find_a_kiosk_that_promises_too_early(bench, tell, bug):
    """Without a sync at each commit, or with the promise before it, the same cuts lose events."""
    verdict = bench.cuts(60, bug)
    tell(f"lost disk cache, control: {bug}", cuts=60, **vars(verdict))
    assert verdict.lost
