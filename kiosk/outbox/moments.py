"""The boots of a queue and the moments in which their clocks were right, over one transaction."""

from __future__ import annotations

from functools import cached_property

from kiosk.clock import Clock
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.hindsight import GoodTime, in_hindsight
from kiosk.outbox.rows import Rows
from kiosk.types import Stamp, Trust

_UNDATED = (
    "SELECT 1 FROM event WHERE trust = 'unsynced' AND position IN"
    " (SELECT position FROM waiting UNION ALL SELECT position FROM quarantine) LIMIT 1"
)
_FORGET_EARLIER = (
    "DELETE FROM good_time WHERE (boot, boottime_ns) <> (SELECT boot, boottime_ns"
    " FROM good_time ORDER BY boot DESC, boottime_ns DESC LIMIT 1)"
)


class Moments:
    """What is kept of the clock; read once, for as many events as a transaction dates."""

    def __init__(self, rows: Rows, bodies: Bodies, clock: Clock) -> None:
        self._rows = rows
        self._bodies = bodies
        self._clock = clock

    def note(self, now: Stamp, *, rtc: bool) -> None:
        """Note that a boot has begun, and a moment in which its clock is synchronised."""
        rows = self._rows
        rows.begin_boot(now.boot_id)
        rows.run("UPDATE boot SET rtc = ? WHERE boot_id = ? AND rtc IS NULL", rtc, now.boot_id)
        if now.trust is not Trust.SYNCED:
            return
        number = self._number(now.boot_id)
        tag = self._bodies.good_time_tag(number, now.boot_id, now.boottime_ns, now.utc_ms)
        rows.run(
            "INSERT OR REPLACE INTO good_time (boot, boottime_ns, utc_ms, tag) VALUES (?, ?, ?, ?)",
            *(number, now.boottime_ns, now.utc_ms, tag),
        )
        # One bounds whatever comes next; more are kept only for events that they may date.
        if rows.first(_UNDATED) is None:
            rows.run(_FORGET_EARLIER)

    def dated(self, seen: Stamp) -> Stamp:
        """`seen` as well as it can be told by now."""
        if seen.trust is not Trust.UNSYNCED:
            return seen
        boot = self._boots.get(seen.boot_id)
        if boot is None:
            # Lost with a damaged file: what came before it and what after is unknown.
            return in_hindsight(seen, 0, ())
        return in_hindsight(seen, boot, self._good)

    @cached_property
    def _good(self) -> list[GoodTime]:
        """What is kept and authenticates, for a changed moment dates nothing; and this one."""
        query = "SELECT boot, boottime_ns, utc_ms, tag FROM good_time"
        names = {number: boot_id for boot_id, number in self._boots.items()}
        good = [
            GoodTime(number, boottime_ns, utc_ms)
            for number, boottime_ns, utc_ms, tag in self._rows.all(query)
            if tag == self._bodies.good_time_tag(number, names.get(number, ""), boottime_ns, utc_ms)
        ]
        now = self._clock.now()
        if now.trust is Trust.SYNCED:
            # It dates what was seen in this boot, and bounds what was seen before it.
            good.append(GoodTime(self._number(now.boot_id), now.boottime_ns, now.utc_ms))
        return good

    @cached_property
    def _boots(self) -> dict[str, int]:
        """The number of each boot by its id, out of the table itself.

        SQLite would answer a look-up from the index alone, and no check compares the two.
        """
        query = "SELECT boot_id, id FROM boot NOT INDEXED"
        return {str(boot_id): int(number) for boot_id, number in self._rows.all(query)}

    def _number(self, boot_id: str) -> int:
        """The number of a boot; of one in which nothing was noted yet, the next."""
        known = self._boots.get(boot_id)
        if known is not None:
            return known
        return max(self._boots.values(), default=0) + 1
