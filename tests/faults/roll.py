"""What the server's own database says in the end, against what was recorded at the kiosk."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Punched:
    """One event as the kiosk told the person: recorded under this id and number."""

    event_id: str
    employee: str
    seq: str


@dataclass(frozen=True)
class Roll:
    """Counts; all but the first two must be 0.

    `lost`: recorded and not there; `doubled`: there more than once, told by the person and not by
    the event id; `disordered`: its number does not follow the one before it; `strangers`: there,
    but not as recorded; `aside`: in the kiosk's quarantine; `waiting`: still in its queue;
    `alarms`: the server met another body under a known id, or one that it could not read.
    """

    recorded: int
    there: int
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    strangers: int = 0
    aside: int = 0
    waiting: int = 0
    alarms: int = 0

    @property
    def right(self) -> bool:
        """Every event is there exactly once and in order."""
        return self == Roll(self.recorded, self.recorded)


def call(
    punched: Sequence[Punched], there: Sequence[Punched], *, aside: int, waiting: int, alarms: int
) -> Roll:
    """Compare; `there` in the order in which the server recorded it."""
    visits = Counter(one.employee for one in there)
    known = set(punched)
    return Roll(
        recorded=len(punched),
        there=len(there),
        lost=len({one.employee for one in punched} - visits.keys()),
        doubled=sum(visits.values()) - len(visits),
        disordered=_disordered(one.seq for one in there),
        strangers=sum(one not in known for one in there),
        aside=aside,
        waiting=waiting,
        alarms=alarms,
    )


def at_server(database: Path, device: str) -> Iterator[Punched]:
    """What the server has of a device, in the order in which it recorded it."""
    query = "SELECT event_id, employee, seq FROM attendance WHERE device = ? ORDER BY id"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for row in connection.execute(query, (device,)):
            yield Punched(*row)


def alarms(database: Path, device: str) -> int:
    """How many alarms the server has of a device."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM alarm WHERE device = ?"
        return int(connection.execute(query, (device,)).fetchone()[0])


def _disordered(seqs: Iterable[str]) -> int:
    last: dict[str, int] = {}
    wrong = 0
    for seq in seqs:
        epoch, number = seq.split(":")
        wrong += int(number) != last.get(epoch, 0) + 1
        last[epoch] = int(number)
    return wrong
