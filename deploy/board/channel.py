"""What comes from the sender: lines and counted bytes, each within a time."""

from __future__ import annotations

import os
import select

_CHUNK = 1 << 16
_LONGEST = 1 << 20


class LinkGoneError(Exception):
    """The sender ended, or fell silent."""


class Channel:
    """Reads one descriptor, with a buffer of its own: select() sees no other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = bytearray()

    def line(self, within_s: float) -> bytes:
        """The next line without its end; LinkGoneError when none comes."""
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > _LONGEST:
                raise LinkGoneError(f"expected a line of at most {_LONGEST} bytes")
            self._held += self._read(_CHUNK, within_s)
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def part(self, most: int, within_s: float) -> bytes:
        """Some of the next bytes, at least one and at most so many; LinkGoneError without any."""
        if not self._held:
            return self._read(min(most, _CHUNK), within_s)
        part = bytes(self._held[:most])
        del self._held[:most]
        return part

    def _read(self, most: int, within_s: float) -> bytes:
        ready, _, _ = select.select([self._descriptor], [], [], within_s)
        data = os.read(self._descriptor, most) if ready else b""
        if not data:
            raise LinkGoneError("the sender has gone" if ready else "the sender is silent")
        return data
