"""After a fault: a new kiosk opens what is there, records two more punches and sends everything."""

import itertools
import shutil
from pathlib import Path

from faults.account import Said, Verdict, judge
from faults.worker import drain, open_outbox, people

_PROBES = 2
_SEED = 1_000_000


def restart(folder: Path, said: Said) -> Verdict:
    """Open the files of `folder` with the product and judge; they are changed by it."""
    return judge(said, *reopened(folder))


def reopened(folder: Path) -> tuple[list[bytes], list[str]]:
    """What the product sends of the files of `folder`, and the ids of two punches put after."""
    outbox = open_outbox(folder)
    outbox.start()
    try:
        probes = list(itertools.islice(people(_SEED), _PROBES))
        for punch in probes:
            outbox.put(punch)
        after = list(drain(outbox))
        waits = outbox.status()
    finally:
        outbox.close(60.0)
    if waits.pending or waits.quarantined:
        raise AssertionError(f"expected an empty queue after the fault, got {waits}")
    return after, [punch.event_id for punch in probes]


def copied(folder: Path, into: Path) -> Path:
    """A copy of a kiosk's files, in a folder made anew."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy2(file, into)
    return into
