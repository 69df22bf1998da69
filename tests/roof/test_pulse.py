"""Who is alive: told from what each thread said, on the test's own clock."""

import threading

import pytest

from kiosk.clock import NS_PER_S
from kiosk.pulse import Pulse, Step, overdue, where_is

HANG_S = 20


class Clock:
    def __init__(self):
        self.ns = 1_000 * NS_PER_S

    def boottime_ns(self):
        return self.ns

    def passes(self, seconds):
        self.ns += round(seconds * NS_PER_S)


def step(until_s, thread="vision"):
    return Step(thread, "recognises", 0, round(until_s * NS_PER_S), 0)


@pytest.mark.parametrize(("now_s", "late"), [(0.0, []), (5.0, []), (5.1, ["vision"])])
def test_a_step_may_take_what_it_said(now_s, late):
    """A thread is overdue past its own deadline, not at it."""
    found = overdue([step(5.0), step(9.0, "capture")], round(now_s * NS_PER_S))
    assert [one.thread for one in found] == late


def test_each_step_begins_anew():
    """Whoever goes from step to step is alive however long it takes; who stays in one is not."""
    clock = Clock()
    pulse = Pulse(clock)
    name = threading.current_thread().name
    for _ in range(100):
        pulse.beat("waits for a frame", 5.0)
        clock.passes(4.9)
    assert pulse.overdue() == []
    clock.passes(5.0)
    (late,) = pulse.overdue()
    assert (late.thread, late.doing, late.for_s) == (name, "waits for a frame", pytest.approx(9.9))
    pulse.done(name)
    assert pulse.overdue() == []


def test_a_stated_wait_is_alive():
    """An uplink that waits five minutes for its next attempt is not taken for one that hangs."""
    clock = Clock()
    pulse = Pulse(clock)
    pulse.beat("waits for its next attempt", 300.0 + 60.0)
    clock.passes(300.0)
    assert pulse.overdue() == []


def test_where_a_thread_hangs_is_told():
    """The innermost places of its stack, so that nobody has to attach a debugger on a wall."""
    begun, over = threading.Event(), threading.Event()

    def hanging_driver():
        begun.set()
        over.wait(HANG_S)

    thread = threading.Thread(target=hanging_driver)
    thread.start()
    assert begun.wait(HANG_S)
    assert "test_pulse.py" in where_is(thread.ident)
    assert "hanging_driver" in where_is(thread.ident)
    over.set()
    thread.join(HANG_S)
    assert where_is(thread.ident) == ""
