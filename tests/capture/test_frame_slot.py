"""One frame between two threads, the newest wins."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.capture.slot import FrameSlot
from kiosk.errors import CameraError


def test_the_newest_frame_wins(frame_of):
    """A frame that nobody took in time is dropped and counted; the newest is what is seen."""
    slot = FrameSlot()
    old, new = frame_of(1), frame_of(2)
    slot.put(old)
    slot.put(new)
    assert slot.take(0.0) is new
    assert slot.dropped == 1


def test_a_frame_is_taken_once(frame_of):
    """No frame is decided twice: an emptied slot has a deadline, not the last frame."""
    slot = FrameSlot()
    slot.put(frame_of(1))
    slot.take(0.0)
    with pytest.raises(CameraError, match=r"a frame within 0\.01 s expected, none came"):
        slot.take(0.01)


def test_a_taker_is_woken_by_a_frame(frame_of, background):
    """Whoever waits gets the frame when it comes, long before the deadline."""
    slot = FrameSlot()
    taking = background(lambda: slot.take(20.0))
    frame = frame_of(3)
    slot.put(frame)
    assert taking.result(20) is frame


def test_closing_wakes_the_taker(background):
    """A stop does not wait for a deadline."""
    slot = FrameSlot()
    taking = background(lambda: slot.take(20.0))
    slot.close()
    with pytest.raises(CameraError, match="closed"):
        taking.result(20)


def test_a_closed_slot_gives_its_last_frame_and_takes_none(frame_of):
    """What came before the end is not lost, what comes after it is dropped and counted."""
    slot = FrameSlot()
    last = frame_of(1)
    slot.put(last)
    slot.close()
    slot.put(frame_of(2))
    assert slot.take(0.0) is last
    assert slot.dropped == 1
    with pytest.raises(CameraError, match="closed"):
        slot.take(20.0)


def test_it_is_empty_only_when_the_taker_is_done(frame_of):
    """A frame that is being looked at counts as work until the taker comes back."""
    slot = FrameSlot()
    assert slot.is_empty
    slot.put(frame_of(1))
    slot.take(0.0)
    assert not slot.is_empty
    with pytest.raises(CameraError):
        slot.take(0.0)
    assert slot.is_empty


@settings(deadline=None, max_examples=50)
@given(steps=st.lists(st.sampled_from(["put", "take"]), max_size=30))
def test_every_frame_is_taken_or_counted(steps):
    """Frames laid in = frames taken + frames dropped + the one that waits."""
    slot, laid, taken = FrameSlot(), 0, 0
    for step in steps:
        if step == "put":
            slot.put(object())
            laid += 1
        else:
            try:
                slot.take(0.0)
                taken += 1
            except CameraError:
                pass
    waiting = int(laid > 0 and steps[-1] == "put")
    assert laid == taken + slot.dropped + waiting
