"""Event ids: UUIDv7 (RFC 9562, section 5.7), in order of time and unguessable."""

from __future__ import annotations

import random
import re
import uuid

from kiosk.errors import MessageError

_LATEST_MS = 2**48 - 1
_VERSION_7 = 0x7
_VARIANT = 0b10
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

# What a server takes as A1: other clients may make ids of another version.
ANY_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def new_event_id(utc_ms: int, rng: random.Random) -> str:
    """Make an event id for a moment in milliseconds since 1970 UTC.

    `rng` gives the 74 random bits; in the product it is a `random.SystemRandom`. MessageError for
    a moment that 48 bits do not hold.
    """
    if not 0 <= utc_ms <= _LATEST_MS:
        raise MessageError(
            f"A1: expected a time of 0..{_LATEST_MS} ms since 1970, got {utc_ms}",
            hint="set the clock",
        )
    rand_a, rand_b = rng.getrandbits(12), rng.getrandbits(62)
    return str(
        uuid.UUID(int=utc_ms << 80 | _VERSION_7 << 76 | rand_a << 64 | _VARIANT << 62 | rand_b)
    )


def is_event_id(text: object) -> bool:
    """Whether `text` is an event id as the kiosk makes them: UUIDv7, canonical, lower case."""
    return isinstance(text, str) and _CANONICAL.fullmatch(text) is not None
