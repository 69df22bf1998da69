"""The journal: one line for an event, `room.event key=value`, set up once for the whole process.

A room logs `log.info("room.event", extra={"fields": {...}})`; what `messages.py` lists has a
MESSAGE_ID. A warning or an error that repeats is counted instead.
Where it goes:

- a terminal or a pipe: `HH:MM:SS level room.event key=value`, local time;
- under systemd: `<priority>room.event key=value` (sd-daemon(3)), for journald knows the time;
- under systemd with systemd-python: native fields, `KIOSK_EVENT` and `KIOSK_<KEY>`
  (systemd.journal-fields(7)).

What can be no fact of an event (an array, bytes, any other object) never gets in, and an employee
only where the configuration allows it.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from kiosk import config
from kiosk.clock import Clock
from kiosk.entry import Entry, entry_of, one_line
from kiosk.repeats import Repeats

_MAX_COMPLAINTS = 100


class Form(Protocol):
    """One way to write an entry down."""

    def write(self, entry: Entry) -> None:
        """Write it; OSError or ValueError (a closed stream) when that cannot be done."""
        ...


class PlainForm:
    """Lines for a person: time, level, event, and a trace below where there is one."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream, self._clock = stream, clock

    def write(self, entry: Entry) -> None:
        """One line, and one more for each line of the trace."""
        local = datetime.fromtimestamp(self._clock.now().utc_ms / 1000, UTC).astimezone()
        level = logging.getLevelName(entry.level).lower()
        lines = [f"{local:%H:%M:%S} {level} {entry.text}", *(f"    | {t}" for t in entry.trace)]
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


class PrefixForm:
    """Lines for journald on standard error: a priority in front of each."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, entry: Entry) -> None:
        """One line, and one more for each line of the trace."""
        lines = [f"<{entry.priority}>{entry.text}"]
        lines += [f"<{entry.priority}>    | {line}" for line in entry.trace]
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()


class NativeForm:
    """Fields for journald, through systemd-python; lines when journald does not take them."""

    def __init__(self, journal: Any, fallback: Form) -> None:
        self._journal, self._fallback = journal, fallback

    def write(self, entry: Entry) -> None:
        """One journal entry with KIOSK_EVENT and a KIOSK_<KEY> for each field."""
        fields = {f"KIOSK_{key.upper()}": value for key, value in entry.fields.items()}
        if entry.trace:
            fields["KIOSK_TRACE"] = "\n".join(entry.trace)
        message_id = {"MESSAGE_ID": entry.message_id} if entry.message_id else {}
        file, line, function = entry.source
        try:
            self._journal.send(
                entry.text,
                CODE_FILE=file,
                CODE_LINE=line,
                CODE_FUNC=function,
                PRIORITY=str(entry.priority),
                SYSLOG_IDENTIFIER="kiosk",
                **message_id,
                **(fields | {"KIOSK_EVENT": entry.event}),
            )
        except OSError as error:
            self._fallback.write(entry)
            facts = {"reason": one_line(str(error))}
            self._fallback.write(Entry(logging.ERROR, "journal.native_failed", facts))


class JournalHandler(logging.Handler):
    """Turns log records into entries, and tells once of each thing a room must not log."""

    def __init__(self, form: Form, *, names: bool, traces: bool, clock: Clock) -> None:
        super().__init__()
        self._clock, self._repeats = clock, Repeats()
        self._form, self._names, self._traces = form, names, traces
        self._complained: set[tuple[str, str, str]] = set()
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what cannot be written is counted and told of later."""
        entry = entry_of(record, names=self._names, traces=self._traces)
        now_ns = self._clock.boottime_ns()
        for gist, count in list(self._repeats.over(now_ns)):
            facts = {"what": one_line(gist.partition(" ")[2]), "count": str(count)}
            self._write(Entry(logging.WARNING, "journal.repeated", facts))
        left_out = (
            self._repeats.admits(f"{entry.priority} {entry.gist}", now_ns)
            if _may_repeat(entry)
            else 0
        )
        if left_out is None:
            return
        if left_out:
            entry = replace(entry, fields={**entry.fields, "repeated": str(left_out)})
        self._write(entry)
        for key, kind in entry.refused:
            self._complain(entry.event, key, kind)

    def _complain(self, event: str, key: str, kind: str) -> None:
        """Say once that a room logs what it must not."""
        if (event, key, kind) in self._complained or len(self._complained) >= _MAX_COMPLAINTS:
            return
        self._complained.add((event, key, kind))
        facts = {"in_event": event, "field": key, "type": one_line(kind)}
        self._write(Entry(logging.ERROR, "journal.field_refused", facts))

    def _write(self, entry: Entry) -> None:
        try:
            if self._lost:
                lost = {"count": str(self._lost)}
                self._form.write(Entry(logging.ERROR, "journal.lines_lost", lost))
                self._lost = 0
            self._form.write(entry)
        except (OSError, ValueError):
            # A full or closed stream must not stop a punch; the gap is told once it writes again.
            self._lost += 1


def _may_repeat(entry: Entry) -> bool:
    """Whether saying it again is saying nothing: a visit, an event is always somebody's own."""
    is_own = "event_id" in entry.fields or entry.event.startswith(("visit.", "journal.", "board."))
    return logging.WARNING <= entry.level < logging.CRITICAL and not is_own


def set_up(
    settings: config.Journal,
    *,
    clock: Clock,
    stream: TextIO | None = None,
    under_systemd: bool | None = None,
) -> None:
    """Send every log record of the process to the journal; called once, at the start.

    `stream` is standard error unless given. `under_systemd` is found out unless given: whether
    journald itself reads the stream (JOURNAL_STREAM, systemd.exec(5)).
    """
    stream = sys.stderr if stream is None else stream
    systemd = _read_by_journald(stream) if under_systemd is None else under_systemd
    form = _systemd_form(stream) if systemd else PlainForm(stream, clock)
    handler = JournalHandler(
        form, names=settings.names, traces=settings.level == "debug", clock=clock
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, JournalHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.getLogger("kiosk").setLevel(level)
    # Other people's libraries speak of what failed only.
    root.setLevel(max(level, logging.WARNING))
    if systemd and isinstance(form, PrefixForm):
        meaning = "systemd-python is absent: events carry no fields of their own"
        logging.getLogger(__name__).info(
            "journal.prefixes_only", extra={"fields": {"meaning": meaning}}
        )


def _systemd_form(stream: TextIO) -> Form:
    lines = PrefixForm(stream)
    try:
        from systemd import journal
    except ImportError:
        return lines
    return NativeForm(journal, lines)


def _read_by_journald(stream: TextIO) -> bool:
    """Whether the stream is the one that systemd connected to journald."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        # No file behind it: nobody's journal.
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
