"""What may be asked of the queue from outside: over the control socket, or without a daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kiosk.errors import UserError
from kiosk.outbox.rows import SetAside
from kiosk.outbox.store import Outbox, status_document

# One reply has a bound; whoever has more of them is helped by the first thousand.
_MOST_SHOWN = 1000

Operation = Callable[[dict[str, Any]], dict[str, Any]]


def operations(outbox: Outbox) -> Mapping[str, Operation]:
    """The operations by name; a request and its reply are JSON objects."""
    return {
        "outbox": lambda _: status_document(outbox.status()),
        "outbox.quarantine": lambda _: _quarantine(outbox),
        "outbox.retry": lambda request: _retry(outbox, request["events"]),
    }


def _quarantine(outbox: Outbox) -> dict[str, Any]:
    """How many events were set aside, and the oldest thousand of them."""
    events = [_document(aside) for aside in outbox.in_quarantine(_MOST_SHOWN)]
    return {"quarantined": outbox.status().quarantined, "events": events}


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
