"""Progress bars, on standard error, for whatever may take more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


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


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items one by one, under a bar."""
    with _bar() as bar:
        yield from bar.track(items, description=what)


def track_all(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The same for items that are not counted beforehand."""
    with _bar() as bar:
        yield from bar.track(items, description=what, total=total)


def say(line: str) -> None:
    """A line on standard error of how far the work is."""
    Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)
