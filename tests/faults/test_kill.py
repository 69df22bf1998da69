"""kill -9 at every system call of what a queue does, and under load at random."""

import random
from dataclasses import dataclass

import pytest

from faults import strace
from faults.account import Verdict, read
from faults.aftermath import copied, restart
from faults.worker import FILE, Order

SEED = 11
# What is judged grows with every kill: a new queue now and then keeps a kill at 50 ms.
KILLS_OF_A_LIFE = 40
RECORDINGS = 3
TRIES = 3


@dataclass(frozen=True)
class Operation:
    """What is killed: `steps` from `gate` on, after `before` was done by an earlier kiosk.

    `checkpoint`: the log is folded in after so many pages, so that it happens in these steps.
    """

    before: tuple[str, ...]
    gate: str = "work"
    steps: tuple[str, ...] = ()
    checkpoint: int = 0


OPERATIONS = {
    "first start": Operation((), "start"),
    "start": Operation(("put", "put", "send", "close"), "start"),
    "start after a crash": Operation(("put", "put", "send"), "start"),
    "insert": Operation(("put",), steps=("put",)),
    "ack": Operation(("put", "put"), steps=("send",)),
    "rotate": Operation(("put",) * 3, steps=("put",) * 4, checkpoint=40),
    "close": Operation(("put", "put", "send"), steps=("close",)),
}


@dataclass(frozen=True)
class Point:
    """The n-th call of a name in a thread that is held from a gate on."""

    operation: str
    grip: strace.Grip
    call: str
    n: int


class Bench:
    """Operations, their points, and what a restart makes of a kill at one of them."""

    def __init__(self, nursery, folder, bug=""):
        self._nursery = nursery
        self._folder = folder
        self._bug = bug

    def points(self, name):
        """Every call of every thread that a few recordings agree on."""
        first = strace.Grip(OPERATIONS[name].gate, "main")
        grips = self._watched(name, first).grips
        for grip in grips:
            seen = [self._watched(name, grip) for _ in range(RECORDINGS)]
            counted = strace.calls(seen[0])
            for other in seen[1:]:
                counted &= strace.calls(other)
            yield from (Point(name, grip, call, n) for call, n in strace.each(counted))

    def kill(self, point):
        """Kill there; returns the verdict, None if the kiosk never came to that call."""
        inject = f"inject={point.call}:signal=KILL:when={point.n}"
        for _ in range(TRIES):
            watched = self._watched(point.operation, point.grip, "-e", inject)
            if watched.status == -9:
                return restart(self._folder / "files", read(self._folder / "account"))
        return None

    def kills(self, points):
        """The verdict over all points, and the points that were not hit."""
        verdicts = {point: self.kill(point) for point in points}
        hit = [verdict for verdict in verdicts.values() if verdict is not None]
        return sum(hit, Verdict()), [point for point, got in verdicts.items() if got is None]

    def folded(self, name):
        """Whether an operation folds the log into the database."""
        watched = self._watched(name, strace.Grip("work", "outbox"))
        return any("pwrite64" in line and f"{FILE}>" in line for line in watched.lines)

    def kills_under_load(self, number):
        """Kill at random; each kiosk goes on where the last one was killed."""
        total = Verdict()
        chance = random.Random(SEED)
        for seed in range(number):
            if seed % KILLS_OF_A_LIFE == 0:
                files = copied(self._empty(), self._folder / "files")
                account = self._folder / "account"
                account.write_bytes(b"")
            order = Order(str(files), str(account), ("load",), seed=seed, bug=self._bug)
            pid = self._nursery.start(order)
            self._nursery.some_moment(pid, account, chance)
            self._nursery.kill(pid)
            total += restart(copied(files, self._folder / "copy"), read(account))
        return total

    def _empty(self):
        folder = self._folder / "empty"
        folder.mkdir(exist_ok=True)
        return folder

    def _watched(self, name, grip, *options):
        operation = OPERATIONS[name]
        files = copied(self._prepared(name), self._folder / "files")
        account = (files / "account").rename(self._folder / "account")
        order = Order(
            str(files),
            str(account),
            operation.steps,
            seed=1,
            gates=True,
            checkpoint=operation.checkpoint,
            bug=self._bug,
        )
        return strace.watch(self._nursery, order, grip, self._folder / "log", *options)

    def _prepared(self, name):
        """The files that the operation finds, made once."""
        folder = self._folder / name.replace(" ", "-")
        if not folder.exists():
            folder.mkdir()
            (folder / "account").touch()
            if before := OPERATIONS[name].before:
                order = Order(str(folder), str(folder / "account"), before)
                self._nursery.start(order)
                assert self._nursery.finish() == 0
        return folder


@pytest.fixture
def bench(nursery, scratch, tools):
    """Kiosks that are killed."""
    tools("strace")
    return Bench(nursery, scratch)


@pytest.mark.parametrize("most", [16, pytest.param(None, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_kill_loses_or_doubles_what_was_promised(bench, tell, name, most):
    """Killed at each call: what was said before is there after a restart, once, in order."""
    points = list(bench.points(name))
    planned = points if most is None else random.Random(SEED).sample(points, min(most, len(points)))
    verdict, missed = bench.kills(planned)
    hit = len(planned) - len(missed)
    tell(f"kill -9, {name}", calls=len(points), planned=len(planned), hit=hit, **vars(verdict))
    assert verdict.kept, verdict
    assert not missed
    assert hit


def test_what_is_killed_is_what_it_is_called(bench):
    """A rotation folds the log into the database; an insert by itself does not."""
    assert bench.folded("rotate")
    assert not bench.folded("insert")


@pytest.mark.parametrize("kills", [10, pytest.param(500, marks=pytest.mark.faults)])
def test_no_kill_under_load_loses_or_doubles(bench, tell, kills):
    """Killed at a random moment, again and again over the same files."""
    verdict = bench.kills_under_load(kills)
    tell("kill -9 under load", kills=kills, **vars(verdict))
    assert verdict.kept, verdict


def test_the_kills_find_a_kiosk_that_promises_too_early(nursery, scratch, tools, tell):
    """With the promise before the commit the same kills report a loss."""
    tools("strace")
    bench = Bench(nursery, scratch, "promise-first")
    points = [point for point in bench.points("insert") if point.call == "pwrite64"]
    verdict, missed = bench.kills(points)
    tell("kill -9, control: promise-first", planned=len(points), **vars(verdict))
    assert points
    assert not missed
    assert verdict.lost
