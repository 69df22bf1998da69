"""A small server that answers as told, a clock whose waits cost nothing, envelopes to send."""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from kiosk.clock import SystemClock
from kiosk.config import Server
from kiosk.errors import BareRefusalError, ReceiptError, UplinkPausedError
from kiosk.types import (
    Direction,
    Embedding,
    Envelope,
    Punch,
    Receipt,
    ReceiptStatus,
    Stamp,
    Trust,
)
from kiosk.uplink.answer import Reply
from kiosk.uplink.post import Poster
from kiosk.uplink.sender import Sender
from kiosk.wire.eventid import new_event_id

START_MS = 1_790_000_000_000
# A hang detector: five times what a slow machine would need.
HANG_S = 25.0

OK = Receipt(ReceiptStatus.OK, 0.0)

Answer = Callable[[socket.socket, "Request"], bool | None]


@dataclass(frozen=True)
class Request:
    """What came in: request line, headers by lower-case name, body, the client's port."""

    line: str
    headers: dict[str, str]
    body: bytes
    port: int


def reply(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """Bytes of a whole HTTP/1.1 reply."""
    given = {"Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def receipt_for(request: Request, **fields: object) -> bytes:
    """The body of a right receipt, or of an array of them for a batch."""
    sent = json.loads(request.body)
    words = [
        {"A1": message["A1"], "S1": "ok"} | fields
        for message in (sent if isinstance(sent, list) else [sent])
    ]
    return json.dumps(words if isinstance(sent, list) else words[0]).encode()


def proper(connection: socket.socket, request: Request) -> bool:
    """Answer as an attendance server does; the connection stays open."""
    connection.sendall(reply(body=receipt_for(request)))
    return True


class StubServer:
    """Accepts on loopback and answers each request with the next of `answers`, then `proper`.

    An answer returns True to keep the connection for the next request.
    """

    def __init__(self, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self._wrap = wrap or (lambda accepted: accepted)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.scheme = "https" if wrap else "http"
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.accepted = threading.Event()
        self.asked = threading.Event()
        self.closing = threading.Event()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.closing.set()
        for live in (self._listener, *self._connections):
            with contextlib.suppress(OSError):  # its client may have left already
                live.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HANG_S)
            assert not thread.is_alive()
        for done in (self._listener, *self._connections):
            done.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut: the end
            while True:
                accepted, address = self._listener.accept()
                self._connections.append(accepted)
                self.accepted.set()
                thread = threading.Thread(target=self._serve, args=(accepted, address[1]))
                self._threads.append(thread)
                thread.start()

    def _serve(self, accepted: socket.socket, port: int) -> None:
        # A client that goes away, or was cut off, is what half of the tests are about.
        with contextlib.suppress(OSError, ValueError), self._wrap(accepted) as connection:
            self._connections.append(connection)
            with connection.makefile("rb") as stream:
                while (request := self._read(stream, port)) is not None:
                    self.requests.append(request)
                    answer = self.answers.pop(0) if self.answers else proper
                    self.asked.set()
                    if not answer(connection, request):
                        return

    @staticmethod
    def _read(stream, port: int) -> Request | None:
        line = stream.readline().decode().strip()
        if not line:
            return None
        headers = {}
        while text := stream.readline().decode("latin-1").strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        return Request(line, headers, stream.read(int(headers["content-length"])), port)


@dataclass
class QuickClock:
    """Waiting moves it and costs nothing; `on_wait` is called with each length, in order."""

    utc_ms: int = START_MS
    boot_ns: int = 10_000_000_000
    waits: list[float] = field(default_factory=list)
    on_wait: Callable[[float], None] = lambda _: None

    def now(self) -> Stamp:
        return Stamp(self.utc_ms, self.boot_ns, "boot-1", Trust.SYNCED)

    def boottime_ns(self) -> int:
        return self.boot_ns

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        self.utc_ms += int(timeout_s * 1000)
        self.boot_ns += int(timeout_s * 1_000_000_000)
        self.on_wait(timeout_s)
        return event.is_set()


@pytest.fixture(scope="session")
def tell() -> SimpleNamespace:
    """What answers are made of."""
    return SimpleNamespace(reply=reply, receipt_for=receipt_for, proper=proper, hang_s=HANG_S)


@pytest.fixture
def quick() -> QuickClock:
    """A clock whose waits cost nothing."""
    return QuickClock()


@pytest.fixture
def serve() -> Iterator[Callable[..., StubServer]]:
    """Start servers that end with the test."""
    started: list[StubServer] = []

    def start(**options: object) -> StubServer:
        server = StubServer(**options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(serve) -> StubServer:
    """One plain server."""
    return serve()


class OneLetter(Poster):
    """A poster for those who have their letter at hand and want the reply's body."""

    def send(self, envelope: Envelope) -> bytes:
        return self.post(lambda: [envelope], is_batch=False).body


@pytest.fixture
def poster() -> Iterator[Callable[..., OneLetter]]:
    """Make posters with short timeouts; their waits take real time, as the network's do."""
    made: list[OneLetter] = []

    def make(url: str, **changes: object) -> OneLetter:
        options = {"url": url, "connect_timeout_s": 5.0, "read_timeout_s": 5.0} | changes
        made.append(OneLetter(Server(**options), clock=SystemClock()))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def envelope() -> Envelope:
    """Something to send."""
    name = "01890a5d-ac96-774b-bcce-b302099a8057"
    return Envelope("0badcafe:1", name, json.dumps({"A1": name}).encode(), 1)


@pytest.fixture
def make_punch() -> Callable[[], Punch]:
    """Punches for an outbox, each with an id of its own."""
    rng = random.Random(5)
    embedding = Embedding.of(np.random.default_rng(3).standard_normal(192), "test-space")

    def make() -> Punch:
        return Punch(
            event_id=new_event_id(START_MS, rng),
            employee="E-1",
            kind=Direction.IN,
            embedding=embedding,
            score=0.75,
            quality=0.5,
            liveness=None,
            seen=Stamp(START_MS, 1, "boot-1", Trust.SYNCED),
        )

    return make


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], object]], Callable[[], object]]]:
    """Run something in a thread; the returned function waits for it and gives result or error."""

    def start(work: Callable[[], object]) -> Callable[[], object]:
        outcome: list[object] = []

        def run() -> None:
            try:
                outcome.append(work())
            except Exception as error:  # noqa: BLE001 - given to whoever waits
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def finish() -> object:
            thread.join(HANG_S)
            assert not thread.is_alive(), "it hangs"
            return outcome[0]

        return finish

    return start


