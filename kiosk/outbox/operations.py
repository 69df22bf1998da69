"""What may be asked of the queue from outside: over the control socket, or without a daemon."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from kiosk.errors import MessageError, UserError
from kiosk.outbox.rows import Recorded, SetAside
from kiosk.outbox.store import Outbox, status_document
from kiosk.wire.jsontext import quoted, read_object

# One reply has a bound; whoever has more of them is helped by the first thousand.
MOST_SHOWN = 1000
# Frozen in one transaction, which a punch may have to wait for.
_SLICE = 100
_SHA256 = re.compile("[0-9a-f]{64}")
# An embedding is as good as a photograph, and no use to a reader.
_BIOMETRIC = {"F2_DATA", "F2_META"}

Operation = Callable[[dict[str, Any]], dict[str, Any]]


def operations(outbox: Outbox) -> Mapping[str, Operation]:
    """The operations by name; a request and its reply are JSON objects."""
    return {
        "outbox": lambda _: status_document(outbox.status()),
        "outbox.backup": lambda _: _back_up(outbox),
        "outbox.inspect": lambda _: _inspect(outbox),
        "outbox.list": lambda request: _list(outbox, request["limit"]),
        "outbox.show": lambda request: _show(outbox, request["event"]),
        "outbox.export": lambda request: _export(outbox, request["beyond"]),
        "outbox.quarantine": lambda _: _quarantine(outbox),
        "outbox.retry": lambda request: _retry(outbox, request["events"]),
        "outbox.copy": lambda request: _copy(outbox, request["event"]),
        "outbox.drop": lambda request: _drop(outbox, request["event"], request["sha256"]),
    }


def _back_up(outbox: Outbox) -> dict[str, Any]:
    """Write a copy of the queue, for whoever wants to try something on it."""
    file = outbox.backup()
    return {"file": str(file), "bytes": file.stat().st_size}


def _inspect(outbox: Outbox) -> dict[str, Any]:
    """Begin to read the whole queue anew."""
    outbox.inspect()
    return {"inspecting": outbox.inspecting}


def _quarantine(outbox: Outbox) -> dict[str, Any]:
    """How many events were set aside, and the oldest thousand of them."""
    events = [_document(aside) for aside in outbox.in_quarantine(MOST_SHOWN)]
    return {"quarantined": outbox.status().quarantined, "events": events}


def _list(outbox: Outbox, limit: Any) -> dict[str, Any]:
    """How many events wait, and the oldest of them."""
    if not isinstance(limit, int) or not 1 <= limit <= MOST_SHOWN:
        raise UserError(f"limit: expected a number 1..{MOST_SHOWN}, got {quoted(limit)}")
    events = [_facts(event) for event in outbox.waiting(limit)]
    return {"pending": outbox.status().pending, "events": events}


def _show(outbox: Outbox, event_id: Any) -> dict[str, Any]:
    """All that is kept of one event but for the face."""
    shown = outbox.show(_name(event_id))
    fields = None if shown.body is None else read_object(shown.body, MessageError)
    return {
        **_facts(shown.event),
        "state": shown.event.state,
        "answer": shown.answer,
        "reason": shown.reason,
        "aside_ms": shown.aside_ms,
        "unreadable": shown.unreadable,
        "message": None
        if fields is None
        else {name: value for name, value in fields.items() if name not in _BIOMETRIC},
    }


def _export(outbox: Outbox, beyond: Any) -> dict[str, Any]:
    """A slice of the queue as messages; `beyond` of the reply asks for the next, None: no more."""
    if not isinstance(beyond, int) or not 0 <= beyond < 1 << 62:
        raise UserError(f"beyond: expected a number, got {quoted(beyond)}")
    slice_ = outbox.export(_SLICE, beyond=beyond)
    return {
        "messages": [one.body.decode("utf-8") for one in slice_ if one.body is not None],
        "unreadable": [
            {**_facts(one.event), "reason": one.unreadable} for one in slice_ if one.body is None
        ],
        "beyond": slice_[-1].event.position if slice_ else None,
    }


def _copy(outbox: Outbox, event_id: Any) -> dict[str, Any]:
    """The message of one event that was set aside, and what to name it by when it is dropped."""
    shown = outbox.show(_name(event_id))
    if shown.event.state != "quarantined":
        raise UserError(
            f"expected an event that was set aside, {event_id} is {shown.event.state}",
            hint="`kiosk outbox quarantine` lists them; nothing was changed",
        )
    (one,) = outbox.export(1, beyond=shown.event.position - 1)
    if one.body is None or one.event.event_id != event_id:
        raise UserError(
            f"{event_id}: expected a message that can be exported, got: {one.unreadable}",
            hint="what cannot be read has no copy elsewhere, so it stays",
        )
    digest = hashlib.sha256(one.body).hexdigest()
    return {**_facts(one.event), "message": one.body.decode("utf-8"), "sha256": digest}


def _drop(outbox: Outbox, event_id: Any, sha256: Any) -> dict[str, Any]:
    """Take out an event of which somebody has the message."""
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise UserError(f"sha256: expected 64 hexadecimal digits, got {quoted(sha256)}")
    event = outbox.drop(_name(event_id), bytes.fromhex(sha256))
    return {"event_id": event.event_id, "seq": event.seq}


def _name(event_id: Any) -> str:
    if not isinstance(event_id, str):
        raise UserError(f"event: expected an event id, got {quoted(event_id)}")
    return event_id


def _facts(event: Recorded) -> dict[str, Any]:
    digest = event.body_sha256
    return {
        "seq": event.seq,
        "event_id": event.event_id,
        "seen_ms": event.seen.utc_ms,
        "clock": event.seen.trust.value,
        "attempts": event.attempts,
        "body_sha256": None if digest is None else digest.hex(),
    }


def _document(aside: SetAside) -> dict[str, Any]:
    return {
        "seq": aside.event.seq,
        "event_id": aside.event.event_id,
        "reason": aside.reason,
        "aside_ms": aside.utc_ms,
        "seen_ms": aside.event.seen.utc_ms,
    }


def _retry(outbox: Outbox, events: Any) -> dict[str, Any]:
    """Queue these events again; the word "all" for every one of them."""
    if events == "all":
        return {"queued": len(outbox.retry(None))}
    if not isinstance(events, list) or not all(isinstance(name, str) for name in events):
        raise UserError('events: expected a list of event ids or "all"')
    return {"queued": len(outbox.retry(events))}
