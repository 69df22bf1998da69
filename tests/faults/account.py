"""What was promised, what the server got, and the judgement over both after a fault.

The account is a file on a disk that no fault touches; a line of it is written by one system call:
`recorded ID` once put has returned (the person is told), `refused ID` when it said that nothing
was recorded, `received BODY` when a server beyond the kiosk's reach has a body for good.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path


class Account:
    """The file, written by the kiosk under test; it outlives the kiosk and its disk."""

    def __init__(self, path: Path) -> None:
        # A kill can cut a write at the end of a page: what the last kiosk began was never said.
        whole = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, whole)

    def recorded(self, event_id: str) -> None:
        self._say(b"recorded " + event_id.encode())

    def refused(self, event_id: str) -> None:
        self._say(b"refused " + event_id.encode())

    def received(self, body: bytes) -> None:
        self._say(b"received " + body)

    def _say(self, line: bytes) -> None:
        os.write(self._file, line + b"\n")


@dataclass(frozen=True)
class Said:
    """An account up to some moment."""

    recorded: tuple[str, ...]
    refused: tuple[str, ...]
    received: tuple[bytes, ...]


def read(path: Path, size: int | None = None) -> Said:
    """The account as it stood when it had `size` bytes; None for all of it."""
    data = path.read_bytes()[:size] if path.exists() else b""
    # A line that was cut was never said.
    lines = [line.split(b" ", 1) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def of(verb: bytes) -> list[bytes]:
        return [rest for word, rest in lines if word == verb]

    names = ((name.decode() for name in of(verb)) for verb in (b"recorded", b"refused"))
    return Said(*(tuple(part) for part in names), tuple(of(b"received")))


def heard_late(said: Said, later: Said, after: Sequence[bytes]) -> Said:
    """What was `said` at a cut whose account arrives later than the disk is written.

    Of what the server had by then a little is heard of only in the `later` account. Of that counts
    what the queue holds for settled, which is what lies before the first that it sends `after` the
    cut; what was promised is what had arrived.
    """
    least = _number(after[0])
    late = later.received[len(said.received) :]
    had = tuple(body for body in late if _number(body) < least)
    return Said(said.recorded, said.refused, said.received + had)


def _number(body: bytes) -> int:
    return int(json.loads(body)["SEQ"].split(":")[1])


@dataclass
class Server:
    """Counts as a server does that records an event once and knows it by its id.

    `by_number`: the mistake of one that knows it by the number of its SEQ instead.
    """

    by_number: bool = False
    bodies: dict[str, bytes] = field(default_factory=dict)
    records: list[dict[str, object]] = field(default_factory=list)
    altered: int = 0

    def take(self, body: bytes) -> None:
        message = json.loads(body)
        key = message["SEQ"].split(":")[1] if self.by_number else message["A1"]
        known = self.bodies.get(key)
        if known is None:
            self.bodies[key] = body
            self.records.append(message)
        elif known != body:
            self.altered += 1

    def numbers_out_of_order(self) -> int:
        """How often a number of an epoch does not follow the one before it."""
        last: dict[str, int] = {}
        wrong = 0
        for message in self.records:
            epoch, number = str(message["SEQ"]).split(":")
            wrong += int(number) != last.get(epoch, 0) + 1
            last[epoch] = int(number)
        return wrong


@dataclass(frozen=True)
class Verdict:
    """Counts over one or many faults. The first five must be 0 in a kiosk that keeps its word.

    `lost` was promised and is not at the server; `doubled` is there twice, told by the person and
    not by the event id; `altered` came with two bodies; `disordered` numbers do not follow each
    other; `unsaid` was refused as not recorded and is there nevertheless. `resent` came again and
    was known by its id: without any the way of a repeated message was never walked. `by_number`
    are those that a server loses which knows an event by its number.
    """

    lost: int = 0
    doubled: int = 0
    altered: int = 0
    disordered: int = 0
    unsaid: int = 0
    promised: int = 0
    resent: int = 0
    by_number: int = 0

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def kept(self) -> bool:
        """Whether nothing went wrong."""
        return not any((self.lost, self.doubled, self.altered, self.disordered, self.unsaid))


def judge(said: Said, after: Iterable[bytes], probes: Sequence[str] = ()) -> Verdict:
    """Judge what was said before a fault by what the queue sent `after` it.

    `probes` are events that were put after the fault, among them.
    """
    bodies = [*said.received, *after]
    right, by_number = Server(), Server(by_number=True)
    for body in bodies:
        right.take(body)
        by_number.take(body)
    promised = {*said.recorded, *probes}
    there = {str(message["A1"]) for message in right.records}
    people = [message["E1"] for message in right.records]
    return Verdict(
        lost=len(promised - there),
        doubled=len(people) - len(set(people)),
        altered=right.altered,
        disordered=right.numbers_out_of_order(),
        unsaid=len(there & set(said.refused)),
        promised=len(promised),
        resent=len(bodies) - len(right.records) - right.altered,
        by_number=len(there - {str(message["A1"]) for message in by_number.records}),
    )
