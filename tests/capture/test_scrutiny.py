"""What is no picture: the same one for ever, a black one, one of another size."""

import numpy as np
import pytest

from kiosk.capture.scrutiny import Rate, Scrutiny, Verdict
from kiosk.clock import NS_PER_S


@pytest.fixture
def watched():
    """Judges a picture after so many more seconds."""
    scrutiny, now, rng = Scrutiny(), {"ns": 0}, np.random.default_rng(3)

    def judge(seconds, grey=None, level=90):
        now["ns"] += round(seconds * NS_PER_S)
        noise = rng.integers(0, 6, (18, 32))
        picture = np.clip(level + noise, 0, 255).astype(np.uint8) if grey is None else grey
        return scrutiny.judge(picture, now["ns"])

    judge.scrutiny = scrutiny
    return judge


def test_a_live_picture_is_good(watched):
    """Noise alone tells it from a frozen one, however empty the corridor."""
    assert {watched(0.1) for _ in range(1000)} == {Verdict.GOOD}


def test_a_frozen_picture_is_told_after_five_seconds(watched):
    """Time stamps advance, pixels do not: without this judgement it would pass for a corridor."""
    same = np.full((18, 32), 90, np.uint8)
    verdicts = [watched(0.5, same) for _ in range(12)]
    assert verdicts == [Verdict.GOOD] * 10 + [Verdict.FROZEN] * 2
    assert watched(0.5) is Verdict.GOOD


def test_black_is_told_after_two_seconds_and_forgiven_at_once(watched):
    """A hand on the lens; a corridor at night with a lamp far away is not black."""
    assert {watched(0.5, level=0) for _ in range(4)} == {Verdict.GOOD}
    assert watched(0.5, level=0) is Verdict.DARK
    assert watched(0.1, level=20) is Verdict.GOOD


def test_another_size_is_told(watched):
    """What was negotiated at the opening does not hold any more."""
    watched(0.1)
    assert watched(0.1, np.full((9, 16), 90, np.uint8)) is Verdict.RESIZED


def test_an_opening_begins_anew(watched):
    """The picture after it may be the one before it."""
    same = np.full((18, 32), 90, np.uint8)
    for _ in range(12):
        watched(0.5, same)
    watched.scrutiny.begin()
    assert watched(0.5, same) is Verdict.GOOD


def test_the_rate_is_that_of_the_last_seconds():
    """Ten a second, then none: it falls to nothing, and the age of the last one grows."""
    rate = Rate()
    assert rate.age_s(0) is None
    for number in range(200):
        rate.add(number * NS_PER_S // 10)
    last_ns = 199 * NS_PER_S // 10
    assert rate.per_second(last_ns) == pytest.approx(10.0, rel=0.02)
    assert rate.per_second(last_ns + 20 * NS_PER_S) == 0.0
    assert rate.age_s(last_ns + 20 * NS_PER_S) == 20.0
