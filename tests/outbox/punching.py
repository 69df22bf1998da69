"""A clock that stands still and punches to record, also where no test runs: on a virtual Pi."""

import random
import threading
from dataclasses import dataclass, field

import numpy as np

from kiosk.types import Direction, Embedding, Punch, Stamp, Trust
from kiosk.wire.eventid import new_event_id

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
