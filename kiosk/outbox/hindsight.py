"""What the time of an event must have been, told from moments in which the clock was right.

Time since boot never jumps, so that one good moment of a boot dates everything in it. Of a boot
that had none, good moments before and after bound it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kiosk.clock import NS_PER_MS, NS_PER_S
from kiosk.types import Stamp, Trust

EARLIEST_MS = 0
LATEST_MS = 253_402_300_799_999
"""The last millisecond that the wire can write, 9999-12-31: nothing bounds it from above."""

# A kernel that nobody disciplines may be 500 ppm fast or slow (`MAXFREQ` of Linux's timex.h; NTP,
# RFC 5905, has the same tolerance). After twelve hours that is 21 s: said as bounds beyond that.
_DRIFT = 500e-6
_EXACT_NS = 12 * 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class GoodTime:
    """A moment in which the wall clock was synchronised. `boot` counts the boots of this queue."""

    boot: int
    boottime_ns: int
    utc_ms: int

    @property
    def offset_ns(self) -> int:
        """Wall time less time since boot."""
        return self.utc_ms * NS_PER_MS - self.boottime_ns


def in_hindsight(seen: Stamp, boot: int, good: Sequence[GoodTime]) -> Stamp:
    """`seen`, of the boot numbered `boot`, as well as `good` can tell it.

    CORRECTED where a good moment of the same boot dates it, else ESTIMATED with bounds that its
    true time lies in; one that was SYNCED, or looked at before, comes back as it is.
    """
    if seen.trust is not Trust.UNSYNCED:
        return seen
    same = [moment for moment in good if moment.boot == boot]
    return _dated(seen, same) if same else _bounded(seen, boot, good)


def _dated(seen: Stamp, same: Sequence[GoodTime]) -> Stamp:
    at = seen.boottime_ns
    before = max((m for m in same if m.boottime_ns <= at), key=_boottime, default=None)
    after = min((m for m in same if m.boottime_ns >= at), key=_boottime, default=None)
    if after is None:
        assert before is not None  # noqa: S101 - one of the two there must be
        return _since(seen, before)
    offset_ns = after.offset_ns
    if before is not None and after.boottime_ns > before.boottime_ns:
        # Between the two the clock drifted evenly, as far as anybody knows.
        share = (at - before.boottime_ns) / (after.boottime_ns - before.boottime_ns)
        offset_ns = before.offset_ns + round((after.offset_ns - before.offset_ns) * share)
    return _set_right(seen, offset_ns)


def _since(seen: Stamp, before: GoodTime) -> Stamp:
    """After the last good moment: as exact as a clock that nobody has set since."""
    right = _set_right(seen, before.offset_ns)
    passed_ns = seen.boottime_ns - before.boottime_ns
    if passed_ns <= _EXACT_NS:
        return right
    drift_ms = round(passed_ns * _DRIFT / NS_PER_MS)
    return _estimated(right, right.utc_ms - drift_ms, right.utc_ms + drift_ms)


def _bounded(seen: Stamp, boot: int, good: Sequence[GoodTime]) -> Stamp:
    """No good moment in its own boot: after those of earlier boots, before later boots began."""
    since_boot_ms = seen.boottime_ns // NS_PER_MS
    earliest = max((m.utc_ms + since_boot_ms for m in good if m.boot < boot), default=EARLIEST_MS)
    latest = min((m.offset_ns // NS_PER_MS for m in good if m.boot > boot), default=LATEST_MS)
    # Moments that contradict one another (a time server that lied) bound nothing by themselves.
    return _estimated(seen, min(earliest, latest), max(earliest, latest))


def _set_right(seen: Stamp, offset_ns: int) -> Stamp:
    # Rounded down: a punch is never dated into the future.
    utc_ms = (seen.boottime_ns + offset_ns) // NS_PER_MS
    return replace(seen, utc_ms=utc_ms, trust=Trust.CORRECTED)


def _estimated(seen: Stamp, earliest_ms: int, latest_ms: int) -> Stamp:
    bounds = (max(EARLIEST_MS, earliest_ms), min(LATEST_MS, latest_ms))
    utc_ms = min(max(seen.utc_ms, bounds[0]), bounds[1])
    return replace(seen, utc_ms=utc_ms, trust=Trust.ESTIMATED, bounds_ms=bounds)


def _boottime(moment: GoodTime) -> int:
    return moment.boottime_ns
