"""The attendance message: drafted by the outbox, frozen before its first byte, read by a server.

The bytes are the JCS form (RFC 8785) of the fields, so one message has one body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import MessageError
from kiosk.types import Direction, Punch, Stamp, Trust
from kiosk.wire import f2
from kiosk.wire.eventid import ANY_UUID, is_event_id
from kiosk.wire.jsontext import canonical, quoted, read_object
from kiosk.wire.signing import KEY_ID, KEY_ID_EXPECTED, Signer

VERSION = "1"
PRESENT = "PRESENT"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"
_TIME_EXPECTED = "UTC as YYYY-MM-DDTHH:MM:SS.mmmZ"
_SHARE = r"0\.[0-9]{4}|1\.0000"
_SHARE_EXPECTED = "text 0.0000..1.0000 with 4 decimals"

EMPLOYEE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")
"""What an employee id may be (`E1`); whoever enrols somebody asks here, before it is too late."""
EMPLOYEE_EXPECTED = "1..200 characters, none of them control characters"
SPACE = re.compile(r"[!-~]{1,128}")
"""What the id of an embedding space may be (`F2_MODEL`)."""
SPACE_EXPECTED = "1..128 ASCII characters without spaces"

# What a text field must be, in a pattern and in words; a heartbeat's is the same.
RULES: dict[str, tuple[re.Pattern[str], str]] = {
    name: (re.compile(pattern), expected)
    for name, pattern, expected in (
        ("V1", VERSION, f'the text "{VERSION}"'),
        ("A1", ANY_UUID, "a UUID in lower case"),
        ("A2", "IN|OUT", "IN or OUT"),
        ("D1", r"[!-~]{1,64}", "1..64 ASCII characters without spaces"),
        ("E1", EMPLOYEE, EMPLOYEE_EXPECTED),
        ("S1", PRESENT, PRESENT),
        ("TS1", _TIME, _TIME_EXPECTED),
        ("TS1_MIN", _TIME, _TIME_EXPECTED),
        ("TS1_MAX", _TIME, _TIME_EXPECTED),
        ("F2_MODEL", SPACE, SPACE_EXPECTED),
        ("F3", rf"-?(?:{_SHARE})", "text -1.0000..1.0000 with 4 decimals"),
        ("S2", _SHARE, _SHARE_EXPECTED),
        ("S3", _SHARE, _SHARE_EXPECTED),
        (
            "SEQ",
            r"[A-Za-z0-9._-]{1,64}:(?:0|[1-9][0-9]{0,15})",
            "epoch:number without leading zeros",
        ),
        ("CLK", "synced|corrected|estimated", "synced, corrected or estimated"),
        ("K1", KEY_ID, KEY_ID_EXPECTED),
        ("SIG1", r"[A-Za-z0-9+/]{43}=", "base64 of 32 bytes"),
    )
}
_REQUIRED = ("A1", "D1", "S1", "TS1")


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """An attendance message that checks, as a server reads it.

    `vector`: float64 (dim,), decoded and not normalised, read-only. `seen_ms` and
    `seen_bounds_ms`: milliseconds since 1970 UTC. `score` -1..1, `liveness` and `quality` 0..1.
    `fields` is the message as it came, unknown fields included: what the signature is over.
    """

    event_id: str
    device_id: str
    employee: str | None
    kind: Direction | None
    vector: NDArray[np.float64]
    space: str | None
    score: float | None
    liveness: float | None
    quality: float | None
    seen_ms: int
    seen_bounds_ms: tuple[int, int] | None
    clock: str | None
    seq: str | None
    key_id: str | None
    signature: str | None
    fields: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.vector.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a message says it comes from: what is read of it before the rest is."""

    event_id: str
    device_id: str
    key_id: str | None


def draft(punch: Punch) -> bytes:
    """Write all of a punch that will not change any more; `freeze` adds the rest.

    MessageError or EmbeddingError for a punch that no server could read.
    """
    if not is_event_id(punch.event_id):
        raise MessageError(f"A1: expected a UUIDv7 in lower case, got {quoted(punch.event_id)}")
    fields: dict[str, object] = {
        "V1": VERSION,
        "A1": punch.event_id,
        "S1": PRESENT,
        "S3": _decimals(punch.quality),
        "F2_MODEL": punch.embedding.space,
        **f2.encode(punch.embedding.vector).fields(),
    }
    if punch.kind is not None:
        fields["A2"] = punch.kind.value
    if punch.liveness is not None:
        fields["S2"] = _decimals(punch.liveness)
    if punch.employee is not None:
        fields["E1"] = punch.employee
        if punch.score is not None:
            fields["F3"] = _decimals(punch.score)
    _check(fields)
    return canonical(fields)


