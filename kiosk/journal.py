"""Logging as systemd understands it: set up once; one line for an event, its facts as fields.

On a terminal or a pipe a plain line; under systemd a priority prefix (sd-daemon(3)), or native
journal fields when systemd-python is there. Never an embedding, a picture or a secret.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

from kiosk import config
from kiosk.clock import Clock

_PRIORITY = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_LONGEST = 500


def set_up(settings: config.Journal, *, clock: Clock, stream: IO[str] | None = None) -> None:
    """Send every record of the kiosk to the journal or to `stream` (standard error)."""
    stream = stream or sys.stderr
    handler: logging.Handler
    if _under_systemd(stream):
        send = _native_send()
        handler = NativeHandler(send) if send else logging.StreamHandler(stream)
        handler.setFormatter(Lines(prefixes=True))
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(Lines(clock=clock))
    handler.addFilter(Facts(names=settings.names))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("kiosk").setLevel(settings.level.upper())


def _under_systemd(stream: IO[str]) -> bool:
    """Whether the stream is the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _native_send() -> Any:
    try:
        from systemd import journal
    except ImportError:
        return None
    return journal.send


class Facts(logging.Filter):
    """Lets only plain values through, and people's ids only where the configuration says so."""

    def __init__(self, *, names: bool) -> None:
        super().__init__()
        self._names = names

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's fields by what may be written."""
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        record.fields = {
            key: _plain(value) for key, value in fields.items() if key != "employee" or self._names
        }
        return True


def _plain(value: Any) -> str | int | float | bool:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"
    # An array or bytes may be a face: only what it was is written.
    return f"<{type(value).__name__}>"


class Lines(logging.Formatter):
    """`room.event key=value ...` on one line, whatever the values hold."""

    def __init__(self, *, prefixes: bool = False, clock: Clock | None = None) -> None:
        super().__init__()
        self._prefixes = prefixes
        self._clock = clock

    def format(self, record: logging.LogRecord) -> str:
        """One line; the trace of an error follows at level debug only."""
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            fields.setdefault("error", f"{record.exc_info[0].__name__}: {record.exc_info[1]}")
        words = [_quoted(record.getMessage(), always=False)]
        words += [f"{key}={_quoted(value, always=False)}" for key, value in fields.items()]
        line = " ".join(words)
        if self._prefixes:
            line = f"<{priority(record.levelno)}>{line}"
        elif self._clock is not None:
            moment = datetime.fromtimestamp(self._clock.now().utc_ms / 1000, UTC).astimezone()
            line = f"{moment:%H:%M:%S} {record.levelname.lower():8} {line}"
        if record.exc_info and logging.getLogger("kiosk").isEnabledFor(logging.DEBUG):
            line += "\n" + self.formatException(record.exc_info)
        return line


class NativeHandler(logging.Handler):
    """Sends records with native fields; `send` is systemd.journal.send or one like it."""

    def __init__(self, send: Any) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """One journal entry: MESSAGE, PRIORITY, KIOSK_EVENT and a KIOSK_ field for each fact."""
        fields = {
            f"KIOSK_{key.upper()}": str(v) for key, v in getattr(record, "fields", {}).items()
        }
        line = self.format(record)
        message = line.split(">", 1)[1] if line.startswith("<") else line
        self._send(
            message,
            PRIORITY=priority(record.levelno),
            SYSLOG_IDENTIFIER="kiosk",
            KIOSK_EVENT=record.getMessage(),
            **fields,
        )


def priority(level: int) -> int:
    """The syslog priority of a logging level."""
    return _PRIORITY.get(level, 5)


def _quoted(value: Any, *, always: bool) -> str:
    """A value as one word: quoted when it holds spaces, control characters always escaped."""
    text = str(value)
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if always or " " in clean or '"' in clean or not clean:
        return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return clean
