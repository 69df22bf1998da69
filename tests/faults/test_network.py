"""Whatever the network does: at the server every event is there once and in order."""

import json
import random
from dataclasses import asdict

import pytest

from faults import mischief
from faults.chaos import THROUGH, Fault
from kiosk.outbox import rows
from kiosk.types import Receipt, ReceiptStatus

SEED = 4
TIMEOUT_S = 0.4
# The constant of the outbox that says which event is sent next.
ORDER = "_OLDEST"


@pytest.fixture
def station(net):
    """Set up a kiosk on it."""
    return lambda **changes: net.station(timeout_s=TIMEOUT_S, **changes)


def sizes(station):
    """How long a request and its reply are."""
    seen = []

    def look(exchange):
        request = exchange.request()
        seen.extend((len(request), len(exchange.forward(request))))
        exchange.send(exchange.forward_apart(request))
        return True

    kiosk = station()
    kiosk.put()
    kiosk.run([Fault("look", look)], punches=False)
    return seen[:2]


def fast(request, reply):
    yield from mischief.cuts(request, reply, step=17)
    yield from mischief.statuses(mischief.TELLING)
    yield from mischief.quick()
    yield from mischief.slow()


def long(request, reply):
    yield from mischief.cuts(request, reply)
    yield from mischief.statuses(mischief.STATUSES)
    for _ in range(10):
        yield from mischief.quick()
        yield from mischief.slow()


@pytest.mark.parametrize(
    "faults", [fast, pytest.param(long, marks=pytest.mark.faults)], ids=["fast", "long"]
)
def test_every_event_is_there_once_and_in_order(net, station, tell, faults):
    """Hundreds of faults one after another, a punch before each; in the end all is well."""
    planned = list(faults(*sizes(station)))
    kiosk = station()
    kiosk.run(mischief.shuffled(planned, THROUGH, random.Random(SEED)))
    roll = net.roll(kiosk)
    missed = {fault.name for fault in planned} - kiosk.met
    tell("network", faults=len(planned), missed=len(missed), **asdict(roll))
    assert roll.right, roll
    assert not missed


def words(kiosk, word="ok"):
    """A server that gives its word, signed, and does nothing else."""

    def do(exchange):
        body = json.loads(mischief.body_of(exchange.request()))
        receipts = [
            {
                "A1": message["A1"],
                "S1": word,
                "SIG2": kiosk.device.signer.sign_receipt(message["A1"], word, message["SIG1"]),
            }
            for message in (body if isinstance(body, list) else [body])
        ]
        told = receipts if isinstance(body, list) else receipts[0]
        exchange.send(mischief.answer("200 OK", json.dumps(told).encode()))
        return True

    return Fault(f"the word {word} alone", do)


def test_an_ack_before_the_commit_is_reported(net, station, tell):
    """Seeded: the server says ok and records nothing."""
    kiosk = station()
    kiosk.run([THROUGH, words(kiosk), THROUGH])
    roll = net.roll(kiosk)
    tell("network, control: ack first", **asdict(roll))
    assert roll.lost == roll.recorded - roll.there > 0


def test_knowing_events_by_their_number_is_reported(net, station, tell):
    """Seeded: the server takes for known whatever bears a number that it has seen."""
    first = station()
    first.run([THROUGH] * 3)
    # The kiosk lost its queue: a new one begins, with a new epoch and the old numbers.
    second = station(device=first.device)
    second.run([words(second, "duplicate")] * 3 + [THROUGH])
    roll = net.roll(first, second)
    tell("network, control: by number", **asdict(roll))
    assert roll.lost


@pytest.mark.parametrize(
    ("word", "count"), [(ReceiptStatus.OK, "lost"), (ReceiptStatus.REJECTED, "aside")]
)
def test_believing_any_200_is_reported(net, station, tell, word, count):
    """Seeded: the kiosk takes a captive portal's page for the server's word."""
    kiosk = station(read=lambda answer: Receipt(word, 0.0))
    portal = mischief.sent("portal", mischief.answer("200 OK", b"[1, 2, 3]"))
    kiosk.run([portal] * 3)
    roll = net.roll(kiosk)
    tell(f"network, control: any 200 {word.value}", **asdict(roll))
    assert getattr(roll, count)


def test_sending_the_newest_first_is_reported(net, station, tell, monkeypatch):
    """Seeded: the queue is a stack."""
    was = getattr(rows, ORDER)
    monkeypatch.setattr(rows, ORDER, was.replace("BY waiting.position", "BY waiting.position DESC"))
    assert getattr(rows, ORDER) != was
    kiosk = station()
    for _ in range(3):
        kiosk.put()
    kiosk.run([])
    roll = net.roll(kiosk)
    tell("network, control: newest first", **asdict(roll))
    assert roll.disordered
    assert not roll.lost


def test_a_new_event_for_each_attempt_is_reported(net, station, tell):
    """Seeded: the kiosk does not send again, it records again."""
    kiosk = station(renames=True)
    kiosk.run([mischief.cut_reply(0, hard=False)])
    roll = net.roll(kiosk)
    tell("network, control: a new event", **asdict(roll))
    assert roll.doubled
