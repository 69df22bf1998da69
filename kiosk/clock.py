"""The only home of wall time, time since boot and sleep. Passed in wherever time matters.

A test hands in a clock of its own, so that an eight-hour outage costs it nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from pathlib import Path
from typing import Protocol

from kiosk.types import Stamp, Trust

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Written by systemd-timesyncd when it sets the clock, and touched whenever it does so again.
_SYNCED = Path("/run/systemd/timesync/synchronized")
# Folders that timesyncd and chrony make below /run for as long as they are at work.
_SERVICES = (Path("/run/systemd/timesync"), Path("/run/chrony"))
_RTC = Path("/sys/class/rtc/rtc0")

# adjtimex(2): a struct of 208 bytes on 64-bit Linux, `modes` first (0: only read), `status` here.
_TIMEX_BYTES = 208
_TIMEX_STATUS = slice(40, 44)
_STA_UNSYNC = 0x0040

# Adjusting the speed of the clock moves wall time and time since boot alike; more than what lies
# between two readings is a step.
_STEP_NS = 50 * NS_PER_MS
_READINGS = 5


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

    def __init__(self, boot_id_file: Path = _BOOT_ID, witness: Witness | None = None) -> None:
        self._boot_id = boot_id_file.read_text(encoding="ascii").strip()
        self._witness = witness or Witness()

    def now(self) -> Stamp:
        """Wall time, time since boot, boot id, and whether something vouches for the wall time."""
        utc_ns, boot_ns = self._both()
        synced = self._witness.vouches(utc_ns - boot_ns)
        # Milliseconds round down: a punch is never dated into the future.
        trust = Trust.SYNCED if synced else Trust.UNSYNCED
        return Stamp(utc_ns // NS_PER_MS, boot_ns, self._boot_id, trust)

    def _both(self) -> tuple[int, int]:
        """Wall time and time since boot of one moment, in nanoseconds."""
        for _ in range(_READINGS):
            before = self.boottime_ns()
            utc_ns, after = time.time_ns(), self.boottime_ns()
            # Between two readings the thread may lose the processor for as long as it likes.
            if after - before < NS_PER_MS:
                break
        return utc_ns, before

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME in nanoseconds."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` has passed; True when it is set."""
        return event.wait(max(0.0, timeout_s))


class Witness:
    """Whether anything vouches for the wall clock at this moment.

    The kernel knows best: whoever disciplines the clock (timesyncd, chrony, ntpd) tells it, and a
    clock that is set by hand loses the mark at once. Under `ProtectClock=` it may not be asked;
    then timesyncd's file speaks, for as long as the clock was not stepped behind its back.
    """

    def __init__(
        self,
        synced_file: Path = _SYNCED,
        *,
        ask_kernel: bool = True,
        memory: Path | None = None,
    ) -> None:
        """`memory`: a file below /run that keeps, over a restart, what the clock was then."""
        self._synced_file = synced_file
        self._ask_kernel = ask_kernel
        self._memory = memory
        self._touched_ns: int | None = None
        self._offset_ns = 0

    def vouches(self, offset_ns: int) -> bool:
        """`offset_ns` is wall time less time since boot, as read just now."""
        synced = _kernel_synced() if self._ask_kernel else None
        return self._file_vouches(offset_ns) if synced is None else synced

    def _file_vouches(self, offset_ns: int) -> bool:
        try:
            touched_ns = self._synced_file.stat().st_mtime_ns
        except OSError:
            # Absent, or not to be seen: nobody vouches.
            self._touched_ns = None
            return False
        if touched_ns != self._touched_ns:
            self._touched_ns, self._offset_ns = touched_ns, self._recalled(touched_ns, offset_ns)
        return abs(offset_ns - self._offset_ns) <= _STEP_NS

    def _recalled(self, touched_ns: int, offset_ns: int) -> int:
        """The offset at the first look at this synchronisation, by whichever process had it."""
        if self._memory is None:
            return offset_ns
        try:
            known_ns, then_ns = map(int, self._memory.read_text(encoding="ascii").split())
            if known_ns == touched_ns:
                return then_ns
        except (OSError, ValueError):
            # Not there, or not ours: this look is the first.
            pass
        # No room in /run: a restart then trusts what it finds.
        with contextlib.suppress(OSError):
            self._memory.write_text(f"{touched_ns} {offset_ns}", encoding="ascii")
        return offset_ns


def _kernel_synced() -> bool | None:
    """The kernel's own mark (adjtimex(2), STA_UNSYNC), None where it may not be asked."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if _LIBC.adjtimex(timex) < 0:
        return None
    return not int.from_bytes(timex.raw[_TIMEX_STATUS], "little") & _STA_UNSYNC


_LIBC = ctypes.CDLL(None, use_errno=True)


def time_service() -> str:
    """The folder of the service that keeps this machine's clock, "" where none is at work."""
    return next((str(folder) for folder in _SERVICES if folder.is_dir()), "")


def has_rtc() -> bool:
    """Whether the board has a clock that runs while it is off; not whether its battery lives."""
    return _RTC.exists()


def elapsed_s(earlier: Stamp, later: Stamp) -> float:
    """Seconds from `earlier` to `later`: by time since boot within one boot, else by wall time."""
    if earlier.boot_id == later.boot_id:
        return (later.boottime_ns - earlier.boottime_ns) / NS_PER_S
    return (later.utc_ms - earlier.utc_ms) / 1000.0


def comparable(earlier: Stamp, later: Stamp) -> bool:
    """Whether `elapsed_s` is known: within one boot always, across boots by proven times only."""
    proven = {Trust.SYNCED, Trust.CORRECTED}
    return earlier.boot_id == later.boot_id or {earlier.trust, later.trust} <= proven
