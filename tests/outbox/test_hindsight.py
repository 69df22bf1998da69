"""What an event's time must have been, from moments in which the clock was right."""

from dataclasses import replace

import pytest

from kiosk.outbox.hindsight import EARLIEST_MS, LATEST_MS, GoodTime, in_hindsight
from kiosk.types import Stamp, Trust

HOUR_NS = 3600 * 10**9
SEEN = Stamp(5_000, 20 * HOUR_NS, "b", Trust.UNSYNCED)
BASE_MS = 1_790_000_000_000


def good(hours, ms=0, boot=2):
    """A moment so many hours after its boot began, the clock off by `ms` from where it would be."""
    return GoodTime(boot, hours * HOUR_NS, BASE_MS + hours * 3_600_000 + ms)


@pytest.mark.parametrize("trust", [t for t in Trust if t is not Trust.UNSYNCED])
def test_what_is_settled_stays(trust):
    """Only an unsynchronised time is looked at, and only once."""
    seen = replace(SEEN, trust=trust)
    assert in_hindsight(seen, 2, [good(21)]) is seen


@pytest.mark.parametrize("hours", [1, 19, 20, 21, 500])
def test_a_good_moment_after_it_dates_it_exactly(hours):
    """In the same boot; what has passed since is known to the millisecond."""
    seen = in_hindsight(SEEN, 2, [good(max(hours, 20))])
    assert (seen.utc_ms, seen.trust, seen.bounds_ms) == (
        BASE_MS + 72_000_000,
        Trust.CORRECTED,
        None,
    )


def test_between_two_good_moments_the_drift_is_shared_out():
    """Halfway between them it is half of what the clock lost."""
    seen = in_hindsight(SEEN, 2, [good(10), good(30, ms=1000), good(40, ms=9000), good(2, ms=77)])
    assert (seen.utc_ms, seen.trust) == (BASE_MS + 72_000_500, Trust.CORRECTED)


@pytest.mark.parametrize(("before", "drift_ms"), [(8, None), (7, 23_400), (1, 34_200)])
def test_long_after_the_last_good_moment_the_drift_is_a_bound(before, drift_ms):
    """500 ppm, as much as a kernel lets a clock run wrong; within 12 hours it counts as exact."""
    seen = in_hindsight(SEEN, 2, [good(before)])
    right = BASE_MS + 72_000_000
    assert seen.utc_ms == right
    bounds = None if drift_ms is None else (right - drift_ms, right + drift_ms)
    assert seen.bounds_ms == bounds
    assert seen.trust is (Trust.CORRECTED if bounds is None else Trust.ESTIMATED)


def test_other_boots_bound_it():
    """The narrowest: the last good moment before and the beginning of the first boot after."""
    seen = in_hindsight(
        SEEN, 2, [good(1, boot=0), good(3, boot=1), good(99, boot=3), good(999, 5, 4)]
    )
    assert seen.bounds_ms == (BASE_MS, BASE_MS + 23 * 3_600_000)
    assert (seen.utc_ms, seen.trust) == (BASE_MS, Trust.ESTIMATED)


def test_what_nothing_bounds_is_said_to_be_unbounded():
    """No good moment at all; what the clock told is kept, as far as the wire can write it."""
    seen = in_hindsight(SEEN, 2, [])
    assert (seen.utc_ms, seen.bounds_ms) == (5_000, (EARLIEST_MS, LATEST_MS))
    mad = in_hindsight(replace(SEEN, utc_ms=2**60), 2, [])
    assert mad.utc_ms == LATEST_MS


def test_moments_that_contradict_one_another_bound_nothing_narrower():
    """A time server that lied: the bounds come in order all the same."""
    seen = in_hindsight(SEEN, 2, [good(500, boot=1), good(1, boot=3)])
    earliest, latest = seen.bounds_ms
    assert earliest <= seen.utc_ms <= latest
