"""Pictures from files: upright, 8-bit, three colours, whatever they were, or a named error."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kiosk.errors import PictureError
from kiosk.types import Pixels

MAX_BYTES = 64 * 1024 * 1024
# Above it a picture is decoded at half its size, so that a phone's largest does not fill a Pi.
_HALVE_FROM = 24_000_000
_MAX_SIDE = 20_000
_HINT = "a JPEG, PNG, WebP, BMP, TIFF or PNM picture is expected"


def load_picture(path: Path) -> Pixels:
    """A picture file as BGR uint8 (height, width, 3), turned as its EXIF orientation says.

    Grey becomes colour, 16 bits become 8, transparency is dropped. PictureError names the file.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PictureError(f"{path}: at most {MAX_BYTES} bytes expected, got {size}")
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: a picture expected, {error.strerror}", hint=_HINT) from error
    return decode_picture(data, str(path))


def decode_picture(data: bytes, name: str) -> Pixels:
    """The same from bytes; `name` stands in errors."""
    if not data:
        raise PictureError(f"{name}: a picture expected, it is empty", hint=_HINT)
    raw = np.frombuffer(data, np.uint8)
    try:
        pixels = cv2.imdecode(raw, _flags(data))
    except cv2.error as error:
        raise PictureError(f"{name}: a picture expected, {error.err}", hint=_HINT) from error
    if pixels is None:
        raise PictureError(f"{name}: a picture expected, it cannot be decoded", hint=_HINT)
    if max(pixels.shape[:2]) > _MAX_SIDE:
        raise PictureError(f"{name}: sides of at most {_MAX_SIDE} pixels expected")
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _flags(data: bytes) -> int:
    """IMREAD_COLOR turns by EXIF and gives three 8-bit channels; JPEG can halve while decoding."""
    size = _jpeg_size(data)
    if size is not None and size[0] * size[1] > _HALVE_FROM:
        return cv2.IMREAD_REDUCED_COLOR_2
    return cv2.IMREAD_COLOR


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a JPEG's frame header (ITU-T T.81, B.2.2); None for anything else."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 2 + length
    return None
