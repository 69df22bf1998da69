"""Alarms that were raised while a command had the queue, kept for the daemon's journal.

A command that opens the state folder may be the first to find a loss. Whoever reads the journal
must find it all the same, so what is critical waits in a file for the next start, and so does an
event that somebody dropped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from kiosk.clock import Clock
from kiosk.entry import entry_of

log = logging.getLogger(__name__)

FILE = "untold.jsonl"
_MOST_BYTES = 1 << 20
_KEPT = {"outbox.dropped"}


class _Keeper(logging.Handler):
    """Appends to the file what is critical, and what else must be in the journal."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__()
        self.addFilter(lambda record: record.levelno >= logging.CRITICAL or record.msg in _KEPT)
        self._path, self._clock = path, clock

    def emit(self, record: logging.LogRecord) -> None:
        """One line for one alarm, with what an entry of the journal may hold."""
        entry = entry_of(record, names=False, traces=False)
        said = {"event": entry.event, "fields": entry.fields, "at_ms": self._clock.now().utc_ms}
        said["level"] = record.levelno
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, json.dumps(said).encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            # The command's own standard error has it.
            self.handleError(record)


@contextlib.contextmanager
def kept_for_the_daemon(folder: Path, clock: Clock) -> Iterator[None]:
    """Within it alarms are kept in the state folder too."""
    keeper = _Keeper(folder / FILE, clock)
    root = logging.getLogger("kiosk")
    root.addHandler(keeper)
    try:
        yield
    finally:
        root.removeHandler(keeper)


def tell(folder: Path) -> None:
    """Journal what commands found, and forget it."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            lines = file.read(_MOST_BYTES).splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            said = json.loads(line)
            event, fields = str(said["event"]), dict(said["fields"])
            level = int(said.get("level", logging.CRITICAL))
            fields["found_by"] = "a command, while no daemon ran"
            fields["found_at_ms"] = int(said["at_ms"])
        except (ValueError, TypeError, KeyError):
            # Cut off in the middle: what can be read of it is told.
            event, fields = "journal.alarm_unreadable", {"line": line.decode(errors="replace")}
            level = logging.CRITICAL
        log.log(level, event, extra={"fields": fields})
    path.unlink()
