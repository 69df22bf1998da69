"""What must be there, as a plain model, and a machine that walks the outbox and it side by side."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faults import disk
from faults.aftermath import copied
from faults.roll import Punched, Roll, call
from kiosk.errors import KioskError, OutboxFullError
from kiosk.outbox.ledger import Ledger
from kiosk.outbox.store import Outbox
from kiosk.types import Envelope, Punch, Receipt, ReceiptStatus
from kiosk.vault import Vault
from kiosk.wire.jsontext import read_object
from outbox.punching import DEVICE, Punches, StillClock

FILE = "outbox.db"
_END_S = 60.0
_TEN_YEARS_MS = 10 * 365 * 86_400_000
_ENDS = st.sampled_from([ReceiptStatus.OK, ReceiptStatus.PENDING, ReceiptStatus.DUPLICATE])
_ANY = st.integers(0, 2**30)


def oldest(outbox: Outbox) -> Envelope | None:
    """What is to be sent next."""
    return next(iter(outbox.lease(1)), None)


@dataclass
class Event:
    """One event of the model; `state` as the outbox names it."""

    punch: Punch
    seq: str
    state: str = "queued"
    body: bytes | None = None


@dataclass
class Server:
    """Records an event once; another body under a known id is an alarm."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    alarms: int = 0

    def take(self, envelope: Envelope) -> None:
        known = self.bodies.setdefault(envelope.event_id, envelope.body)
        self.alarms += known != envelope.body

    def roll(self) -> list[Punched]:
        """What it has, in the order in which it came."""
        messages = [read_object(body, ValueError) for body in self.bodies.values()]
        return [Punched(str(m["A1"]), str(m["E1"]), str(m["SEQ"])) for m in messages]


