"""Threads that are ended together: one deadline for all, and whoever hangs is left behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import KioskError

log = logging.getLogger(__name__)

# A wait is cut into such slices; one that took twice as long was not the threads' doing.
_SLICE_S = 0.1


class Worker:
    """A thread that says when it has ended; `error` is what its body raised, if it did."""

    def __init__(self, name: str, body: Callable[[], object]) -> None:
        self.name = name
        self.ended = threading.Event()
        self.error: Exception | None = None
        self._body = body
        # A daemon's: what hangs in a driver must not keep the process.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._body()
        except Exception as error:
            self.error = error
            # At the top of a thread. A KioskError speaks for itself; a fault needs its trace.
            fields = {"thread": self.name, "reason": str(error) or type(error).__name__}
            trace = not isinstance(error, KioskError)
            log.critical("thread.failed", extra={"fields": fields}, exc_info=trace)
        finally:
            self.ended.set()


class Ending:
    """The time that an end may take as a whole, from the moment this is made."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._deadline_ns = clock.boottime_ns() + int(limit_s * NS_PER_S)

    def left_s(self) -> float:
        """Seconds that are left, never less than 0."""
        return max(0.0, (self._deadline_ns - self._clock.boottime_ns()) / NS_PER_S)

    def wait(self, workers: Iterable[Worker], *, keep_s: float = 0.0) -> None:
        """Wait for all of them until `keep_s` before the deadline, and name those that hang."""
        for worker in workers:
            if not self._came(worker, keep_s):
                log.error("thread.stuck", extra={"fields": {"thread": worker.name}})

    def _came(self, worker: Worker, keep_s: float) -> bool:
        """Wait slice by slice: one that took far too long moves the deadline by the excess."""
        came = False
        while not came and (left_s := self.left_s() - keep_s) > 0.0:
            before_ns = self._clock.boottime_ns()
            came = self._clock.wait(worker.ended, min(_SLICE_S, left_s))
            took_ns = self._clock.boottime_ns() - before_ns
            self._deadline_ns += max(0, took_ns - int(2 * _SLICE_S * NS_PER_S))
        return came or self._clock.wait(worker.ended, 0.0)
