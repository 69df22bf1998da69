"""The main thread's rounds: are all threads alive, and does the service manager hear of it?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from kiosk.clock import NS_PER_S, Clock
from kiosk.ending import Worker
from kiosk.notify import Notifier
from kiosk.pulse import Overdue, Pulse
from kiosk.restarts import Restarts

log = logging.getLogger(__name__)

ROUND_S = 0.5
# systemd advises half of what it gives; more often, so that a slow round costs nothing.
_ALIVE_SHARE = 1 / 3
_STATUS_S = 2.0
# No round takes so long: the machine slept, or gave this process no time at all.
_SLEPT_S = 10.0


class Rests(Protocol):
    """What may be over before everything else is: a replay."""

    @property
    def state(self) -> str:
        """`ended` when it is."""
        ...


class Supervisor:
    """Looks after the threads in rounds; says `WATCHDOG=1` only while each is within its time.

    What hangs is not ended from here, for no thread can be: the word of life stays out, systemd
    ends the process by SIGABRT and starts another. Without a service manager that wants one, the
    journal tells all the same.
    """

    def __init__(
        self,
        pulse: Pulse,
        notifier: Notifier,
        restarts: Restarts,
        *,
        camera: Rests,
        line: Callable[[], str],
        stopping: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._pulse, self._notifier, self._restarts = pulse, notifier, restarts
        self._camera, self._line, self._clock = camera, line, clock
        self._stopping = stopping
        self._alive_s = (notifier.watchdog_s or 30.0) * _ALIVE_SHARE
        self._alive_ns = self._status_ns = -(10**18)
        self._hung: frozenset[str] = frozenset()
        self._looked_ns = 0

    def look(self, workers: list[Worker]) -> str:
        """One round; the reason to end the process, "" for none."""
        for worker in workers:
            if worker.ended.is_set():
                self._pulse.done(worker.name)
                if not self._asked(worker):
                    log.critical("thread.ended", extra={"fields": {"thread": worker.name}})
                    return f"{worker.name}: ended unasked"
        self._forgive()
        self._alive(self._pulse.overdue())
        self._tell()
        return ""

    def _asked(self, ended: Worker) -> bool:
        # The word to stop may come while a round is under way. It is looked at after the thread:
        # whoever ended for its sake ended later.
        replayed = ended.name == "capture" and self._camera.state == "ended"
        return replayed or self._stopping()

    def _forgive(self) -> None:
        """Time since boot goes on while a machine sleeps, and its waits do not."""
        now_ns, last_ns = self._clock.boottime_ns(), self._looked_ns
        self._looked_ns = now_ns
        if last_ns and now_ns - last_ns > _SLEPT_S * NS_PER_S:
            self._pulse.forgive(now_ns - last_ns)

    def _alive(self, late: list[Overdue]) -> None:
        hung = frozenset(one.thread for one in late)
        for one in late:
            if one.thread not in self._hung:
                self._hangs(one)
        for thread in self._hung - hung:
            log.warning("thread.came_back", extra={"fields": {"thread": thread}})
        if self._hung and not hung:
            self._restarts.note()
        self._hung = hung
        now_ns = self._clock.boottime_ns()
        if not hung and now_ns - self._alive_ns >= self._alive_s * NS_PER_S:
            self._alive_ns = now_ns
            self._notifier.alive()

    def _hangs(self, one: Overdue) -> None:
        facts: dict[str, str | float] = {
            "thread": one.thread,
            "doing": one.doing,
            "for_s": round(one.for_s, 1),
            "where": one.where,
            "then": "systemd restarts the kiosk unless the thread comes back"
            if self._notifier.watchdog_s
            else "no watchdog runs: restart the kiosk",
        }
        log.critical("thread.hangs", extra={"fields": facts})
        # Should this be its end, the next start knows why.
        self._restarts.note("watchdog")

    def _tell(self) -> None:
        now_ns = self._clock.boottime_ns()
        if now_ns - self._status_ns >= _STATUS_S * NS_PER_S:
            self._status_ns = now_ns
            hung = f", hangs: {', '.join(sorted(self._hung))}" if self._hung else ""
            self._notifier.status(self._line() + hung)
