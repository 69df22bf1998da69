"""A kiosk in small, to be cut, killed and starved: it puts, sends and settles, and says so.

It is forked by `faults.nursery` and does what an `Order` says, through nothing but the outbox's
public interface; only the two seeded bugs that lie inside the product are patched in.
"""

import ctypes
import itertools
import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults.account import Account
from kiosk.errors import KioskError, OutboxFullError
from kiosk.outbox import database
from kiosk.outbox.store import Outbox
from kiosk.types import Envelope, Punch, Receipt, ReceiptStatus
from kiosk.vault import Vault
from outbox.punching import DEVICE, Punches, StillClock

FILE = "outbox.db"
STOPPED = 74
"""The status of a kiosk that met an error it must not go on after, as the product ends."""
_AHEAD = 12
"""In the load: how many events the putting may be ahead of the sending."""
_ENOUGH_REFUSALS = 20
_PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Order:
    """What a kiosk is to do.

    `folder` holds its files, `account` what it says. `steps`: "put", "send", "freeze",
    "tend", "close", "load" (put and send for ever), "exhaust" (put until there is no space), each
    as often as it stands there. `gates`: stop at each gate for one byte.
    `checkpoint`: pages of the log after which it is folded in, 0 for the product's own number.
    `bug`: "", "promise-first" (before the commit), "normal" (no sync at a commit), "deaf" (an
    error is no reason not to promise).
    """

    folder: str
    account: str
    steps: Sequence[str] = ()
    seed: int = 0
    gates: bool = False
    checkpoint: int = 0
    bug: str = ""


def open_outbox(folder: Path) -> Outbox:
    """The product's outbox over the files of a folder; not started."""
    return Outbox(
        folder / FILE,
        vault=Vault(bytes(range(32))),
        device_id=DEVICE,
        signer=None,
        clock=StillClock(),
    )


def upkeep(outbox: Outbox) -> bool:
    """One step of what an outbox does beside its punches; whether more follow."""
    return outbox.tend()


def oldest(outbox: Outbox) -> Envelope | None:
    """What is to be sent next."""
    return next(iter(outbox.lease(1)), None)


def drain(outbox: Outbox) -> Iterator[bytes]:
    """Send all that waits, to a server that takes everything."""
    while (envelope := oldest(outbox)) is not None:
        yield envelope.body
        outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))


def people(seed: int) -> Iterator[Punch]:
    """Punches, each of another person."""
    punches = Punches(StillClock(), rng=random.Random(seed))
    for number in itertools.count():
        yield punches.make(employee=f"E-{seed}-{number}")


def run(order: Order) -> int:
    """Do it; returns the process's status."""
    _patch(order)
    gates = Gates(order.gates)
    kiosk = Kiosk(order)
    try:
        gates.stop("start")
        kiosk.outbox.start()
        gates.stop("work")
        for step in order.steps:
            getattr(kiosk, step)()
    except KioskError as error:
        print(f"the kiosk stops: {error}", file=sys.stderr)
        return STOPPED
    return 0


class Kiosk:
    """The steps."""

    def __init__(self, order: Order) -> None:
        self.outbox = open_outbox(Path(order.folder))
        self._account = Account(Path(order.account))
        self._bug = order.bug
        self._people = people(order.seed)
        self._ahead = threading.Semaphore(_AHEAD)

    def put(self) -> bool:
        """Record a punch; returns whether the outbox took it."""
        punch = next(self._people)
        if self._bug == "promise-first":
            self._account.recorded(punch.event_id)
        taken = False
        try:
            self.outbox.put(punch)
            taken = True
        except OutboxFullError:
            if self._bug != "deaf":
                self._account.refused(punch.event_id)
        except KioskError:
            if self._bug != "deaf":
                raise
        if self._bug == "deaf" or (taken and self._bug != "promise-first"):
            self._account.recorded(punch.event_id)
        return taken

    def send(self) -> bool:
        """Send the oldest event; returns whether one was settled."""
        try:
            envelope = oldest(self.outbox)
            if envelope is None:
                return False
            self._account.received(envelope.body)
            self.outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))
        except OutboxFullError:
            # The sender's way: the event stays and comes again.
            return False
        return True

    def tend(self) -> None:
        while upkeep(self.outbox):
            pass

    def freeze(self) -> None:
        """As if the line went down at the first byte."""
        oldest(self.outbox)

    def exhaust(self) -> None:
        refused = 0
        while refused < _ENOUGH_REFUSALS:
            refused = 0 if self.put() else refused + 1

    def close(self) -> None:
        self.outbox.close(60.0)

    def load(self) -> None:
        threading.Thread(target=self._send_for_ever, name="sender", daemon=True).start()
        while True:
            self._ahead.acquire()
            self.put()

    def _send_for_ever(self) -> None:
        while True:
            self.outbox.arrived.wait()
            self.outbox.arrived.clear()
            while self.send():
                self._ahead.release()


class Gates:
    """Where the kiosk waits until whoever watches has taken hold of one of its threads.

    Every thread that is born waits at a gate of its own, "born", before it does anything.
    """

    def __init__(self, closed: bool) -> None:
        self._closed = closed
        self._threads = {"main": threading.get_native_id()}
        if closed:
            # Who holds the thread is no parent of it, which some kernels ask to be allowed.
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, -1)
            threading.setprofile(self._born)

    def stop(self, gate: str) -> None:
        if self._closed:
            say({"gate": gate, "threads": self._threads})
            # A call that nothing else makes: it is the gate's, and no call of the kiosk's.
            os.readv(0, [bytearray(1)])

    def _born(self, *_: object) -> None:
        sys.setprofile(None)
        self._threads[threading.current_thread().name] = threading.get_native_id()
        self.stop("born")


def warm_up() -> None:
    """Load what is loaded at first use: a fork that loads it anew makes calls of no meaning."""
    with tempfile.TemporaryDirectory() as name:
        run(Order(name, f"{name}/account", ("put", "send", "close")))


def say(message: dict[str, object]) -> None:
    """One line to the process that watches."""
    os.write(1, json.dumps(message).encode() + b"\n")


def _patch(order: Order) -> None:
    changes: dict[str, tuple[str, object]] = {}
    if order.bug == "normal":
        changes["synchronous"] = ("NORMAL", 1)
    if order.checkpoint:
        changes["wal_autocheckpoint"] = (str(order.checkpoint), order.checkpoint)
    missing = changes.keys() - {name for name, *_ in database.PRAGMAS}
    if missing:
        raise AssertionError(f"expected pragmas {missing} to be the product's, they are not")
    database.PRAGMAS = tuple((name, *changes.get(name, rest)) for name, *rest in database.PRAGMAS)


def order_of(text: bytes) -> Order:
    """An order as it came by the pipe."""
    return replace(Order("", ""), **json.loads(text))
