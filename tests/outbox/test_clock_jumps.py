"""Whatever the clock did, every event's true time lies inside what is sent.

A world in which the true time is known, and a kiosk whose clock jumps, stands wrong after a boot,
is synchronised late or never, and loses its source again.
"""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiosk.outbox.store import Outbox
from kiosk.timekeeper import Timekeeper
from kiosk.types import Embedding, Punch, Receipt, ReceiptStatus, Stamp, Trust
from kiosk.vault import Vault
from kiosk.wire import message
from kiosk.wire.eventid import new_event_id

# The last Sunday of October 2026, minutes before clocks go back in Europe: UTC takes no notice.
BEGIN_MS = 1_792_889_400_000
YEAR_S = 365 * 86_400
# TS1 is rounded down to a millisecond, and a good moment may be as well.
ROUNDING_MS = 2


@dataclass
class World:
    """The true time, and a clock that a kiosk reads."""

    honest: bool = True
    true_ms: int = BEGIN_MS
    error_ms: int = 0
    boot_began_ms: int = BEGIN_MS - 10_000
    boots: int = 1
    synced: bool = False

    def now(self) -> Stamp:
        trust = Trust.SYNCED if self.synced or not self.honest else Trust.UNSYNCED
        return Stamp(self.true_ms + self.error_ms, self.boottime_ns(), f"boot-{self.boots}", trust)

    def boottime_ns(self) -> int:
        return (self.true_ms - self.boot_began_ms) * 1_000_000

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.true_ms += int(timeout_s * 1000)
        return event.is_set()


@dataclass
class Site:
    """A kiosk in that world; `sent` is what a server would have got."""

    folder: Path
    world: World
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    truth: dict[str, int] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        self.embedding = Embedding.of(np.random.default_rng(3).standard_normal(64), "space")
        self.start()

    def start(self):
        self.outbox = Outbox(
            self.folder / "outbox.db",
            vault=Vault(bytes(32)),
            device_id="0b0e7a52-52a6-4f2c-9d6b-0e0d6f9a2f11",
            signer=None,
            clock=self.world,
        )
        self.outbox.start()
        self.keeper = Timekeeper(self.outbox, clock=self.world, rtc=False, beat=lambda *_: None)
        self.keeper.look()

    def do(self, step):
        name, amount = step
        getattr(self, name)(amount)
        # The real one looks every second.
        self.keeper.look()

    def passes(self, seconds):
        self.world.true_ms += int(seconds * 1000)

    def jumps(self, seconds):
        """Somebody sets the clock; whoever vouched for it does so no longer."""
        self.world.error_ms += int(seconds * 1000)
        self.world.synced = False

    def syncs(self, _):
        self.world.error_ms, self.world.synced = 0, True

    def loses_source(self, _):
        self.world.synced = False

    def boots(self, seconds):
        """Off for so long; without a clock of its own it goes on from where it was."""
        self.outbox.close(5)
        world = self.world
        world.true_ms += 20_000 + int(abs(seconds) * 1000)
        world.error_ms -= 20_000 + int(seconds * 1000)
        world.boots, world.synced, world.boot_began_ms = world.boots + 1, False, world.true_ms
        self.start()

    def punches(self, seconds):
        self.passes(seconds)
        now = self.world.now()
        event_id = new_event_id(min(max(now.utc_ms, 0), 2**47), self.rng)
        self.truth[event_id] = self.world.true_ms
        self.outbox.put(
            Punch(
                event_id=event_id,
                employee="E",
                kind=None,
                embedding=self.embedding,
                score=0.9,
                quality=0.9,
                liveness=None,
                seen=now,
            )
        )

    def sends(self, most):
        for _ in range(int(most)):
            leased = self.outbox.lease(1)
            if not leased:
                return
            (envelope,) = leased
            self.sent[envelope.event_id] = envelope.body
            self.outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))

    def outside(self):
        """The sent events whose true time is not inside what was said, and all by their CLK."""
        kinds, wrong = Counter(), []
        for event_id, body in self.sent.items():
            read = message.parse(body)
            kinds[read.clock] += 1
            low, high = read.seen_bounds_ms or (read.seen_ms, read.seen_ms)
            if not low - ROUNDING_MS <= self.truth[event_id] <= high + ROUNDING_MS:
                wrong.append((event_id, read.clock, low, self.truth[event_id], high))
        return kinds, wrong


def run(folder, steps, world):
    site = Site(Path(folder), world)
    for step in steps:
        site.do(step)
    site.sends(1000)
    site.outbox.close(5)
    assert set(site.sent) == set(site.truth)
    return site.outside()


SECONDS = st.one_of(st.floats(0, 100), st.floats(0, 2 * 86_400))
EITHER_WAY = st.one_of(
    st.floats(-10, 10), st.floats(-7200, 7200), st.floats(-10 * YEAR_S, 10 * YEAR_S)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("punches"), SECONDS),
        st.tuples(st.just("punches"), SECONDS),
        st.tuples(st.just("passes"), SECONDS),
        st.tuples(st.just("jumps"), EITHER_WAY),
        st.tuples(st.just("syncs"), st.just(0)),
        st.tuples(st.just("loses_source"), st.just(0)),
        st.tuples(st.just("boots"), EITHER_WAY),
        st.tuples(st.just("sends"), st.integers(1, 5)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_the_true_time_is_inside_what_is_sent(steps):
    """Jumps of seconds to ten years both ways, boots, synchronised late, never, and lost again."""
    with tempfile.TemporaryDirectory() as folder:
        _, wrong = run(folder, steps, World())
    assert not wrong


A_DAY = [
    ("punches", 5),
    ("jumps", 10 * YEAR_S),
    ("punches", 5),
    ("syncs", 0),
    ("punches", 5),
    ("loses_source", 0),
    ("jumps", -7200),
    ("punches", 3600),
    ("boots", 28_800),
    ("punches", 5),
    ("boots", 60),
    ("syncs", 0),
]


def test_each_kind_of_time_is_what_it_says(tmp_path):
    """Synchronised, corrected in the same boot, bounded in one that never was synchronised."""
    kinds, wrong = run(tmp_path, A_DAY, World())
    assert not wrong
    assert kinds == {"synced": 1, "corrected": 3, "estimated": 1}


def test_a_kiosk_that_believes_its_clock_is_caught(tmp_path):
    """The same day with a clock that always vouches for itself: the judge above must see it."""
    _, wrong = run(tmp_path, A_DAY, World(honest=False))
    assert len(wrong) >= 2


@pytest.mark.parametrize("seconds", [1.5, -1.5, 86_400, -86_400, 10 * YEAR_S, -10 * YEAR_S])
def test_a_jump_changes_no_time_of_this_boot(tmp_path, seconds):
    """Once synchronised, the boot is dated by time since boot, whatever the clock says later."""
    steps = [("syncs", 0), ("punches", 5), ("jumps", seconds), ("punches", 5), ("passes", 60)]
    kinds, wrong = run(tmp_path, steps, World())
    assert not wrong
    assert kinds == {"synced": 1, "corrected": 1}
