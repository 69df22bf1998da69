"""The heartbeat: how a kiosk stands, signed like a message, to the same server.

Fields and their order are free; the bytes are the JCS form (RFC 8785). docs/wire.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kiosk.errors import MessageError
from kiosk.types import Stamp, Trust
from kiosk.wire.jsontext import canonical, quoted, read_object
from kiosk.wire.message import RULES, VERSION, utc_text
from kiosk.wire.signing import Signer

MAX_NUMBERS = 1000
"""Of what was set aside so many numbers are told, the oldest; QUARANTINED counts them all."""
_WORD = (re.compile(r"[ -~]{1,64}"), "1..64 ASCII characters")
_SAME = ("V1", "D1", "TS1", "F2_MODEL", "SEQ", "K1", "SIG1")
_RULES = {
    **{name: RULES[name] for name in _SAME},
    "CLK": (re.compile("synced|estimated"), "synced or estimated"),
    "VERSION": _WORD,
    "STATE": _WORD,
}
_OPTIONAL = {"K1", "SIG1"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a kiosk says of itself."""

    space: str
    version: str
    seq: str
    """The high-water mark, epoch:number."""
    queue: int
    queue_age_s: int
    quarantine: Sequence[str]
    """Sequences that were set aside, so that a gap in the numbers has a reason."""
    state: str


def write(device: str, now: Stamp, standing: Standing, signer: Signer | None) -> bytes:
    """The body of a heartbeat, signed when there is a key."""
    fields: dict[str, object] = {
        "V1": VERSION,
        "D1": device,
        "TS1": utc_text(now.utc_ms),
        "CLK": "synced" if now.trust is Trust.SYNCED else "estimated",
        "F2_MODEL": standing.space,
        "VERSION": standing.version,
        "SEQ": standing.seq,
        "QUEUE": standing.queue,
        "QUEUE_AGE_S": standing.queue_age_s,
        "QUARANTINE": list(standing.quarantine[:MAX_NUMBERS]),
        "STATE": standing.state,
    }
    if signer is not None:
        fields["K1"] = signer.key_id
        fields["SIG1"] = signer.sign_message(fields)
    return canonical(fields)


def read(body: bytes) -> Mapping[str, Any]:
    """The fields of a heartbeat that checks, unknown ones included; MessageError otherwise."""
    fields = read_object(body, MessageError)
    for name, (pattern, expected) in _RULES.items():
        value = fields.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise MessageError(f"{name}: expected {expected}, got {quoted(value)}")
    for name in ("QUEUE", "QUEUE_AGE_S"):
        value = fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise MessageError(f"{name}: expected a number of at least 0, got {quoted(value)}")
    numbers = fields.get("QUARANTINE")
    if (
        not isinstance(numbers, list)
        or len(numbers) > MAX_NUMBERS
        or not all(isinstance(n, str) and _RULES["SEQ"][0].fullmatch(n) for n in numbers)
    ):
        raise MessageError(f"QUARANTINE: expected up to {MAX_NUMBERS} of epoch:number")
    return fields
