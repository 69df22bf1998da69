"""The heartbeat: signed, now and then, told once when it fails, silent where nobody knows it."""

import logging
import random
import threading

import pytest

from kiosk.errors import LinkDownError, MessageError, UplinkPausedError
from kiosk.types import Stamp, Trust
from kiosk.uplink.heart import Heart
from kiosk.wire.heartbeat import MAX_NUMBERS, Standing, read, write
from kiosk.wire.signing import Signer

NOW = Stamp(1_780_000_000_123, 5, "boot", Trust.SYNCED)
SIGNER = Signer("k-1", bytes(range(32)))
STANDING = Standing("m-192", "1.2.3", "ab:17", 3, 60, ["ab:4"], "running")


class Clock:
    """Ends the heart after so many waits."""

    def __init__(self, stop, count):
        self.stop, self.count, self.waits = stop, count, []

    def now(self):
        return NOW

    def wait(self, event, timeout_s):
        self.waits.append(timeout_s)
        if len(self.waits) > self.count:
            self.stop.set()
        return self.stop.is_set()


def beats(count, *outcomes, beat=lambda *_: None):
    """The heart after so many waits, with what each post met: None or an error."""
    stop, sent, left = threading.Event(), [], list(outcomes)
    clock = Clock(stop, count)

    class Post:
        def post(self, letter, *, is_batch):
            (envelope,) = letter()
            sent.append((envelope, is_batch))
            outcome = left.pop(0) if left else None
            if outcome is not None:
                raise outcome

    heart = Heart(
        Post(),
        lambda: write("d-1", NOW, STANDING, SIGNER),
        period_s=300.0,
        clock=clock,
        rng=random.Random(1),
        beat=beat,
    )
    heart.run(stop)
    return heart, clock, sent


def test_it_beats_with_its_period_and_never_as_an_event():
    """A tenth earlier or later; no event id, so no idempotency key, and no batch."""
    heart, clock, sent = beats(4)
    assert len(sent) == 4
    assert clock.waits[0] <= 10.0
    assert all(270.0 <= wait <= 330.0 for wait in clock.waits[1:])
    assert len(set(clock.waits)) > 3
    assert {(envelope.event_id, is_batch) for envelope, is_batch in sent} == {("", False)}
    assert heart.last_ms == NOW.utc_ms


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_the_route_is_asked_once(status, caplog):
    """Until the next start; the thread stays, and says that it waits."""
    caplog.set_level(logging.INFO)
    said = []
    _, clock, sent = beats(
        5, UplinkPausedError("refused", status=status), beat=lambda *step: said.append(step)
    )
    # Before each wait it says how long that takes, or the watchdog would end a healthy daemon.
    assert [step[1] for step in said[-2:]] == [360.0, 360.0]
    assert clock.waits[-1] == 300.0
    assert len(sent) == 1
    assert [record.message for record in caplog.records] == ["heartbeat.unknown"]


def test_a_failure_is_told_once_and_tried_again(caplog):
    """401 and a dead link do not end it; the journal has one line for each time it begins."""
    errors = [LinkDownError("down"), UplinkPausedError("no", status=401), None, LinkDownError("x")]
    _, _, sent = beats(5, *errors)
    assert len(sent) == 5
    assert [record.message for record in caplog.records] == ["heartbeat.failing"] * 2


def test_what_is_written_is_read_and_signed():
    """The fields of the protocol, signed over all of them."""
    fields = read(write("d-1", NOW, STANDING, SIGNER))
    assert SIGNER.message_is_authentic(fields)
    assert {k: v for k, v in fields.items() if k != "SIG1"} == {
        "V1": "1",
        "D1": "d-1",
        "TS1": "2026-05-28T20:26:40.123Z",
        "CLK": "synced",
        "F2_MODEL": "m-192",
        "VERSION": "1.2.3",
        "SEQ": "ab:17",
        "QUEUE": 3,
        "QUEUE_AGE_S": 60,
        "QUARANTINE": ["ab:4"],
        "STATE": "running",
        "K1": "k-1",
    }


def test_a_long_quarantine_is_cut():
    """A thousand numbers are enough to explain a gap; the body stays bounded."""
    many = Standing("m", "1", "ab:1", 0, 0, [f"ab:{n}" for n in range(5000)], "running")
    assert len(read(write("d-1", NOW, many, None))["QUARANTINE"]) == MAX_NUMBERS


@pytest.mark.parametrize(
    "change",
    [
        {"QUEUE": -1},
        {"QUEUE": True},
        {"QUEUE": "3"},
        {"QUARANTINE": None},
        {"QUARANTINE": [1]},
        {"QUARANTINE": ["ab:1"] * (MAX_NUMBERS + 1)},
        {"D1": "a b"},
        {"STATE": ""},
        {"SEQ": "x"},
        {"V1": "2"},
    ],
)
def test_what_does_not_check_is_named(change):
    """The field, what was expected, what came."""
    from kiosk.wire.jsontext import canonical

    fields = {**read(write("d-1", NOW, STANDING, None)), **change}
    with pytest.raises(MessageError, match=f"{next(iter(change))}: expected"):
        read(canonical(fields))
