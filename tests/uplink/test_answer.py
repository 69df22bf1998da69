"""What each HTTP status means, as a table over all of them."""

import contextlib
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import LinkDownError, UplinkPausedError, WireError
from kiosk.uplink.answer import MAX_DELAY_S, check_status, retry_after_s

AGAIN = {408, 425, 429} | (set(range(500, 600)) - {501})
REFUSED = {400, 422}
PAUSED = {401, 403, 404, 405, 410, 413, 501}
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


def expected(status):
    if 200 <= status < 300 or status in REFUSED:
        return None
    return LinkDownError if status in AGAIN else UplinkPausedError


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status_has_one_meaning(status):
    """2xx and a refusal of the event are read; the rest is: again, or the kiosk."""
    kind = expected(status)
    if kind is None:
        check_status(status, retry_after="soon", date=None)
        return
    with pytest.raises(kind, match=str(status)):
        check_status(status, retry_after=None, date=None)


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_a_status_out_of_range_pauses(status):
    """A number that is no HTTP status is not taken for a good one."""
    with pytest.raises(UplinkPausedError):
        check_status(status, retry_after=None, date=None)


def test_the_named_statuses_are_the_agreed_ones():
    """The table of this test is the protocol's, and 404 is not 400."""
    assert {expected(status) for status in PAUSED} == {UplinkPausedError}
    assert expected(409) is UplinkPausedError
    assert expected(302) is UplinkPausedError


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", None, 0.0),
        ("120", None, 120.0),
        (" 7 ", None, 7.0),
        ("9" * 5000, None, MAX_DELAY_S),
        ("86401", None, MAX_DELAY_S),
        ("Wed, 21 Oct 2026 07:28:30 GMT", DATE, 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", DATE, 0.0),
        ("Wed, 21 Oct 2037 07:28:00 GMT", DATE, MAX_DELAY_S),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", DATE, 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", DATE, 30.0),
    ],
)
def test_retry_after_in_both_forms(value, date, seconds):
    """Seconds, or a moment relative to the reply's own Date: our clock may be years off."""
    assert retry_after_s(value, date) == seconds


@pytest.mark.parametrize(
    ("value", "date"),
    [
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "yesterday"),
        ("Wed, 41 Oct 2026 07:28:30 GMT", DATE),
    ],
)
def test_a_malformed_retry_after_is_ignored_loudly(value, date, caplog):
    """It delays nothing, and the journal says why."""
    with pytest.raises(WireError, match="HTTP date"):
        retry_after_s(value, date)
    with caplog.at_level(logging.WARNING), pytest.raises(LinkDownError) as caught:
        check_status(503, retry_after=value, date=date)
    assert caught.value.min_delay_s == 0.0
    assert [record.message for record in caplog.records] == ["uplink.retry_after_ignored"]


def test_the_asked_delay_travels_with_the_error():
    """Retry-After is the least delay of the next attempt."""
    with pytest.raises(LinkDownError) as caught:
        check_status(429, retry_after="77", date=None)
    assert caught.value.min_delay_s == 77.0


@settings(deadline=None)
@given(value=st.text(max_size=60), date=st.one_of(st.none(), st.text(max_size=60)))
def test_no_header_breaks_it(value, date):
    """Whatever stands in the header: a delay within bounds, or the named error."""
    with contextlib.suppress(WireError):
        assert 0.0 <= retry_after_s(value, date) <= MAX_DELAY_S
