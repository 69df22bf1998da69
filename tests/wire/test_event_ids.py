"""Event ids: UUIDv7, ordered by time, in one spelling."""

import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import MessageError
from kiosk.wire.eventid import is_event_id, new_event_id

TIMES = st.integers(0, 2**48 - 1)


@settings(deadline=None, max_examples=100)
@given(utc_ms=TIMES, seed=st.integers())
def test_an_event_id_is_a_uuid_of_version_7(utc_ms, seed):
    """Version, variant and the 48-bit time prefix are where RFC 9562 puts them."""
    text = new_event_id(utc_ms, random.Random(seed))
    read = uuid.UUID(text)
    assert (read.version, read.variant, str(read)) == (7, uuid.RFC_4122, text)
    assert read.int >> 80 == utc_ms
    assert is_event_id(text)


@settings(deadline=None, max_examples=100)
@given(times=st.lists(TIMES, min_size=2, max_size=5, unique=True), seed=st.integers())
def test_event_ids_sort_by_their_time(times, seed):
    """A later event has a greater id, as text, whatever its random bits."""
    rng = random.Random(seed)
    ids = {utc_ms: new_event_id(utc_ms, rng) for utc_ms in times}
    assert sorted(ids.values()) == [ids[utc_ms] for utc_ms in sorted(times)]


def test_all_74_random_bits_are_used():
    """Two kiosks in one millisecond do not collide: every bit outside time and version varies."""
    rng = random.Random(1)
    seen = [uuid.UUID(new_event_id(5, rng)).int for _ in range(200)]
    varying = 0
    for value in seen:
        varying |= value ^ seen[0]
    assert varying.bit_count() == 74


def test_the_example_of_the_standard_is_made():
    """RFC 9562, appendix A.6: the same time and random bits give the same id."""

    class Fixed(random.Random):
        def getrandbits(self, k):
            return {12: 0xCC3, 62: 0x18C4DC0C0C07398F}[k]

    assert new_event_id(0x017F22E279B0, Fixed()) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize("utc_ms", [-1, 2**48])
def test_a_time_that_does_not_fit_is_refused(utc_ms):
    """A clock before 1970 or far beyond gives a named error, not a wrapped id."""
    with pytest.raises(MessageError, match="A1: expected a time"):
        new_event_id(utc_ms, random.Random(0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        7,
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e279b07cc398c4dc0c0c07398f",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
    ],
)
def test_another_spelling_or_version_is_no_event_id(text):
    """One id has one spelling: canonical, lower case, version 7."""
    assert not is_event_id(text)