class Machine(RuleBasedStateMachine):
    """One kiosk, from its first start to an empty queue.

    `mistakes`: how a wrong kiosk differs, by the name of what it does otherwise.
    """

    sequences = 0
    steps = 0
    mistakes: ClassVar[dict[str, Callable[..., object]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=disk.scratch(), prefix="faults-model-"))
        self.home, self.lives = self.folder / "0", 0
        self.home.mkdir()
        self.clock = StillClock()
        self.punches = Punches(self.clock, rng=random.Random(3))
        self.events: list[Event] = []
        self.server = Server()
        self.in_flight: Envelope | None = None
        self.answered = False
        self.full = False
        self.outbox = self.opened(self.home)

    def opened(self, home: Path) -> Outbox:
        outbox = Outbox(
            home / FILE,
            vault=Vault(bytes(range(32))),
            device_id=DEVICE,
            signer=None,
            clock=self.clock,
        )
        outbox.start()
        return outbox

    def of(self, state: str) -> list[Event]:
        return [event for event in self.events if event.state == state]

    @rule(jump_ms=st.one_of(st.just(0), st.integers(-_TEN_YEARS_MS, _TEN_YEARS_MS)))
    def insert(self, jump_ms: int) -> None:
        """Somebody passes, at whatever the clock says; on a full disk it may say so."""
        self.clock.utc_ms = max(0, self.clock.utc_ms + jump_ms)
        self.clock.boot_ns += 1_000_000
        punch = self.punches.make(employee=f"E-{len(self.events)}")
        try:
            seq = self.mistakes.get("put", Outbox.put)(self.outbox, punch)
        except OutboxFullError:
            assert self.full, "no space, on a disk that has some"
            return
        self.events.append(Event(punch, seq))

    @rule()
    def send(self) -> None:
        """The oldest goes out and is recorded; whether the answer comes is another matter."""
        try:
            envelope = self.mistakes.get("lease", oldest)(self.outbox)
        except OutboxFullError:
            assert self.full
            return
        waiting = self.of("queued")
        if not waiting:
            assert envelope is None, "an event that should not be there"
            return
        first = waiting[0]
        assert envelope is not None, "no event, and some should be there"
        self.is_first(envelope, first)
        self.server.take(envelope)
        self.in_flight, self.answered = envelope, True

    @rule()
    def send_in_vain(self) -> None:
        """The oldest goes out and does not arrive: what answers is not the server."""
        try:
            envelope = oldest(self.outbox)
        except OutboxFullError:
            assert self.full
            return
        if envelope is None:
            return
        self.is_first(envelope, self.of("queued")[0])
        self.in_flight, self.answered = envelope, False

    def is_first(self, envelope: Envelope, first: Event) -> None:
        assert envelope.event_id == first.punch.event_id, "another event than the oldest"
        assert envelope.seq == first.seq, "another number than was told"
        first.body = first.body or envelope.body
        assert envelope.body == first.body, "another body than before"

    @precondition(lambda self: self.in_flight is not None)
    @rule(word=_ENDS)
    def ack(self, word: ReceiptStatus) -> None:
        """The answer comes, if there is one."""
        envelope, self.in_flight = self.in_flight, None
        assert envelope is not None
        if self.answered or "believe" in self.mistakes:
            self.end(envelope.event_id, Receipt(word, 0.0))

    @precondition(lambda self: self.in_flight is not None and not self.answered)
    @rule()
    def reject(self) -> None:
        """The server answers that it does not want this one."""
        envelope, self.in_flight = self.in_flight, None
        assert envelope is not None
        if envelope.event_id not in self.server.bodies:
            self.end(envelope.event_id, Receipt(ReceiptStatus.REJECTED, 0.0))

    @rule()
    def lose_the_answer(self) -> None:
        """It will be sent again."""
        self.in_flight = None

    def end(self, name: str, receipt: Receipt) -> None:
        event = next(event for event in self.events if event.punch.event_id == name)
        try:
            self.outbox.settle(name, receipt)
        except OutboxFullError:
            assert self.full
            return
        is_aside = receipt.status is ReceiptStatus.REJECTED
        event.state = "quarantined" if is_aside else "settled"

    @precondition(lambda self: self.of("queued"))
    @rule(pick=_ANY)
    def quarantine(self, pick: int) -> None:
        """One is set aside by hand; a line that is under way is over."""
        waiting = self.of("queued")
        event = waiting[pick % len(waiting)]
        self.in_flight = None
        try:
            self.outbox.quarantine(event.punch.event_id, "by hand")
        except OutboxFullError:
            assert self.full
            return
        event.state = "quarantined"

    @precondition(lambda self: self.of("quarantined"))
    @rule(pick=_ANY, every=st.booleans())
    def retry(self, pick: int, every: bool) -> None:
        """One, or all, go back to their old places."""
        aside = self.of("quarantined")
        chosen = aside if every else [aside[pick % len(aside)]]
        self.in_flight = None
        try:
            self.outbox.retry(None if every else [chosen[0].punch.event_id])
        except OutboxFullError:
            assert self.full
            return
        for event in chosen:
            event.state = "queued"

    @rule()
    def fill(self) -> None:
        """The file may not grow any more."""
        self.pragma("max_page_count = 1")
        self.full = True

    @precondition(lambda self: self.full)
    @rule()
    def free(self) -> None:
        """There is space again."""
        self.pragma("max_page_count = 1073741823")
        self.full = False

    @rule(boot=st.booleans())
    def crash(self, boot: bool) -> None:
        """The files as they are at this moment are all that is left."""
        self.lives += 1
        home = copied(self.home, self.folder / str(self.lives))
        self.leave()
        self.home = home
        self.start_anew(boot)

    @rule(boot=st.booleans())
    def restart(self, boot: bool) -> None:
        """A clean end, and a new start."""
        self.outbox.close(_END_S)
        self.start_anew(boot)

    @precondition(lambda self: self.events)
    @rule(at=_ANY, bit=st.integers(0, 7), log=st.booleans())
    def corrupt(self, at: int, bit: int, log: bool) -> None:
        """Beside it, a copy with one flipped bit: never anything that was not recorded is sent."""
        home = copied(self.home, self.folder / "damaged")
        file = home / (f"{FILE}-wal" if log else FILE)
        data = bytearray(file.read_bytes()) if file.exists() else bytearray()
        if not data:
            return
        data[at % len(data)] ^= 1 << bit
        file.write_bytes(data)
        known = {(event.punch.event_id, event.punch.employee) for event in self.events}
        for body in whatever_is_sent(lambda: self.opened(home)):
            message = read_object(body, ValueError)
            assert (message["A1"], message["E1"]) in known

    @invariant()
    def agrees(self) -> None:
        """Counts, and when the oldest was seen."""
        type(self).steps += 1
        status = self.outbox.status()
        waiting = self.of("queued")
        counts = (len(waiting), len(self.of("quarantined")), len(self.of("settled")))
        assert (status.pending, status.quarantined, status.settled) == counts, "other counts"
        assert status.highest == len(self.events), "another highest number"
        oldest_seen = waiting[0].punch.seen if waiting else None
        assert status.oldest == oldest_seen, "another event is the oldest"

    def teardown(self) -> None:
        """The link is good, and what was set aside is tried again: the roll is called."""
        type(self).sequences += 1
        try:
            self.pragma("max_page_count = 1073741823")
            self.outbox.retry(None)
            while (envelope := oldest(self.outbox)) is not None:
                self.server.take(envelope)
                self.outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))
            roll = self.roll()
            assert roll == Roll(len(self.events), len(self.events)), roll
        finally:
            self.leave()
            shutil.rmtree(self.folder)

    def roll(self) -> Roll:
        """Sorted by number: what was set aside comes late, and each send saw its order."""
        status = self.outbox.status()
        return call(
            [Punched(e.punch.event_id, str(e.punch.employee), e.seq) for e in self.events],
            sorted(self.server.roll(), key=lambda one: int(one.seq.split(":")[1])),
            aside=status.quarantined,
            waiting=status.pending,
            alarms=self.server.alarms,
        )

    def start_anew(self, boot: bool) -> None:
        self.in_flight, self.full = None, False
        if boot:
            self.clock.boot_id, self.clock.boot_ns = f"boot-{self.lives}-{len(self.events)}", 1
        self.outbox = self.opened(self.home)

    def leave(self) -> None:
        """Nothing of what it does from now on is seen by anybody."""
        self.outbox.close(_END_S)

    def pragma(self, text: str) -> None:
        """In the outbox's own connection, by its own thread."""

        def work(ledger: Ledger) -> None:
            ledger._database._connection.execute(f"PRAGMA {text}").fetchall()

        self.outbox._ask(work)


def whatever_is_sent(start: Callable[[], Outbox]) -> list[bytes]:
    """All that a damaged queue still sends; it may refuse to start, or stop at any point.

    In what words it refuses is judged where nothing but damage is done (test_damage).
    """
    sent: list[bytes] = []
    try:
        outbox = start()
    except Exception:  # noqa: BLE001 - see above
        return sent
    try:
        while (envelope := oldest(outbox)) is not None:
            sent.append(envelope.body)
            outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))
    except Exception:  # noqa: BLE001 - see above
        return sent
    finally:
        with contextlib.suppress(KioskError):  # a damaged file may not close as it should
            outbox.close(_END_S)
    return sent
