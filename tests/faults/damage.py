"""Damages one file of a kiosk at a time and sees what the product makes of it.

A process of its own, so that even a crash inside SQLite is an outcome: arguments are the folder
with the kiosk's files, a folder to work in, the first trial's number and how many; one line of
JSON for each trial, whose number is its seed. Or: "closed" or "crashed", and a folder in which to
make a kiosk's files.
"""

import contextlib
import itertools
import json
import logging
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faults.account import Account, Server, read
from faults.aftermath import copied
from faults.worker import FILE, drain, oldest, people, upkeep
from kiosk import spare
from kiosk.errors import KioskError, OutboxBrokenError, OutboxFullError
from kiosk.identity import ID_FILE, device, open_vault
from kiosk.outbox.store import Outbox
from kiosk.types import Punch
from kiosk.vault import KEY_FILE, Vault
from outbox.punching import StillClock

PAGE = 1024
ACCOUNT = "account"
KEYS = (KEY_FILE, ID_FILE)
_STRAY = f"{FILE}-shm"
_LARGEST = 8 << 20
_STARTS = 4
_SEED = 2_000_000


@dataclass
class Outcome:
    """What one damage led to.

    `end`: "sent" (started, recorded a new punch and sent everything it had), "refused" (an error
    of the product's own at every start), "fell" (any other error). `starts`: how many it took.
    `lost`: unsent before the damage, and neither sent nor set aside after. `told`: a line of the
    journal at level error or above. `forged`: bodies that are not what was recorded.
    """

    trial: int
    file: str
    kind: str
    end: str = "fell"
    error: str = ""
    starts: int = 0
    lost: int = 0
    told: int = 0
    forged: list[str] = field(default_factory=list)
    by_number: int = 0


class OpenVault(Vault):
    """The seeded bug: seals nothing and believes everything."""

    def seal(self, data: bytes, context: str) -> bytes:
        return bytes(32) + data

    def unseal(self, blob: bytes, context: str) -> bytes:
        return blob[32:]


def open_state(folder: Path, bug: str = "") -> Outbox:
    """The outbox as the daemon opens it: secret and id come from files too; not started."""
    spare.heal(folder, KEYS)
    vault = open_vault(folder)
    return Outbox(
        folder / FILE,
        vault=OpenVault(bytes(32)) if bug else vault,
        device_id=device(folder).id,
        signer=None,
        clock=StillClock(),
    )


def prepare(folder: Path, bug: str = "", *, closed: bool) -> None:
    """A kiosk's files: some events settled, one frozen and unsent, some never leased.

    Half of it was folded into the database by an earlier end; not `closed`: the other half lies in
    the log, of a kiosk that was killed.
    """
    punches = people(0)
    account = Account(folder / ACCOUNT)
    outbox = open_state(folder, bug)
    outbox.start()
    spare.keep(folder, KEYS)
    for put, send in ((6, 6), (4, 3), (6, 0)):
        for _ in range(put):
            outbox.put(next(punches))
        for body in itertools.islice(drain(outbox), send):
            account.received(body)
        if send == put:
            outbox.close(60.0)
            outbox = open_state(folder, bug)
            outbox.start()
    oldest(outbox)
    # The daemon has had a second since the last punch.
    upkeep(outbox)
    if closed:
        outbox.close(60.0)
    # The kiosk ends here as by a kill.
    os._exit(0)