def freeze(draft: bytes, *, seen: Stamp, seq: str, device_id: str, signer: Signer | None) -> bytes:
    """Complete a draft with device, time, sequence and signature: the body, final from here on."""
    fields = read_object(draft, MessageError)
    fields |= {"D1": device_id, "TS1": utc_text(seen.utc_ms), "SEQ": seq}
    # Without a source or bounds the message claims nothing about its clock.
    if seen.trust is not Trust.UNSYNCED:
        fields["CLK"] = seen.trust.value
    if seen.bounds_ms is not None:
        earliest, latest = seen.bounds_ms
        fields |= {"TS1_MIN": utc_text(earliest), "TS1_MAX": utc_text(latest)}
    if signer is not None:
        fields["K1"] = signer.key_id
        fields["SIG1"] = signer.sign_message(fields)
    _check(fields)
    _check_required(fields)
    return canonical(fields)


def parse(body: bytes) -> Message:
    """Read a message strictly; MessageError or TokenError names the field at fault.

    A1, D1, S1, TS1 and the F2 fields are required, other known fields are checked where they are
    present, unknown ones are kept. A1 may be a UUID of any version: only our own kiosks promise
    version 7. The caller bounds the size of `body`.
    """
    fields = read_object(body, MessageError)
    message = read(fields)
    # What JCS cannot write could not be signed either: told here, not at the signature.
    canonical(fields)
    return message


def sender_of(fields: Mapping[str, Any]) -> Sender:
    """Read A1, D1 and K1 alone, so that a malformed message can be answered; MessageError."""
    known = ("A1", "D1", "K1", "SIG1")
    _check({name: fields[name] for name in known if name in fields})
    _check_required(fields, ("A1", "D1"))
    return Sender(fields["A1"], fields["D1"], fields.get("K1"))


def read(fields: Mapping[str, Any]) -> Message:
    """Read the fields of a message that has a canonical form, as `parse` does."""
    _check(fields)
    _check_required(fields)
    return Message(
        event_id=fields["A1"],
        device_id=fields["D1"],
        employee=fields.get("E1"),
        kind=Direction(fields["A2"]) if "A2" in fields else None,
        vector=f2.decode(fields),
        space=fields.get("F2_MODEL"),
        score=_number(fields, "F3"),
        liveness=_number(fields, "S2"),
        quality=_number(fields, "S3"),
        seen_ms=_utc_ms(fields, "TS1"),
        seen_bounds_ms=_bounds_ms(fields),
        clock=fields.get("CLK"),
        seq=fields.get("SEQ"),
        key_id=fields.get("K1"),
        signature=fields.get("SIG1"),
        fields=fields,
    )


def _check(fields: Mapping[str, object]) -> None:
    """Check every known field that is present."""
    for name, (pattern, expected) in RULES.items():
        if name not in fields:
            continue
        value = fields[name]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            # Who was meant is nobody's business in a journal.
            came = f"another {type(value).__name__}" if name == "E1" else quoted(value)
            raise MessageError(f"{name}: expected {expected}, got {came}")
    if ("K1" in fields) != ("SIG1" in fields):
        raise MessageError("K1, SIG1: expected both or neither, got one")


def _check_required(fields: Mapping[str, object], names: Sequence[str] = _REQUIRED) -> None:
    for name in names:
        if name not in fields:
            raise MessageError(f"{name}: expected {RULES[name][1]}, got no such field")


def _decimals(value: float) -> str:
    """Write a score with exactly 4 decimals; no negative zero."""
    text = f"{value:.4f}"
    return "0.0000" if text == "-0.0000" else text


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    return float(fields[name]) if name in fields else None


def utc_text(utc_ms: int) -> str:
    """Milliseconds since 1970 as the wire has them; MessageError beyond the year 9999."""
    try:
        moment = _EPOCH + timedelta(milliseconds=utc_ms)
    except OverflowError as cause:
        raise MessageError(f"TS1: expected a time up to the year 9999, got {utc_ms} ms") from cause
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _utc_ms(fields: Mapping[str, Any], name: str) -> int:
    try:
        return (datetime.fromisoformat(fields[name]) - _EPOCH) // _MILLISECOND
    except ValueError as cause:
        raise MessageError(f"{name}: expected {_TIME_EXPECTED}, got {fields[name]}") from cause


def _bounds_ms(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return TS1_MIN and TS1_MAX; both are required of an estimated time."""
    if "TS1_MIN" not in fields and "TS1_MAX" not in fields:
        if fields.get("CLK") == "estimated":
            raise MessageError("TS1_MIN, TS1_MAX: expected with CLK estimated, got neither")
        return None
    if "TS1_MIN" not in fields or "TS1_MAX" not in fields:
        raise MessageError("TS1_MIN, TS1_MAX: expected both or neither, got one")
    earliest, latest = _utc_ms(fields, "TS1_MIN"), _utc_ms(fields, "TS1_MAX")
    if not earliest <= _utc_ms(fields, "TS1") <= latest:
        raise MessageError("TS1: expected a time between TS1_MIN and TS1_MAX, got one outside")
    return earliest, latest
