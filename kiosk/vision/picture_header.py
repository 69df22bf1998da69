"""The size of a picture from its header, before anything is decoded.

A megabyte of PNG can unfold to gigabytes; asking the header first costs nothing.
"""

from __future__ import annotations

import re

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
# Of a JPEG's markers C0..CF these are no frame headers: DHT, JPG, DAC.
_NOT_A_FRAME = (0xC4, 0xC8, 0xCC)
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
# Markers without a length: TEM and the restarts.
_BARE = (0x01, *range(0xD0, 0xD8))


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, PNG, WebP, BMP or PNM; None for anything else.

    Before any turn by EXIF. Nothing is said about whether the rest of the bytes is in order.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return _big(data[16:20]), _big(data[20:24])
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:2] == b"BM" and len(data) >= 26:
        return _bmp(data)
    pnm = _PNM.match(data[:4096])
    return (int(pnm[1]), int(pnm[2])) if pnm else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """ITU-T T.81, B.1.1.4 and B.2.2: segments one after another up to the frame header."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            return _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7])
        else:
            at += 2 + _big(data[at + 2 : at + 4])
    return None


def jpeg_end(data: bytes) -> int:
    """Where a JPEG's own end marker ends; 0 when there is none after its scans.

    ITU-T T.81, B.1.1.2 and B.1.1.5: in a scan every 0xFF of the data is followed by 0, so what
    follows one there is a restart or the next marker. Segments say how long they are, so that a
    preview's end marker in one of them is not met.
    """
    at, scanned = 2, False
    while match := _MARKER.search(data, at):
        # Before the first scan markers follow each other; garbage there is the decoder's to judge.
        marker, at = data[match.end() - 1], match.end()
        if marker == 0xD9 and scanned:
            return at
        if marker not in (*_BARE, 0xD8, 0xD9):
            at += _big(data[at : at + 2])
        scanned = scanned or marker == 0xDA
    return 0


def _webp(data: bytes) -> tuple[int, int] | None:
    """RFC 9649: lossy has 14 bits each, lossless 14 bits less one, extended 24 bits less one."""
    kind = data[12:16]
    if len(data) < 30:
        return None
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    """BITMAPCOREHEADER with 16-bit sides, all later ones with signed 32-bit sides."""
    if _little(data[14:18]) == 12:
        return _little(data[18:20]), _little(data[20:22])
    width, height = (int.from_bytes(data[i : i + 4], "little", signed=True) for i in (18, 22))
    return abs(width), abs(height)


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
