"""Whether the daemon's threads still do something, told from what each said it was about to do.

A thread says before each step what it does and how long that may take at most: a wait is a step
like any other. A ticker of its own would prove the ticker only. What is absent, a camera or a
network, is a state: the thread that waits for it says so, and is alive.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kiosk.clock import NS_PER_S, Clock

_FRAMES_TOLD = 4
QUEUE_S = 25.0
"""Longer than the queue's own deadline for an answer of the disk, which then ends the process."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a thread said last: `until_ns`, on the clock's time since boot, is its own deadline."""

    thread: str
    doing: str
    since_ns: int
    until_ns: int
    ident: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A thread that has not come back from a step in its time."""

    thread: str
    doing: str
    for_s: float
    where: str = ""
    """The innermost places of its Python stack, the latest first."""


def overdue(steps: Iterable[Step], now_ns: int) -> list[Overdue]:
    """The threads that are past their own deadline; a step that ends this very moment is not."""
    return [
        Overdue(step.thread, step.doing, (now_ns - step.since_ns) / NS_PER_S, where_is(step.ident))
        for step in steps
        if now_ns > step.until_ns
    ]


def where_is(ident: int) -> str:
    """`file:line function` of a living thread's innermost frames, "" for one that has ended."""
    frame = sys._current_frames().get(ident)
    if frame is None:
        return ""
    stack = reversed(traceback.extract_stack(frame)[-_FRAMES_TOLD:])
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in stack)


class Pulse:
    """The last step of every thread that has one. Safe across threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: dict[str, Step] = {}

    def beat(self, doing: str, within_s: float) -> None:
        """The calling thread begins a step that takes no more than `within_s`."""
        thread, now_ns = threading.current_thread(), self._clock.boottime_ns()
        ident = thread.ident or 0
        until_ns = now_ns + round(within_s * NS_PER_S)
        with self._lock:
            self._steps[thread.name] = Step(thread.name, doing, now_ns, until_ns, ident)

    def done(self, thread: str) -> None:
        """A thread has ended, as it may: nothing is asked of it any more."""
        with self._lock:
            self._steps.pop(thread, None)

    def forgive(self, lost_ns: int) -> None:
        """So much time has passed in which no thread could do anything: the machine slept."""
        with self._lock:
            self._steps = {
                name: replace(step, until_ns=step.until_ns + lost_ns)
                for name, step in self._steps.items()
            }

    def overdue(self) -> list[Overdue]:
        """As of now."""
        with self._lock:
            steps = list(self._steps.values())
        return overdue(steps, self._clock.boottime_ns())

    def document(self) -> dict[str, str]:
        """What each thread does, by its name."""
        with self._lock:
            return {name: step.doing for name, step in sorted(self._steps.items())}
