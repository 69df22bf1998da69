"""Pictures from files: upright, 8-bit, three colours, whatever they were, or a named error."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from kiosk.errors import PictureError
from kiosk.types import Pixels
from kiosk.vision.decoder_words import listening
from kiosk.vision.picture_header import jpeg_end, picture_size

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000
# OpenCV warps no picture of 32768 pixels and more on a side.
_MAX_SIDE = 20_000
# Above it a picture is taken at half its size, so that a phone's largest does not fill a Pi. A
# JPEG is halved while it is decoded; the other formats need three bytes for each pixel meanwhile.
_HALVE_FROM = 24_000_000
# The decoder fills what is missing with grey and says so nowhere else (jerror.h of libjpeg). Bytes
# too many before a marker are harmless.
_TORN = re.compile(r"Premature end|Corrupt JPEG data: (?!\d+ extraneous bytes before marker 0xd9)")
_HINT = "give a JPEG, PNG, WebP, BMP or PNM (PGM, PPM) picture"


def load_picture(path: Path) -> Pixels:
    """A picture file as BGR uint8 (height, width, 3), turned as its EXIF orientation says.

    Grey becomes colour; of 16 bits the upper 8 are kept; transparency is dropped, whatever colour
    lies below it shows. More than 24 million pixels come at half their width and height.
    Raises PictureError, which names the file, for a file of more than 64 MiB or 64 million pixels
    and for one that is missing, no picture, or torn.
    """
    try:
        # A pipe or a device could go on for ever.
        if path.exists() and not path.is_file():
            raise PictureError(f"{path}: a picture file expected, it is no regular file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PictureError(
                f"{path}: at most {MAX_BYTES} bytes expected, got {size}", hint="scale it down"
            )
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: a picture expected, {error.strerror}", hint=_HINT) from error
    return decode_picture(data, str(path))


def decode_picture(data: bytes, name: str) -> Pixels:
    """The same from bytes; `name` stands in errors."""
    size = picture_size(data)
    if size is None:
        what = "it is of another kind" if data else "it is empty"
        raise PictureError(f"{name}: a picture expected, {what}", hint=_HINT)
    width, height = size
    if not 0 < width * height <= MAX_PIXELS or max(size) > _MAX_SIDE:
        raise PictureError(
            f"{name}: 1 to {MAX_PIXELS // 1_000_000} million pixels and sides of at most"
            f" {_MAX_SIDE} expected, got {width}x{height}",
            hint="scale it down",
        )
    # Both turn by EXIF and give three 8-bit channels.
    halve = width * height > _HALVE_FROM
    flags = cv2.IMREAD_REDUCED_COLOR_2 if halve else cv2.IMREAD_COLOR
    whole = _whole(data)
    try:
        with listening() as words:
            pixels = cv2.imdecode(np.frombuffer(whole, np.uint8), flags) if whole else None
    except cv2.error as error:
        raise PictureError(f"{name}: a picture expected, {error.err}", hint=_HINT) from error
    if pixels is None or _TORN.search(words.text):
        raise PictureError(
            f"{name}: a whole {width}x{height} picture expected, it cannot be decoded",
            hint="the file is damaged or cut short: copy it again",
        )
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _whole(data: bytes) -> bytes:
    """A JPEG up to its end marker, without what cameras put behind it; no byte if it has none."""
    if data[:2] != b"\xff\xd8":
        return data
    return data[: jpeg_end(data)]
