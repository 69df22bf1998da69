"""What says the same again is counted."""

import logging

import pytest

from kiosk.clock import NS_PER_S
from kiosk.repeats import Repeats

log = logging.getLogger("kiosk.test")


@pytest.fixture
def hours(clock, monkeypatch):
    """Moves the journal's clock to a number of seconds."""
    now = {"s": 0.0}
    monkeypatch.setattr(type(clock), "boottime_ns", lambda _: int(now["s"] * NS_PER_S))

    def at(seconds):
        now["s"] = seconds

    return at


def test_a_camera_that_is_gone_for_a_day_is_told_of_thirty_times(journal, hours):
    """Every ten seconds the same: without counting 8,640 lines, with it a few, none of it lost."""
    lines = journal()
    for number in range(8640):
        hours(number * 10.0)
        log.error("camera.failed", extra={"fields": {"reason": "no cable", "failures": number}})
    told = lines()
    assert 20 <= len(told) <= 35
    counted = sum(int(line.split("repeated=")[1]) for line in told if "repeated=" in line)
    assert counted + len(told) + 359 >= 8640


def test_another_reason_is_another_happening(journal, hours):
    """What differs in words is told at once; what differs in numbers only is the same."""
    lines = journal()
    for reason in ("no cable", "no power", "no cable"):
        log.error("camera.failed", extra={"fields": {"reason": reason, "failures": 1}})
    assert [line.split("reason=")[1] for line in lines()] == [
        '"no cable" failures=1',
        '"no power" failures=1',
    ]


def test_what_stops_repeating_is_still_counted(journal, hours):
    """The ones that were left out are told by the next line of any kind."""
    lines = journal()
    for _ in range(5):
        log.warning("a.b", extra={"fields": {"reason": "x"}})
    hours(121.0)
    log.info("c.d")
    assert [line.split(" ", 2)[2] for line in lines()] == [
        "a.b reason=x",
        'journal.repeated what="a.b reason=x" count=4',
        "c.d",
    ]


@pytest.mark.parametrize(
    ("level", "event"),
    [
        (logging.INFO, "visit.recorded"),
        (logging.WARNING, "visit.cannot_record"),
        (logging.CRITICAL, "outbox.lost"),
    ],
)
def test_visits_and_what_is_critical_are_never_left_out(journal, hours, level, event):
    """Each is somebody's own, or wants somebody to come."""
    lines = journal()
    for _ in range(3):
        log.log(level, event)
    assert len(lines()) == 3


def test_windows_double_and_quiet_forgives():
    """60 s, 120 s, ... up to an hour; after a quiet window it is told at once as new."""
    repeats, told = Repeats(), []
    for second in range(0, 4 * 3600, 10):
        if repeats.admits("x", second * NS_PER_S) is not None:
            told.append(second)
    assert told == [0, 60, 180, 420, 900, 1860, 3780, 7380, 10980]
    assert repeats.admits("x", (10980 + 7300) * NS_PER_S) is not None
    assert repeats.admits("x", (10980 + 7300 + 61) * NS_PER_S) is not None


def test_it_keeps_no_more_than_it_may():
    """A reason that is new each time does not eat the memory."""
    repeats = Repeats()
    for number in range(10_000):
        repeats.admits(str(number), number)
    assert len(repeats._seen) <= 200
