"""F2 tokens: an embedding as one unsigned byte for each value.

`value[i] = (byte[i] - zeroPoint) * scale`, with an integer zero point. A token is to be treated
like a photograph: neither an error nor a `repr` ever shows its data.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import EmbeddingError, TokenError
from kiosk.wire.jsontext import quoted

MIN_DIM = 64
MAX_DIM = 1024
MIN_RANGE = 1e-6
_NORM_TOLERANCE = 1e-3
_LEVELS = 255

_META_MAX_LENGTH = 128
_DIM = re.compile(r"[1-9][0-9]{0,3}")
_SCALE = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,40})?")
# Twelve digits keep `byte - zeroPoint` exact in a double; the domain needs nine.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,11})")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,11})\.[0-9]{1,40}")
_HEX = re.compile(r"[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class Token:
    """The three F2 fields of one embedding."""

    data: str = field(repr=False)
    meta: str
    dim: int

    def fields(self) -> dict[str, str | int]:
        """Return the fields as a message carries them."""
        return {"F2_DATA": self.data, "F2_META": self.meta, "F2_DIM": self.dim}


def encode(vector: NDArray[Any]) -> Token:
    """Quantise a unit vector, float32 or float64 of shape (64..1024,), to a token.

    The decoded values differ from `vector` by at most 0.5000001 scale. EmbeddingError for a
    vector outside the domain: other shapes and dtypes, values not finite, a norm off 1 by more
    than 1e-3, a range below 1e-6.
    """
    values = _checked(vector)
    low, high = float(values.min()), float(values.max())
    # The digits travel, so the float that they parse back to is the one to quantise with.
    digits = _plain_decimal((high - low) / _LEVELS)
    scale = float(digits)
    # Rounding everything against the same integer, not against the real minimum, leaves no bias.
    zero_point = -round(low / scale)
    steps = np.rint(values / scale) + zero_point
    # The range is 255 steps wide, so the clamp bites only a value half-way between two bytes
    # (rounded up to 256): either byte is then half a step away.
    data = np.clip(steps, 0, _LEVELS).astype(np.uint8)
    return Token(
        data=base64.b64encode(data.tobytes()).decode("ascii"),
        meta=f"{values.size}|8|{digits}|{zero_point}",
        dim=int(values.size),
    )


def decode(fields: Mapping[str, object]) -> NDArray[np.float64]:
    """Decode the F2 fields of a message to float64 values of shape (dim,), not normalised.

    Float64, because at the narrow end of the domain a step is finer than float32 can hold.
    Besides the standard form two dialects are read: hexadecimal F2_DATA, and a zero point with a
    decimal fraction (`value = byte * scale + zeroPoint`). TokenError names the field, what was
    expected and what came.
    """
    dim = _dim_field(fields)
    meta = _text_field(fields, "F2_META", "the text dim|bits|scale|zeroPoint")
    scale, zero_point, is_integer = _read_meta(meta, dim)
    data = _data_bytes(_text_field(fields, "F2_DATA", f"base64 of {dim} bytes"), dim)
    levels = np.frombuffer(data, dtype=np.uint8).astype(np.float64)
    values = (levels - zero_point) * scale if is_integer else levels * scale + zero_point
    if float(np.ptp(values)) == 0.0:
        raise TokenError(
            "F2_DATA, F2_META: expected values that differ, got one value throughout",
            hint="a constant vector is no embedding",
        )
    return values


def _checked(vector: NDArray[Any]) -> NDArray[np.float64]:
    """Copy a vector of the domain to float64; EmbeddingError outside the domain."""
    if vector.ndim != 1 or not MIN_DIM <= vector.size <= MAX_DIM:
        raise EmbeddingError(
            f"a token holds a vector of {MIN_DIM}..{MAX_DIM} values, got shape {vector.shape}"
        )
    if vector.dtype not in (np.float32, np.float64):
        raise EmbeddingError(f"a token holds float32 or float64 values, got {vector.dtype}")
    if not np.isfinite(vector).all():
        raise EmbeddingError("a token holds finite values, got some that are not")
    # In the vector's own precision, as Embedding does: what is an embedding there is one here.
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(vector))
    if not abs(norm - 1.0) <= _NORM_TOLERANCE:
        raise EmbeddingError(
            f"a token holds a vector of length 1, got {norm:.4g}", hint="normalise it first"
        )
    values = vector.astype(np.float64)
    spread = float(np.ptp(values))
    if spread < MIN_RANGE:
        raise EmbeddingError(
            f"a token holds values that differ by {MIN_RANGE:g} or more, got {spread:.3g}",
            hint="a constant vector is no embedding",
        )
    return values


def _plain_decimal(value: float) -> str:
    """Write a positive float with 17 significant digits (enough for any double), no exponent."""
    return format(Decimal(f"{value:.16e}"), "f")


def _dim_field(fields: Mapping[str, object]) -> int:
    expected = f"an integer {MIN_DIM}..{MAX_DIM}"
    if "F2_DIM" not in fields:
        raise TokenError(f"F2_DIM: expected {expected}, got no such field")
    dim = fields["F2_DIM"]
    # bool is an int to Python and never a dimension.
    if not isinstance(dim, int) or isinstance(dim, bool) or not MIN_DIM <= dim <= MAX_DIM:
        raise TokenError(f"F2_DIM: expected {expected}, got {quoted(dim)}")
    return dim


def _text_field(fields: Mapping[str, object], name: str, expected: str) -> str:
    if name not in fields:
        raise TokenError(f"{name}: expected {expected}, got no such field")
    text = fields[name]
    if not isinstance(text, str):
        raise TokenError(f"{name}: expected {expected}, got a {type(text).__name__}")
    return text


def _read_meta(meta: str, dim: int) -> tuple[float, float, bool]:
    """Return scale, zero point, and whether the zero point is an integer."""
    parts = meta.split("|")
    if len(parts) != 4 or len(meta) > _META_MAX_LENGTH:
        raise TokenError(f"F2_META: expected dim|bits|scale|zeroPoint, got {quoted(meta)}")
    dim_text, bits, scale_text, zero_text = parts
    if not _DIM.fullmatch(dim_text) or int(dim_text) != dim:
        raise TokenError(f"F2_META: expected dim {dim} as in F2_DIM, got {quoted(dim_text)}")
    if bits != "8":
        raise TokenError(f"F2_META: expected 8 bits, got {quoted(bits)}")
    if not _SCALE.fullmatch(scale_text) or not float(scale_text) > 0.0:
        raise TokenError(
            "F2_META: expected a scale above 0 as a plain decimal without exponent,"
            f" got {quoted(scale_text)}"
        )
    if _INTEGER.fullmatch(zero_text):
        return float(scale_text), float(zero_text), True
    # "128.0" could mean either formula, so it means neither.
    if _FRACTION.fullmatch(zero_text) and Decimal(zero_text) % 1 != 0:
        return float(scale_text), float(zero_text), False
    raise TokenError(
        "F2_META: expected a zeroPoint that is an integer, or the dialect's decimal with"
        f" a fraction other than 0, got {quoted(zero_text)}"
    )


def _data_bytes(text: str, dim: int) -> bytes:
    """Decode F2_DATA, base64 or the hexadecimal dialect; errors tell its length, never itself."""
    base64_length = 4 * math.ceil(dim / 3)
    # The two lengths differ for every dim but 2 and 4, so that no text can be read both ways.
    if len(text) == 2 * dim and len(text) != base64_length and _HEX.fullmatch(text):
        return bytes.fromhex(text)
    expected = f"F2_DATA: expected padded base64 of {dim} bytes ({base64_length} characters)"
    if len(text) != base64_length:
        raise TokenError(f"{expected}, got {len(text)} characters")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise TokenError(f"{expected}, got text that is not base64") from cause
    # Writing it again shows what b64decode lets pass: misplaced padding and stray bits.
    if len(data) != dim or base64.b64encode(data).decode("ascii") != text:
        raise TokenError(f"{expected}, got base64 that is not in standard form for {dim} bytes")
    return data
