"""What says the same again is counted, not written again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kiosk.clock import NS_PER_S

_FIRST_S, _LONGEST_S = 60.0, 3600.0
_MOST_KEPT = 200


@dataclass(slots=True)
class _Seen:
    until_ns: int
    window_s: float
    count: int = 0


class Repeats:
    """The first is written at once; then one in each window, which doubles from 1 min to 1 h.

    Whatever stays away for a whole window begins anew. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def admits(self, text: str, now_ns: int) -> int | None:
        """How many were left out since the last one that was written; None: leave this one out."""
        seen = self._seen.get(text)
        if seen is not None and now_ns < seen.until_ns:
            seen.count += 1
            return None
        if seen is None or now_ns >= seen.until_ns + round(seen.window_s * NS_PER_S):
            window_s, count = _FIRST_S, seen.count if seen else 0
        else:
            window_s, count = min(2 * seen.window_s, _LONGEST_S), seen.count
        self._forget()
        self._seen[text] = _Seen(now_ns + round(window_s * NS_PER_S), window_s)
        return count

    def over(self, now_ns: int) -> Iterator[tuple[str, int]]:
        """What has stopped repeating with some of it left out: each text once, with how many."""
        for text, seen in self._seen.items():
            if seen.count and now_ns >= seen.until_ns + round(seen.window_s * NS_PER_S):
                count, seen.count = seen.count, 0
                yield text, count

    def _forget(self) -> None:
        """The one whose window ended first makes room."""
        if len(self._seen) >= _MOST_KEPT:
            del self._seen[min(self._seen, key=lambda text: self._seen[text].until_ns)]
