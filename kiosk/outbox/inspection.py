"""What is read of the file to find damage, before and after the kiosk is ready."""

from __future__ import annotations

import logging

from kiosk.clock import Clock
from kiosk.errors import OutboxDamagedError, VaultError
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.database import Database
from kiosk.outbox.rows import Kept, Rows
from kiosk.outbox.schema import TABLES

log = logging.getLogger(__name__)

# The others have a row for every punch ever recorded: those are read afterwards.
_SMALL_TABLES = tuple(table for table in TABLES if table != "event")
# So many rows are read in one transaction, that a punch need not wait for more.
_AT_A_TIME = 1000


class Inspection:
    """Looks at one open database; OutboxDamagedError for whatever SQLite or the seals refuse."""

    def __init__(self, database: Database, bodies: Bodies, clock: Clock) -> None:
        self._database = database
        self._bodies = bodies
        self._clock = clock
        self._read_up_to: int | None = 0

    def begin(self, *, clean: bool) -> None:
        """Before anything else is read: the tables, and after an unclean end what is in them."""
        self._database.check_schema()
        if not clean:
            for table in _SMALL_TABLES:
                self._database.check(table)

    def read_waiting(self) -> None:
        """Read all that waits; what does not authenticate is set aside at once, and loudly."""
        self._balance()
        position = 0
        while True:
            with self._database.transaction() as connection:
                rows = Rows(connection)
                kept = rows.waiting_from(position, _AT_A_TIME)
                for each in kept:
                    _agree(each)
                strangers = [(each.event, why) for each in kept if (why := self._stranger(each))]
                for event, reason in strangers:
                    rows.set_aside(event, reason, self._clock.now().utc_ms)
            for event, reason in strangers:
                fields = {"event_id": event.event_id, "seq": event.seq, "reason": reason}
                log.error("outbox.unsendable", extra={"fields": fields})
            if not kept:
                return
            last = kept[-1].event.position
            if last < position:
                # Keys out of order: whoever went on would read the same rows for ever.
                raise OutboxDamagedError(f"waiting: expected positions from {position}, got {last}")
            position = last + 1

    def again(self) -> None:
        """Read everything anew: the small tables now, what waits too, the rest in slices."""
        self.begin(clean=False)
        self.read_waiting()
        self._read_up_to = 0

    @property
    def under_way(self) -> bool:
        """Whether slices are left to read."""
        return self._read_up_to is not None

    def go_on(self) -> bool:
        """Read a slice of all events ever recorded; whether any are left to read."""
        if self._read_up_to is None:
            return False
        after = self._read_up_to
        with self._database.transaction() as connection:
            read = Rows(connection).unaccounted(after, _AT_A_TIME)
            if read is not None and read[0] <= after:
                raise OutboxDamagedError(
                    f"event: expected positions from {after + 1}, got {read[0]}"
                )
            if read is not None and read[1]:
                raise OutboxDamagedError(
                    f"expected every event under its id, {read[1]} are not"
                    f" (positions {after + 1} to {read[0]})"
                )
        if read is None:
            log.info("outbox.inspected", extra={"fields": {"up_to": after}})
        self._read_up_to = None if read is None else read[0]
        return read is not None

    def _balance(self) -> None:
        """What the epochs count must be there, each with its event in the right state."""
        with self._database.transaction() as connection:
            rows = Rows(connection)
            for counted, table, state in zip(
                rows.counts(), ("waiting", "quarantine"), ("queued", "quarantined"), strict=True
            ):
                (there,) = rows.one(
                    f"SELECT count(*) FROM {table} CROSS JOIN event USING (position)"  # noqa: S608
                    " WHERE event.state = ?",
                    state,
                )
                (held,) = rows.one(f"SELECT count(*) FROM {table}")  # noqa: S608
                if not counted == there == held:
                    raise OutboxDamagedError(
                        f"{table}: expected {counted} events, got {held}, {there} of them {state}"
                    )

    def _stranger(self, kept: Kept) -> str:
        try:
            self._bodies.check(kept.event.event_id, kept.draft, kept.body)
        except VaultError as error:
            return f"cannot be sent: {error}"
        return ""


def _agree(kept: Kept) -> None:
    if kept.known_at != kept.event.position:
        raise OutboxDamagedError(f"expected {kept.event.seq} under its id, it is not found by it")
