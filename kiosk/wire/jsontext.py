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
# Far beyond any message or receipt: what comes before its sender is known must cost little.
MAX_VALUES = 4096
MAX_DEPTH = 16
_PLAIN = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)


def read_object(body: bytes, error: type[WireError]) -> dict[str, Any]:
    """Decode one JSON object from UTF-8; `error`, saying what came, for anything else.

    At most MAX_VALUES values in all, at most MAX_DEPTH levels deep. The time taken grows with the
    length of `body` and no faster, whatever it holds.
    """
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
    _check_extent(value, error)
    return value


def canonical(fields: Mapping[str, object]) -> bytes:
    """Return the JCS form (RFC 8785) of an object; MessageError if it has none."""
    try:
        if _is_plain(fields):
            return _PLAIN.encode(fields).encode("utf-8")
        return rfc8785.dumps(dict[str, Any](fields))
    except ValueError as cause:
        raise MessageError(f"expected fields that RFC 8785 can write, got: {cause}") from cause
    except RecursionError as cause:
        raise MessageError("expected flat fields, got ones nested too deeply") from cause


def _is_plain(fields: Mapping[str, object]) -> bool:
    """Whether the standard library writes the very same bytes, many times faster.

    For ASCII keys the order of code points is that of UTF-16, strings are escaped alike, and
    integers that a double holds are written alike.
    """
    return all(
        name.isascii()
        and (
            isinstance(value, str)
            or (type(value) is int and -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER)
        )
        for name, value in fields.items()
    )


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
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the key {quoted(name[:16])} twice")
        fields[name] = value
    return fields


def _check_extent(whole: dict[str, Any], error: type[WireError]) -> None:
    """Refuse more values or levels than any message has, level by level."""
    count, level = 0, [whole]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for holder in level:
            values = holder.values() if isinstance(holder, dict) else holder
            count += len(values)
            if count > MAX_VALUES:
                raise error(f"expected a JSON object of at most {MAX_VALUES} values, got more")
            below += [value for value in values if isinstance(value, dict | list)]
        if not below:
            return
        level = below
    raise error(f"expected a JSON object of at most {MAX_DEPTH} levels, got one nested too deeply")


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
