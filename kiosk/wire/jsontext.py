"""JSON in, by the letter of I-JSON (RFC 7493); JSON out, in the canonical form of RFC 8785.

Both ends must see the same value in the same bytes, or a signature means nothing: a key given
twice, a number beyond the doubles and text that is not Unicode are refused on the way in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from kiosk.errors import MessageError, WireError

# Beyond it a double no longer tells two integers apart, and JSON numbers are doubles (RFC 7493).
_LARGEST_INTEGER = 2**53 - 1
_QUOTED_CHARACTERS = 60


def read_object(body: bytes, error: type[WireError]) -> dict[str, Any]:
    """Decode one JSON object from UTF-8; `error`, saying what came, for anything else."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_number,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except ValueError as cause:
        raise error(f"expected one JSON object in UTF-8, got: {cause}") from cause
    except RecursionError as cause:
        raise error("expected a JSON object, got one nested too deeply") from cause
    if not isinstance(value, dict):
        raise error(f"expected a JSON object, got {quoted(value)}")
    return value


def canonical(fields: Mapping[str, object]) -> bytes:
    """Return the JCS form (RFC 8785) of an object; MessageError if it has none."""
    try:
        return rfc8785.dumps(dict[str, Any](fields))
    except ValueError as cause:
        raise MessageError(f"expected fields that RFC 8785 can write, got: {cause}") from cause
    except RecursionError as cause:
        raise MessageError("expected flat fields, got ones nested too deeply") from cause


def quoted(value: object) -> str:
    """Describe a value for an error: its type and at most 60 characters of it, all printable."""
    if isinstance(value, dict | list | tuple | bytes):
        return f"{type(value).__name__} of {len(value)}"
    text = ascii(value)
    if len(text) > _QUOTED_CHARACTERS:
        text = f"{text[:_QUOTED_CHARACTERS]}... ({len(text)} characters)"
    return text if isinstance(value, str) else f"{type(value).__name__} {text}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key given twice would let two readers see two values."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(twice[:16])} twice")
    return fields


def _number(text: str) -> int | float:
    """Read an integer; a larger one as the double that a JavaScript reader makes of it."""
    value = _finite(text)
    return int(text) if abs(value) <= _LARGEST_INTEGER else value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond the range of a double")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text}, which is not JSON")
