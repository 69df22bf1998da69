"""The waits between attempts."""

import random
import statistics

from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.uplink.backoff import delay_s

ATTEMPTS = st.one_of(st.integers(0, 100), st.integers(0, 10**30))
BASES = st.floats(0.05, 60.0)
CAPS = st.floats(60.0, 3600.0)
MINIMA = st.floats(0.0, 86_400.0)


@settings(deadline=None)
@given(attempt=ATTEMPTS, base=BASES, cap=CAPS, least=MINIMA, seed=st.integers(0, 2**32))
def test_every_delay_lies_between_what_was_asked_and_the_ceiling(attempt, base, cap, least, seed):
    """min_delay <= delay <= max(min_delay, min(cap, base * 2**attempt)), for any attempt."""
    rng = random.Random(seed)
    delay = delay_s(attempt, base_s=base, cap_s=cap, min_delay_s=least, rng=rng)
    ceiling = min(cap, base * 2 ** min(attempt, 20))
    assert least <= delay <= max(least, ceiling)


def test_the_first_failure_waits_at_most_the_base():
    """Attempt 0 is the first failure."""
    rng = random.Random(1)
    waits = [delay_s(0, base_s=1.0, cap_s=300.0, min_delay_s=0.0, rng=rng) for _ in range(500)]
    assert max(waits) <= 1.0


def test_jitter_is_full():
    """Kiosks that lost the server together do not come back together: 0 .. ceiling, evenly."""
    rng = random.Random(1)
    waits = [delay_s(5, base_s=1.0, cap_s=300.0, min_delay_s=0.0, rng=rng) for _ in range(4000)]
    assert min(waits) < 1.0
    assert max(waits) > 31.0
    assert abs(statistics.mean(waits) - 16.0) < 0.5


def test_what_the_server_asks_for_may_exceed_the_cap():
    """The cap is ours; a longer Retry-After is obeyed."""
    rng = random.Random(1)
    assert delay_s(9, base_s=1.0, cap_s=300.0, min_delay_s=4000.0, rng=rng) == 4000.0
