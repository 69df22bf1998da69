"""Whatever the network does: at the server every event is there once and in order."""

import json
import logging
import random
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults import mischief
from faults.chaos import REFUSE, THROUGH, Exchange, Fault, Proxy
from faults.roll import alarms, at_server, call
from faults.serving import DATABASE, server
from faults.station import Device, Station, WaitingClock
from kiosk.outbox import rows
from kiosk.types import Receipt, ReceiptStatus

SEED = 4
TIMEOUT_S = 0.4
# The constant of the outbox that says which event is sent next.
ORDER = "_OLDEST"


class Network:
    """The real server, and stations on a network before it."""

    def __init__(self, folder, url):
        self.url, self._database, self._folder = url, folder / DATABASE, folder
        self.proxy = Proxy("127.0.0.1", urlsplit(url).port)
        self._stations = []

    def device(self):
        device = Device(self.url)
        device.register()
        return device

    def station(self, scratch, device=None, **mistakes):
        path = scratch / f"{len(self._stations)}.db"
        station = Station(
            path,
            device or self.device(),
            self.proxy,
            clock=WaitingClock(),
            timeout_s=TIMEOUT_S,
            **mistakes,
        )
        self._stations.append(station)
        return station

    def roll(self, *stations):
        """Call the roll of one device, which stood at these stations."""
        device = stations[0].device.name
        status = [station.outbox.status() for station in stations]
        return call(
            [one for station in stations for one in station.punched],
            list(at_server(self._database, device)),
            aside=sum(one.quarantined for one in status),
            waiting=sum(one.pending for one in status),
            alarms=alarms(self._database, device),
        )

    def close(self):
        for station in self._stations:
            station.close()
        self.proxy.close()


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """The server's program."""
    folder = tmp_path_factory.mktemp("server")
    with server(folder) as url:
        yield folder, url


@pytest.fixture
def network(serving):
    # Thousands of failures, each told as it should be, are not to be told here.
    for name in ("kiosk", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    network = Network(*serving)
    yield network
    network.close()


def sizes(network, scratch):
    """How long a request and its reply are."""
    seen = []

    def look(exchange):
        request = exchange.request()
        seen.extend((len(request), len(exchange.forward(request))))
        exchange.send(exchange.forward_apart(request))
        return True

    station = network.station(scratch)
    station.put()
    station.run([Fault("look", look)], punches=False)
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
def test_every_event_is_there_once_and_in_order(network, scratch, tell, faults):
    """Hundreds of faults one after another, a punch before each; in the end all is well."""
    planned = list(faults(*sizes(network, scratch)))
    station = network.station(scratch)
    station.run(mischief.shuffled(planned, THROUGH, random.Random(SEED)))
    roll = network.roll(station)
    missed = {fault.name for fault in planned} - station.met
    tell("network", faults=len(planned), missed=len(missed), **asdict(roll))
    assert roll.right, roll
    assert not missed


def words(network, station, word="ok"):
    """A server that gives its word, signed, and does nothing else."""

    def do(exchange):
        body = json.loads(mischief.body_of(exchange.request()))
        receipts = [
            {
                "A1": message["A1"],
                "S1": word,
                "SIG2": station.device.signer.sign_receipt(message["A1"], word, message["SIG1"]),
            }
            for message in (body if isinstance(body, list) else [body])
        ]
        told = receipts if isinstance(body, list) else receipts[0]
        exchange.send(mischief.answer("200 OK", json.dumps(told).encode()))
        return True

    return Fault(f"the word {word} alone", do)


def test_an_ack_before_the_commit_is_reported(network, scratch, tell):
    """Seeded: the server says ok and records nothing."""
    station = network.station(scratch)
    station.run([THROUGH, words(network, station), THROUGH])
    roll = network.roll(station)
    tell("network, control: ack first", **asdict(roll))
    assert roll.lost == roll.recorded - roll.there > 0


def test_knowing_events_by_their_number_is_reported(network, scratch, tell):
    """Seeded: the server takes for known whatever bears a number that it has seen."""
    first = network.station(scratch)
    first.run([THROUGH] * 3)
    # The kiosk lost its queue: a new one begins, with a new epoch and the old numbers.
    second = network.station(scratch, device=first.device)
    second.run([words(network, second, "duplicate")] * 3 + [THROUGH])
    roll = network.roll(first, second)
    tell("network, control: by number", **asdict(roll))
    assert roll.lost


@pytest.mark.parametrize(
    ("word", "count"), [(ReceiptStatus.OK, "lost"), (ReceiptStatus.REJECTED, "aside")]
)
def test_believing_any_200_is_reported(network, scratch, tell, word, count):
    """Seeded: the kiosk takes a captive portal's page for the server's word."""
    station = network.station(scratch, read=lambda answer: Receipt(word, 0.0))
    portal = mischief.sent("portal", mischief.answer("200 OK", b"[1, 2, 3]"))
    station.run([portal] * 3)
    roll = network.roll(station)
    tell(f"network, control: any 200 {word.value}", **asdict(roll))
    assert getattr(roll, count)


def test_sending_the_newest_first_is_reported(network, scratch, tell, monkeypatch):
    """Seeded: the queue is a stack."""
    was = getattr(rows, ORDER)
    monkeypatch.setattr(rows, ORDER, was.replace("waiting.position", "waiting.position DESC"))
    assert getattr(rows, ORDER) != was
    station = network.station(scratch)
    for _ in range(3):
        station.put()
    station.run([])
    roll = network.roll(station)
    tell("network, control: newest first", **asdict(roll))
    assert roll.disordered
    assert not roll.lost


def test_a_new_event_for_each_attempt_is_reported(network, scratch, tell):
    """Seeded: the kiosk does not send again, it records again."""
    station = network.station(scratch, renames=True)
    station.run([mischief.cut_reply(0, hard=False)])
    roll = network.roll(station)
    tell("network, control: a new event", **asdict(roll))
    assert roll.doubled
