"""A vault, a clock that stands still, punches to record, and an outbox on a fresh folder."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from kiosk.outbox.store import Outbox
from kiosk.types import Direction, Embedding, Punch, Stamp, Trust
from kiosk.vault import Vault
from kiosk.wire.eventid import new_event_id
from kiosk.wire.signing import Signer

START_MS = 1_790_000_000_000
DEVICE = "0b0e7a52-52a6-4f2c-9d6b-0e0d6f9a2f11"


@dataclass
class StillClock:
    """Stands still until it is told to move; waiting moves it."""

    utc_ms: int = START_MS
    boot_ns: int = 10_000_000_000
    boot_id: str = "boot-1"
    trust: Trust = Trust.SYNCED

    def now(self) -> Stamp:
        return Stamp(self.utc_ms, self.boot_ns, self.boot_id, self.trust)

    def boottime_ns(self) -> int:
        return self.boot_ns

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.forward(timeout_s)
        return event.is_set()

    def forward(self, seconds: float) -> None:
        self.utc_ms += int(seconds * 1000)
        self.boot_ns += int(seconds * 1_000_000_000)


@dataclass
class Punches:
    """Makes punches, each with an id of its own."""

    clock: StillClock
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    embedding: Embedding = field(
        default_factory=lambda: Embedding.of(
            np.random.default_rng(3).standard_normal(192), "test-space"
        )
    )

    def make(
        self,
        employee: str | None = "E-1",
        kind: Direction | None = Direction.IN,
        **changes: object,
    ) -> Punch:
        values: dict[str, object] = {
            "event_id": new_event_id(self.clock.utc_ms, self.rng),
            "employee": employee,
            "kind": kind,
            "embedding": self.embedding,
            "score": None if employee is None else 0.75,
            "quality": 0.5,
            "liveness": None,
            "seen": self.clock.now(),
        }
        return Punch(**(values | changes))  # type: ignore[arg-type] # as the dataclass checks


@pytest.fixture(scope="session")
def device() -> str:
    """The device id that outboxes are opened for."""
    return DEVICE


@pytest.fixture
def clock() -> StillClock:
    """A clock that only moves when told."""
    return StillClock()


@pytest.fixture(scope="session")
def vault() -> Vault:
    """The device's vault."""
    return Vault(bytes(range(32)))


@pytest.fixture(scope="session")
def signer(vault) -> Signer:
    """The device's sign key."""
    return Signer("hall-1", vault.sign_key)


@pytest.fixture
def punches(clock) -> Punches:
    """A maker of punches."""
    return Punches(clock)


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the outbox lies."""
    return tmp_path / "outbox.db"


@pytest.fixture
def build(path, vault, signer, clock) -> Callable[..., Outbox]:
    """Make an outbox that is not started yet."""

    def make(**changes: object) -> Outbox:
        values = {"vault": vault, "device_id": DEVICE, "signer": signer, "clock": clock} | changes
        return Outbox(path, **values)

    return make


@pytest.fixture
def reopen(build) -> Iterator[Callable[..., Outbox]]:
    """Open the outbox; called again, close it first, as a restart does."""
    opened: list[Outbox] = []

    def restart(**changes: object) -> Outbox:
        for earlier in opened:
            earlier.close(10.0)
        outbox = build(**changes)
        outbox.start()
        opened.append(outbox)
        return outbox

    yield restart
    for outbox in opened:
        outbox.close(10.0)


@pytest.fixture
def outbox(reopen) -> Outbox:
    """An open, empty outbox."""
    return reopen()


@pytest.fixture
def ask(reopen) -> Callable[..., list[tuple[object, ...]]]:
    """Run one statement in the owner's own connection: what is really in the file."""

    def run(outbox: Outbox, sql: str, *values: object) -> list[tuple[object, ...]]:
        def work() -> list[tuple[object, ...]]:
            return outbox._queue.database._connection.execute(sql, values).fetchall()

        return outbox._owner.ask(work)

    return run
