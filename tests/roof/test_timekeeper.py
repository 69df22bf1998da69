"""The clock's own story: what is noted of it, when, and what the journal says."""

import logging
import threading
from dataclasses import dataclass, field

import pytest

from kiosk.errors import OutboxFullError
from kiosk.timekeeper import Timekeeper
from kiosk.types import Stamp, Trust


@dataclass
class Hands:
    """A clock set by hand; waiting moves it."""

    utc_ms: int = 1_790_000_000_000
    ns: int = 30_000_000_000
    trust: Trust = Trust.UNSYNCED

    def now(self):
        return Stamp(self.utc_ms, self.ns, "boot-1", self.trust)

    def boottime_ns(self):
        return self.ns

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.utc_ms += int(timeout_s * 1000)
        self.ns += int(timeout_s * 1_000_000_000)
        return event.is_set()


@dataclass
class Book:
    """The outbox as the timekeeper sees it; full while `full`."""

    notes: list = field(default_factory=list)
    full: bool = False

    def note_time(self, now, *, rtc):
        if self.full:
            raise OutboxFullError("no space")
        self.notes.append((now.boottime_ns, now.trust, rtc))


@pytest.fixture
def hands():
    return Hands()


def test_the_boot_is_noted_at_once_and_the_first_good_moment_too(hands):
    """A boot that is never synchronised still has its place among the others."""
    book = Book()
    keeper = Timekeeper(book, clock=hands, rtc=True, beat=lambda *_: None)
    keeper.look()
    assert [note[1:] for note in book.notes] == [(Trust.UNSYNCED, True)]
    hands.trust = Trust.SYNCED
    keeper.look()
    assert [note[1:] for note in book.notes[1:]] == [(Trust.SYNCED, True)]
    assert keeper.trust is Trust.SYNCED


def test_a_good_moment_is_noted_every_hour(hands):
    """Often enough to bound what comes after a power cut, seldom enough for the card."""
    hands.trust = Trust.SYNCED
    book = Book()
    keeper = Timekeeper(book, clock=hands, rtc=False, beat=lambda *_: None)
    for _ in range(2 * 3600 + 1):
        keeper.look()
        hands.wait(threading.Event(), 1)
    gaps = [(b[0] - a[0]) / 1e9 for a, b in zip(book.notes, book.notes[1:], strict=False)]
    assert gaps == [3600, 3600]


def test_a_full_disk_is_told_and_tried_again(hands, caplog):
    """Nothing ends; the next moment is as good."""
    book = Book(full=True)
    keeper = Timekeeper(book, clock=hands, rtc=False, beat=lambda *_: None)
    keeper.look()
    assert "clock.not_noted" in caplog.text
    book.full = False
    keeper.look()
    assert len(book.notes) == 1


def test_the_journal_tells_each_change_and_the_step(hands, caplog):
    """By how much the clock was wrong is what somebody who reads it wants to know."""
    caplog.set_level(logging.INFO)
    keeper = Timekeeper(Book(), clock=hands, rtc=False, beat=lambda *_: None)
    stop = threading.Event()
    stop.set()
    keeper.run(stop)
    assert [record.message for record in caplog.records] == ["clock.unsynchronised"]
    hands.trust, hands.utc_ms = Trust.SYNCED, hands.utc_ms + 7_200_000
    keeper.look()
    assert caplog.records[-1].message == "clock.synchronised"
    assert caplog.records[-1].fields["step_s"] == 7200.0
    keeper.look()
    assert len(caplog.records) == 2
