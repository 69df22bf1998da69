"""What the journal writes down of a log record, and what it must never write down.

A fact of an event is a text, a number, a truth value or nothing. Anything else (an array, bytes,
an object) is replaced by the name of its type, so that neither an embedding nor a picture can get
into a journal. A text is cut at 500 characters, stays on one line and holds nothing that a
terminal could act on.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kiosk.messages import MESSAGE_IDS

Value = str | int | float | bool | None

_MAX_TEXT = 500
# journald takes names of up to 64 characters, KIOSK_ included.
_MAX_KEY = 50
_MAX_INT_BITS = 128
_EVENT = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_NOT_IN_KEY = re.compile(r"[^a-z0-9_]")
_BARE = re.compile(r"[^\s\"=\\]+")
# The priorities of sd-daemon(3), each with the least level that has it.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, ready to write: every text is one line and free of control characters."""

    level: int
    event: str
    fields: Mapping[str, str]
    refused: tuple[tuple[str, str], ...] = ()
    """Field and type of what was replaced by its type's name."""
    trace: tuple[str, ...] = ()
    source: tuple[str, int, str] = ("", 0, "")
    message_id: str = ""
    """32 hex digits that name the kind of event to journald, "" for most."""

    @property
    def text(self) -> str:
        """`room.event key=value ...`."""
        return " ".join([self.event, *(f"{k}={_quoted(v)}" for k, v in self.fields.items())])

    @property
    def gist(self) -> str:
        """What it says, but for what differs each time: two that say the same are equal in it."""
        words = {k: v for k, v in self.fields.items() if not _is_number(v)}
        return " ".join([self.event, *(f"{k}={_quoted(v)}" for k, v in words.items())])

    @property
    def priority(self) -> int:
        """The syslog priority, 2 (critical) .. 7 (debug)."""
        return next((p for least, p in _PRIORITIES if self.level >= least), _DEBUG_PRIORITY)


def entry_of(record: logging.LogRecord, *, names: bool, traces: bool) -> Entry:
    """The entry of a record; `names` lets employee ids in, `traces` the frames of an error."""
    event, facts = _facts(record)
    fields: dict[str, str] = {}
    refused: list[tuple[str, str]] = []
    for name, value in facts.items():
        key = _NOT_IN_KEY.sub("_", str(name).lower())[:_MAX_KEY]
        if key == "employee" and not names:
            continue
        if not _is_plain(value):
            refused.append((key, type(value).__name__))
        fields[key] = one_line(_text(value))
    error = record.exc_info[1] if record.exc_info else None
    trace: tuple[str, ...] = ()
    if error is not None:
        fields |= {"error": type(error).__name__, "error_text": one_line(_words(error))}
        trace = tuple(_trace(error)) if traces else ()
    source = (record.pathname, record.lineno, record.funcName or "")
    message_id = MESSAGE_IDS.get(event, "")
    return Entry(record.levelno, event, fields, tuple(refused), trace, source, message_id)


def _facts(record: logging.LogRecord) -> tuple[str, Mapping[Any, Any]]:
    """Event and fields of a record; free text, as libraries write it, becomes a field."""
    fields = getattr(record, "fields", {})
    fields = fields if isinstance(fields, Mapping) else {"fields": fields}
    ours = record.name == "kiosk" or record.name.startswith("kiosk.")
    if ours and isinstance(record.msg, str) and not record.args and _EVENT.fullmatch(record.msg):
        return record.msg, fields
    return "journal.other", {"logger": record.name, "text": _message(record)} | dict(fields)


def _message(record: logging.LogRecord) -> Any:
    """The text of a free-form record, with the types of arguments that are no plain values."""
    if not isinstance(record.msg, str):
        return _words(record.msg) if isinstance(record.msg, BaseException) else record.msg
    args = record.args or ()
    try:
        if isinstance(args, Mapping):
            return record.msg % {key: _argument(value) for key, value in args.items()}
        return record.msg % tuple(_argument(value) for value in args) if args else record.msg
    except (TypeError, ValueError, LookupError, OverflowError):
        # Its arguments do not fit it, or did not before their types took their place.
        return record.msg


def _argument(value: Any) -> Value:
    if isinstance(value, BaseException):
        return _words(value)
    return value if _is_plain(value) else type(value).__name__


def _is_plain(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _MAX_INT_BITS
    return value is None or isinstance(value, str | float)


def _text(value: Any) -> str:
    """A value in words; only the type's name of what is not plain."""
    if not _is_plain(value):
        return type(value).__name__
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return str(value)


def one_line(text: str) -> str:
    """A text on one line: cut to 500 characters, what a terminal could act on escaped."""
    cut = text[:_MAX_TEXT]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(text) <= _MAX_TEXT else f"{safe}…[{len(text) - _MAX_TEXT} more]"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _words(error: BaseException) -> str:
    """What an error says; only the types of what it carries where that is no plain value."""
    if all(_is_plain(arg) or isinstance(arg, BaseException) for arg in error.args):
        if not any(isinstance(arg, BaseException) for arg in error.args):
            return str(error)
        return ": ".join(str(_argument(arg)) for arg in error.args)
    return "(" + ", ".join(type(arg).__name__ for arg in error.args) + ")"


def _trace(error: BaseException) -> Iterator[str]:
    """The frames of an error and of those behind it, the latest first, line by line."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield f"{type(cause).__name__}: {one_line(_words(cause))}"
        for frame in traceback.format_tb(cause.__traceback__):
            yield from (one_line(line) for line in frame.splitlines())
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