class ListQueue:
    """A queue in memory that obeys the outbox's rules."""

    def __init__(self, count):
        self.arrived = threading.Event()
        self.waiting = [Envelope(f"e:{n}", f"id-{n}", b"body", 1) for n in range(1, count + 1)]
        self.settled, self.quarantined = [], []
        self.failures = {"lease": [], "settle": []}

    def _fail(self, name):
        if self.failures[name]:
            raise self.failures[name].pop(0)

    def waits(self, count=1):
        return len(self.waiting) >= count

    def lease(self, limit, *, beyond=None):
        self._fail("lease")
        first = 0 if beyond is None else self._place(beyond) + 1
        return self.waiting[first : first + limit]

    def settle_all(self, words):
        self._fail("settle")
        for event_id, receipt in words:
            del self.waiting[self._place(event_id)]
            self.settled.append((event_id, receipt.status))

    def quarantine(self, event_id, reason):
        del self.waiting[self._place(event_id)]
        self.quarantined.append((event_id, reason))

    def _place(self, event_id):
        return [envelope.event_id for envelope in self.waiting].index(event_id)


class Bench:
    """A sender with all it needs.

    `outcomes`: what each request meets, then OK; a function is given the ids of the request.
    `plain`: for a server that knows no batches.
    """

    def __init__(self, clock, count, outcomes, plain, *, kept=False):
        self.clock, self.outcomes = clock, list(outcomes)
        self.queue = ListQueue(count)
        self.stop = threading.Event()
        self.requests, self.told = [], []
        self.sender = Sender(
            self.queue,
            self,
            self.read,
            clock=clock,
            rng=random.Random(1),
            server=Server(url="http://127.0.0.1:9", accept_plain_receipts=plain),
            on_settled=lambda envelope, receipt: self.told.append((envelope, receipt)),
            clock_is_kept=kept,
            beat=lambda *_: None,
        )

    @property
    def sent(self):
        """The ids of all requests."""
        return [event_id for request in self.requests for event_id in request]

    def post(self, letter, *, is_batch):
        envelopes = tuple(letter())
        if not envelopes:
            return None
        ids = [envelope.event_id for envelope in envelopes]
        self.requests.append(ids)
        assert is_batch or len(envelopes) == 1
        outcome = self.outcomes.pop(0) if self.outcomes else OK
        if callable(outcome):
            outcome = outcome(ids)
        if isinstance(outcome, Exception) and not isinstance(outcome, ReceiptError):
            raise outcome
        status, self.met, *asked = outcome if isinstance(outcome, tuple) else (200, outcome)
        body = b"[" + b",".join([b'"reply"'] * len(ids)) + b"]" if is_batch else b'"reply"'
        return Reply(envelopes, status, body, is_batch, *asked)

    def read(self, answer):
        assert answer.body == b'"reply"'
        met = self.met[answer.envelope.event_id] if isinstance(self.met, dict) else self.met
        if isinstance(met, ReceiptError | UplinkPausedError):
            raise met
        return met

    def run(self):
        """Run until the queue is empty: then the sender's idle wait sets the stop."""
        before = self.clock.on_wait

        def end_when_idle(seconds):
            before(seconds)
            if not self.queue.waiting:
                self.stop.set()

        self.clock.on_wait = end_when_idle
        self.sender.run(self.stop)

    @property
    def waits(self):
        """The waits after attempts, without the one on the empty queue at the end."""
        return self.clock.waits[:-1]


@pytest.fixture
def bench(quick):
    """Build a bench."""
    return lambda count=1, outcomes=(), plain=True: Bench(quick, count, outcomes, plain)


@pytest.fixture
def bare() -> BareRefusalError:
    """What belief makes of a 400 without a receipt to an unsigned message."""
    return BareRefusalError("expected the receipt `rejected` with status 400, got a page")
