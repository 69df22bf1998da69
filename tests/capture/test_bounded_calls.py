"""Calls into drivers have a deadline, and nothing that comes too late is leaked."""

import logging
import threading

import pytest

from kiosk.capture.bounded import within
from kiosk.errors import CameraError


def never(_):
    raise AssertionError("a result in time is not discarded")


def test_a_result_in_time_is_returned():
    """The call's value comes back."""
    assert within(20.0, "open it", lambda: 7, discard=never) == 7


def test_an_error_in_time_is_raised_as_it_is():
    """The caller sees what the call raised, of the same class."""

    def fails():
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        within(20.0, "open it", fails, discard=never)


def test_a_call_that_hangs_is_given_up_and_named(caplog):
    """The caller goes on after the deadline; error and journal name what hangs."""
    released, discarded = threading.Event(), threading.Event()
    late = []

    def hangs():
        released.wait(20.0)
        return "device"

    def discard(result):
        late.append(result)
        discarded.set()

    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(CameraError, match="open it: expected to be done within") as caught,
    ):
        within(0.05, "open it", hangs, discard=discard)
    assert caught.value.hint
    assert [record.message for record in caplog.records] == ["camera.stuck"]
    assert not late
    released.set()
    assert discarded.wait(20.0), "what opened too late stayed open"
    assert late == ["device"]
