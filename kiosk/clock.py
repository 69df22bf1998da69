"""The only home of wall time, time since boot and sleep. Passed in wherever time matters.

A test hands in a clock of its own, so that an eight-hour outage costs it nothing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kiosk.types import Stamp, Trust

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Written by systemd-timesyncd once the clock was set from the network in this boot.
_SYNCED = Path("/run/systemd/timesync/synchronized")


class Clock(Protocol):
    """What every room may ask of time."""

    def now(self) -> Stamp:
        """Wall time with its trust mark, and time since boot."""
        ...

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME in nanoseconds: never jumps, goes on while suspended."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` has passed; True when it is set."""
        ...


class SystemClock:
    """The clock of the machine."""

    def __init__(self, boot_id_file: Path = _BOOT_ID, synced_file: Path = _SYNCED) -> None:
        self._boot_id = boot_id_file.read_text(encoding="ascii").strip()
        self._synced_file = synced_file

    def now(self) -> Stamp:
        """Wall time, time since boot, boot id, and whether the clock was set from the network."""
        trust = Trust.SYNCED if self._synced_file.exists() else Trust.UNSYNCED
        # Milliseconds round down: a punch is never dated into the future.
        utc_ms = time.time_ns() // 1_000_000
        return Stamp(utc_ms, self.boottime_ns(), self._boot_id, trust)

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME in nanoseconds."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` has passed; True when it is set."""
        return event.wait(max(0.0, timeout_s))


def elapsed_s(earlier: Stamp, later: Stamp) -> float:
    """Seconds from `earlier` to `later`: by time since boot within one boot, else by wall time."""
    if earlier.boot_id == later.boot_id:
        return (later.boottime_ns - earlier.boottime_ns) / NS_PER_S
    return (later.utc_ms - earlier.utc_ms) / 1000.0


def corrected(seen: Stamp, now: Stamp) -> Stamp:
    """`seen` with its wall time set right, where `now` can prove what it was.

    That needs a clock that is synchronised by now, in the boot in which `seen` was taken: what
    has passed since is known exactly. Otherwise `seen` as it is. Of an earlier boot nothing kept
    here bounds the time from above, so that no bounds are claimed for it either.
    """
    same_boot = seen.boot_id == now.boot_id
    if seen.trust is not Trust.UNSYNCED or now.trust is not Trust.SYNCED or not same_boot:
        return seen
    # Rounded so that a punch is never dated into the future.
    passed_ms = -((seen.boottime_ns - now.boottime_ns) // NS_PER_MS)
    return replace(seen, utc_ms=now.utc_ms - passed_ms, trust=Trust.CORRECTED)
