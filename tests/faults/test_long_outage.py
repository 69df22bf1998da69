"""A month without a link: the queue keeps all of it, and needs no more memory for it."""

import math
import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime

import psutil
import pytest

from faults.chaos import REFUSE, THROUGH
from kiosk.clock import NS_PER_S, SystemClock
from kiosk.types import Trust

SEED = 9
EVERY_S = 86.4
A_DAY = 1000
TIMEOUT_S = 5.0
# A queue in memory would take twice as much for 30,000 events of 1.3 KB.
MOST_GROWTH = 32 << 20
# TS1 is rounded down to a millisecond, and a good moment may be as well.
ROUNDING_MS = 2


class Outage:
    """A kiosk whose link is down. Every night it restarts, and its clock is set by an RTC.

    No link, no time server: the clock is off by some minutes, others each day, until both return.
    `at_put` is called after each event.
    """

    def __init__(self, net, at_put=lambda _: None):
        self.net, self._at_put = net, at_put
        self.station = net.station(timeout_s=TIMEOUT_S)
        self.clock = self.station.clock
        self.true_ms = []
        self.memory = []
        self.restarts = 0
        self._error_ms = 0
        self._chance = random.Random(SEED)

    def run(self, events):
        """So many events, one every 86.4 seconds, and no link."""
        self._note()
        self.net.proxy.arm(REFUSE)
        self._err()
        while len(self.true_ms) < events:
            day = min(events, len(self.true_ms) + A_DAY)
            self._put()
            self.station.stand(lambda day=day: self._passers_by(day))
            if day < events:
                self._night()

    def end(self):
        """The link is back, and with it the time; returns the events a second of the drain."""
        self.clock.utc_ms -= self._error_ms
        self.clock.trust = Trust.SYNCED
        self._note()
        self.net.proxy.arm(THROUGH)
        self.clock.due_ns = math.inf
        count, began = self.station.outbox.status().pending, SystemClock().boottime_ns()
        self.station.stand(lambda: not self.station.outbox.status().pending)
        self._weigh()
        return count * NS_PER_S / (SystemClock().boottime_ns() - began)

    @property
    def grown(self):
        """By how many bytes the process grew since a tenth of the events was recorded."""
        return max(self.memory[len(self.memory) // 10 :]) - self.memory[len(self.memory) // 10]

    def _passers_by(self, day):
        while len(self.true_ms) < day and self.clock.boot_ns >= self.clock.due_ns:
            self._put()
        return len(self.true_ms) >= day

    def _put(self):
        self.station.put()
        self.true_ms.append(self.clock.utc_ms - self._error_ms)
        self.clock.due_ns = self.clock.boot_ns + int(EVERY_S * NS_PER_S)
        self._at_put(self)
        if len(self.true_ms) % (A_DAY // 10) == 0:
            self._weigh()

    def _night(self):
        self.restarts += 1
        self.station.restart()
        self.clock.forward(EVERY_S)
        self.clock.boot_id = f"boot-{self.restarts + 1}"
        self.clock.boot_ns = 20 * NS_PER_S
        self._err()
        self._note()

    def _err(self):
        """The clock is off by another amount."""
        self.clock.trust = Trust.UNSYNCED
        error_ms = self._chance.randint(-600_000, 600_000)
        self.clock.utc_ms += error_ms - self._error_ms
        self._error_ms = error_ms

    def _note(self):
        self.station.outbox.note_time(self.clock.now(), rtc=True)

    def _weigh(self):
        self.memory.append(psutil.Process().memory_info().rss)


def times(net, station):
    """TS1 in milliseconds and CLK as the server has them, in order."""
    query = "SELECT seen, clock FROM attendance WHERE device = ? ORDER BY id"
    with closing(sqlite3.connect(net.database)) as connection:
        for seen, clock in connection.execute(query, (station.device.name,)):
            moment = datetime.strptime(seen, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
            yield round(moment.timestamp() * 1000), clock


@pytest.mark.parametrize("events", [1500, pytest.param(30_000, marks=pytest.mark.faults)])
def test_all_of_a_long_outage_arrives(net, tell, events):
    """All there, once, in order, dated right where it can be; the memory flat."""
    outage = Outage(net)
    outage.run(events)
    attempts = outage.station.attempts
    rate = outage.end()
    roll = net.roll(outage.station)
    trust = Counter()
    for true_ms, (ts1, clock) in zip(outage.true_ms, times(net, outage.station), strict=False):
        trust[clock] += 1
        if clock == "corrected":
            assert abs(ts1 - true_ms) <= ROUNDING_MS
    tell(
        "long outage",
        **asdict(roll),
        **trust,
        days=round(events * EVERY_S / 86_400, 1),
        restarts=outage.restarts,
        attempts_in_vain=attempts,
        drained_per_second=round(rate),
        MiB_at_a_tenth=outage.memory[len(outage.memory) // 10] >> 20,
        MiB_grown=f"{outage.grown / 2**20:.1f}",
    )
    assert roll.right, roll
    # One that nobody could date is told as such, and only of a boot without any good time.
    assert trust["corrected"] >= events - outage.restarts * A_DAY
    assert outage.grown < MOST_GROWTH


def test_a_queue_with_an_end_is_reported(net, tell):
    """Seeded: no more than 20 are kept, the oldest goes."""

    def drop(outage):
        if outage.station.outbox.status().pending > 20:
            oldest = outage.station.punched[len(outage.true_ms) - 21]
            outage.station.outbox.quarantine(oldest.event_id, "too old")

    outage = Outage(net, drop)
    outage.run(50)
    outage.end()
    roll = net.roll(outage.station)
    tell("long outage, control: a limit", **asdict(roll))
    assert roll.lost == roll.aside == 30


def test_memory_that_grows_is_reported(net, tell):
    """Seeded: a picture of everybody is kept in memory."""
    kept = []
    # More than a process may have freed before, of many tests say, and would take again unseen.
    outage = Outage(net, lambda _: kept.append(b"\1" * (1 << 20)))
    outage.run(500)
    tell("long outage, control: hoarding", MiB_grown=f"{outage.grown / 2**20:.1f}")
    assert outage.grown > MOST_GROWTH
