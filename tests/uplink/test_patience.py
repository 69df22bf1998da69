"""The first body of a boot waits for the clock, not for ever."""

import logging
import threading

import pytest

from kiosk.types import Stamp, Trust
from kiosk.uplink.patience import Patience
from uplink.conftest import Bench


class SlowClock:
    """A clock that is not synchronised until it is told; waiting moves it."""

    def __init__(self):
        self.ns = 5_000_000_000
        self.trust = Trust.UNSYNCED

    def now(self):
        return Stamp(self.ns // 1_000_000, self.ns, "boot-1", self.trust)

    def boottime_ns(self):
        return self.ns

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.ns += int(timeout_s * 1_000_000_000)
        return event.is_set()


@pytest.fixture
def slow():
    """A clock that waits for its time service."""
    return SlowClock()


def test_without_a_time_service_nothing_is_waited_for(slow):
    """A site that has none gets its events at once, with bounds."""
    assert not Patience(slow, kept=False).holds()


def test_it_ends_when_the_clock_is_right(slow):
    """And stays ended: a source that is lost again holds nothing back."""
    patience = Patience(slow, kept=True)
    assert patience.holds()
    slow.trust = Trust.SYNCED
    assert not patience.holds()
    slow.trust = Trust.UNSYNCED
    assert not patience.holds()


def test_it_ends_after_two_minutes_of_link(slow, caplog):
    """Counted from the first connection, so that a night without a network costs nothing."""
    patience = Patience(slow, kept=True)
    slow.wait(threading.Event(), 8 * 3600)
    assert patience.holds()
    slow.wait(threading.Event(), 119)
    assert patience.holds()
    slow.wait(threading.Event(), 1)
    with caplog.at_level(logging.WARNING):
        assert not patience.holds()
    assert "uplink.clock_not_waited_for" in caplog.text


@pytest.mark.parametrize(("kept", "waited_s"), [(False, 0), (True, 120)])
def test_the_sender_freezes_nothing_meanwhile(slow, kept, waited_s):
    """The first body of a boot waits while a time service is at work, and then goes out."""
    began_ns = slow.ns
    bench = Bench(slow, 1, [], False, kept=kept)
    frozen_ns = []
    lease = bench.queue.lease

    def noted(*arguments, **options):
        frozen_ns.append(slow.ns)
        bench.stop.set()
        return lease(*arguments, **options)

    bench.queue.lease = noted
    bench.sender.run(bench.stop)
    assert [(at - began_ns) / 1e9 for at in frozen_ns] == [waited_s]


def test_the_sender_goes_on_as_soon_as_the_clock_is_right(slow):
    """Seconds after the network is up, not two minutes."""
    bench = Bench(slow, 1, [], False, kept=True)
    waits = []

    def wait(event, timeout_s):
        waits.append(timeout_s)
        if len(waits) == 3:
            slow.trust = Trust.SYNCED
        return event.is_set()

    slow.wait = wait
    lease = bench.queue.lease

    def noted(*arguments, **options):
        bench.stop.set()
        return lease(*arguments, **options)

    bench.queue.lease = noted
    bench.sender.run(bench.stop)
    assert waits == [2.0, 2.0, 2.0]
    assert bench.sent
