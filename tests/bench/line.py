"""A queue of any length on disk, for the measurements of what it costs."""

import random
from pathlib import Path

import numpy as np

from kiosk.clock import NS_PER_S, SystemClock
from kiosk.outbox.store import Outbox
from kiosk.types import Embedding, Punch
from kiosk.vault import Vault
from kiosk.wire.eventid import new_event_id

# Rows like the first one; their seals open for nobody, and nobody asks.
_EVENTS = """
    INSERT INTO event (event_id, epoch, number, utc_ms, boottime_ns, boot, trust, state)
    WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT randomblob(16), 1, i, 1790000000000 + i, i, 1, 'synced', 'queued' FROM n
"""
_WAITING = """
    INSERT INTO waiting (position, draft) SELECT event.position, first.draft
    FROM event, (SELECT draft FROM waiting LIMIT 1) AS first WHERE event.position > 1
"""


def outbox_in(folder: Path) -> Outbox:
    """Not started yet."""
    return Outbox(
        folder / "outbox.db",
        vault=Vault(bytes(32)),
        device_id="0b0e7a52-52a6-4f2c-9d6b-0e0d6f9a2f11",
        signer=None,
        clock=SystemClock(),
    )


class Line:
    """An outbox with so many events waiting, and what each further punch took."""

    def __init__(self, folder: Path, length: int) -> None:
        self.folder = folder
        self.length, self.rng, self.clock = length, random.Random(7), SystemClock()
        self.face = Embedding.of(np.random.default_rng(7).standard_normal(192), "bench")
        self.took_ms: list[float] = []
        self.outbox = outbox_in(folder)
        self.outbox.start()
        self.put()
        self.sql(_EVENTS, length)
        self.sql(_WAITING)
        self.sql("UPDATE epoch SET highest = ?, queued = ?", length, length)
        while self.outbox.tend():
            pass
        self.put()

    def put(self) -> None:
        now = self.clock.now()
        self.outbox.put(
            Punch(
                event_id=new_event_id(now.utc_ms, self.rng),
                employee=f"E-{self.rng.randrange(300)}",
                kind=None,
                embedding=self.face,
                score=0.9,
                quality=0.9,
                liveness=None,
                seen=now,
            )
        )

    def measure(self, punches: int) -> None:
        for _ in range(punches):
            began = self.clock.boottime_ns()
            self.put()
            self.took_ms.append((self.clock.boottime_ns() - began) * 1000 / NS_PER_S)
            self.outbox.tend()

    def sql(self, statement: str, *values: object) -> None:
        connection = self.outbox._queue.database._connection
        self.outbox._owner.ask(lambda: connection.execute(statement, values), deadline_s=600.0)
