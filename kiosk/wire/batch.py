"""Several messages, or several receipts, as one JSON array; each keeps its very bytes.

An array is taken apart before its elements are read: each is then read, strictly, by the same
code as one that came alone, and one that is malformed does not take the others with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from kiosk.errors import WireError

MAX_MESSAGES = 100

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def join(bodies: Sequence[bytes]) -> bytes:
    """Write JSON texts as one array."""
    return b"[" + b",".join(bodies) + b"]"


def split(body: bytes, error: type[WireError]) -> list[bytes]:
    """Return the elements of a JSON array as they stand in it; `error` if it is none.

    An element is JSON as Python reads it: what else I-JSON forbids is for its reader to refuse.
    The caller bounds the size of `body`.
    """
    try:
        return [element.encode("utf-8") for element in _elements(body.decode("utf-8"))]
    except ValueError as cause:
        raise error(f"expected one JSON array in UTF-8, got: {cause}") from cause
    except RecursionError as cause:
        raise error("expected a JSON array, got one nested too deeply") from cause


def _elements(text: str) -> Iterator[str]:
    at = _past_space(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError("something else")
    at = _past_space(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        _, end = _DECODER.raw_decode(text, at)
        yield text[at:end]
        at = _past_space(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _past_space(text, at + 1)
    if text[at : at + 1] != "]" or _past_space(text, at + 1) != len(text):
        raise ValueError(f"none that ends with its last bracket (character {at})")


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