def hurt(file: Path, kind: str, chance: random.Random) -> None:
    """Flip bits, cut off, exchange two pages, or overwrite a sector."""
    data = bytearray(file.read_bytes())
    size = len(data)
    if kind == "flip":
        for _ in range(chance.choice((1, 1, 2, 16))):
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[chance.randrange(size) :]
    elif kind == "swap":
        step = min(PAGE, size // 2)
        one, two = (chance.randrange(size // step) * step for _ in range(2))
        data[one : one + step], data[two : two + step] = (
            data[two : two + step],
            data[one : one + step],
        )
    else:
        start = chance.randrange(0, size, 512)
        data[start : start + 512] = chance.randbytes(len(data[start : start + 512]))
    file.write_bytes(data)


def _choose(folder: Path, chance: random.Random) -> Path:
    """The database and its log more often than the small files; a stray file now and then."""
    (folder / _STRAY).write_bytes(chance.randbytes(32 * PAGE))
    files = sorted(f for f in folder.iterdir() if 2 <= f.stat().st_size <= _LARGEST)
    files = [f for f in files if f.name != ACCOUNT]
    weights = [8 if f.name in {FILE, f"{FILE}-wal"} else 1 for f in files]
    (chosen,) = chance.choices(files, weights)
    if chosen.name != _STRAY:
        (folder / _STRAY).unlink()
    return chosen


class _Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def trial(number: int, source: Path, work: Path, truth: "Truth", bug: str) -> Outcome:
    """One damage, and all that follows."""
    chance = random.Random(number)
    folder = copied(source, work)
    file = _choose(folder, chance)
    kind = chance.choice(("flip", "cut", "swap", "overwrite"))
    hurt(file, kind, chance)
    outcome = Outcome(number, file.name, kind)
    live_on(folder, outcome, truth, bug)
    return outcome


def live_on(folder: Path, outcome: Outcome, truth: "Truth", bug: str = "") -> None:
    """Start a kiosk on the damaged files of `folder` and fill in what came of it."""
    told = _Told()
    logging.getLogger("kiosk").addHandler(told)
    sent: list[bytes] = []
    aside: set[str] = set()
    probe = next(people(_SEED + outcome.trial))
    try:
        _live(folder, bug, outcome, probe, sent, aside)
    finally:
        logging.getLogger("kiosk").removeHandler(told)
    outcome.told = told.count
    truth.judge(outcome, sent, aside, probe)


def _live(
    folder: Path, bug: str, outcome: Outcome, probe: Punch, sent: list[bytes], aside: set[str]
) -> None:
    """Start, as often as systemd would, until everything is sent."""
    while outcome.starts < _STARTS:
        outcome.starts += 1
        outbox = None
        try:
            outbox = open_state(folder, bug)
            outbox.start()
            spare.keep(folder, KEYS)
            with contextlib.suppress(_RecordedError):
                _put(outbox, probe)
            sent.extend(drain(outbox))
            aside |= {one.event.event_id for one in outbox.in_quarantine(1000)}
            outbox.close(60.0)
        except KioskError as error:
            outcome.end, outcome.error = "refused", str(error)
            _end(outbox)
        except Exception as error:  # noqa: BLE001 - an outcome of the trial
            outcome.end, outcome.error = "fell", repr(error)
            return
        else:
            outcome.end, outcome.error = "sent", ""
            return


class _RecordedError(Exception):
    """The new punch was recorded by an earlier start."""


def _put(outbox: Outbox, probe: Punch) -> None:
    try:
        outbox.put(probe)
    except (OutboxBrokenError, OutboxFullError):
        raise
    except KioskError as error:
        if "recorded as" in str(error):
            raise _RecordedError from error
        raise


def _end(outbox: Outbox | None) -> None:
    """As a process that ends: the file is let go of, whatever is said about it."""
    if outbox is not None:
        with contextlib.suppress(Exception):  # what ails the file was told before
            outbox.close(60.0)


class Truth:
    """What the files held before any damage: the bodies by event id, and the frozen one."""

    def __init__(self, source: Path, work: Path, bug: str = "") -> None:
        self._received = list(read(source / ACCOUNT).received)
        outbox = open_state(copied(source, work), bug)
        outbox.start()
        bodies = list(drain(outbox))
        outbox.close(60.0)
        self._frozen = bodies[0]
        self._waiting = {json.loads(body)["A1"]: json.loads(body) for body in bodies}
        self._known = self._waiting | {
            json.loads(body)["A1"]: json.loads(body) for body in self._received
        }

    def judge(self, outcome: Outcome, sent: list[bytes], aside: set[str], probe: Punch) -> None:
        """Fill in what was lost, forged, and lost by a server that goes by the number."""
        messages = [json.loads(body) for body in sent]
        names = {message["A1"] for message in messages}
        if outcome.end == "sent":
            outcome.lost = len(self._waiting.keys() - names - aside)
        outcome.forged = [
            text for message in messages for text in self._differences(message, probe)
        ]
        right, by_number = Server(), Server(by_number=True)
        for body in [*self._received, *sent]:
            right.take(body)
            by_number.take(body)
        outcome.by_number = len(right.records) - len(by_number.records)

    def _differences(self, message: dict[str, object], probe: Punch) -> Iterator[str]:
        """The number may be another one: what was never leased may come under a new epoch."""
        if message["A1"] == probe.event_id:
            return
        known = self._known.get(str(message["A1"]))
        if known is None:
            yield "A1"
            return
        free = set() if known == json.loads(self._frozen) else {"SEQ"}
        yield from sorted(
            name
            for name in known.keys() | message.keys()
            if name not in free and known.get(name) != message.get(name)
        )


def main() -> None:
    """Run trials, or prepare the files for them."""
    if sys.argv[1] in {"closed", "crashed"}:
        prepare(Path(sys.argv[2]), *sys.argv[3:], closed=sys.argv[1] == "closed")
    source, work, first, count, *bug = sys.argv[1:]
    truth = Truth(Path(source), Path(work), *(bug or [""]))
    for number in range(int(first), int(first) + int(count)):
        outcome = trial(number, Path(source), Path(work), truth, *(bug or [""]))
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
