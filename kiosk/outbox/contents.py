"""What one event holds, draft or body, whether it waits or was set aside."""

from __future__ import annotations

from dataclasses import dataclass

from kiosk.errors import UserError, VaultError
from kiosk.outbox.bodies import Bodies
from kiosk.outbox.rows import Recorded, Rows
from kiosk.wire.jsontext import quoted

# The table that holds an event's draft or body.
_HOLDERS = {"queued": "waiting", "quarantined": "quarantine"}


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is kept of one event. `body` is the draft while there is no body yet.

    `unreadable`: why what is kept cannot be opened. A settled event has neither.
    """

    event: Recorded
    answer: str | None
    reason: str | None
    aside_ms: int | None
    body: bytes | None
    unreadable: str | None


@dataclass(frozen=True, slots=True)
class Exported:
    """The message that one event is sent as, or why there is none."""

    event: Recorded
    body: bytes | None
    unreadable: str | None


def content(rows: Rows, event: Recorded) -> tuple[bytes | None, bytes | None]:
    """Return the sealed draft and the sealed body of an event; a settled one has neither."""
    holder = _HOLDERS.get(event.state)
    if holder is None:
        return None, None
    query = f"SELECT draft, body FROM {holder} WHERE position = ?"  # noqa: S608 - two constants
    draft, body = rows.one(query, event.position)
    return draft, body


def keep_body(rows: Rows, event: Recorded, sealed: bytes, digest: bytes) -> None:
    """Put an event's body in the place of its draft: one copy of a face is enough."""
    holder = _HOLDERS[event.state]
    rows.run(
        f"UPDATE {holder} SET draft = NULL, body = ? WHERE position = ?",  # noqa: S608
        *(sealed, event.position),
    )
    rows.run("UPDATE event SET body_sha256 = ? WHERE position = ?", digest, event.position)


def show(rows: Rows, bodies: Bodies, event_id: str) -> Shown:
    """Return all that is kept of one event; UserError if it never was recorded."""
    event = rows.event(event_id)
    if event is None:
        raise UserError(
            f"expected the id of a recorded event, got {quoted(event_id)}",
            hint="`kiosk outbox list` and `kiosk outbox quarantine` name them",
        )
    draft, sealed = content(rows, event)
    answer, reason, aside_ms = rows.one(
        "SELECT answer, reason, quarantine.utc_ms FROM event"
        " LEFT JOIN quarantine USING (position) WHERE event.position = ?",
        event.position,
    )
    body = None
    try:
        if sealed is not None:
            body = bodies.open(event_id, sealed)
        elif draft is not None:
            body = bodies.open_draft(event_id, draft)
    except VaultError as error:
        return Shown(event, answer, reason, aside_ms, None, error.message)
    return Shown(event, answer, reason, aside_ms, body, None)
