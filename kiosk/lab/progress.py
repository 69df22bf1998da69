"""Progress bars, on standard error, for whatever may take more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kiosk.clock import NS_PER_S, SystemClock

Item = TypeVar("Item")
_SILENT_S = 10


class Ticking(Protocol):
    """What tells how long something has taken."""

    def boottime_ns(self) -> int:
        """Nanoseconds that only grow."""


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def track(items: Sequence[Item], what: str, clock: Ticking | None = None) -> Iterator[Item]:
    """The items one by one, under a bar; without a terminal a line now and then."""
    if not sys.stderr.isatty():
        yield from _told(items, what, len(items), clock or SystemClock())
        return
    with _bar() as bar:
        yield from bar.track(items, description=what)


def track_all(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The same for items that are not counted beforehand."""
    if not sys.stderr.isatty():
        yield from _told(items, what, total, SystemClock())
        return
    with _bar() as bar:
        yield from bar.track(items, description=what, total=total)


def _told(items: Iterable[Item], what: str, total: int, clock: Ticking) -> Iterator[Item]:
    """A file of output, or another program, wants to know that it goes on, and how long still."""
    began = last = clock.boottime_ns()
    for done, item in enumerate(items, 1):
        yield item
        now = clock.boottime_ns()
        if now - last >= _SILENT_S * NS_PER_S and done < total:
            left = (now - began) / NS_PER_S / done * (total - done)
            say(f"{what}: {done} of {total}, about {left:.0f} s left")
            last = now


def say(line: str) -> None:
    """A line on standard error of how far the work is."""
    Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)
