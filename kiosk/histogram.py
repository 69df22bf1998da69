"""Counts of durations in fixed bounds, as Prometheus wants them."""

from __future__ import annotations

from bisect import bisect_left

# Milliseconds: a detection on a Pi 4 lies in the middle of them.
BOUNDS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)


class Histogram:
    """Cumulative only when asked. Not safe across threads by itself."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self._sum_ms = 0.0

    def add(self, milliseconds: float) -> None:
        """Count one; a value on a bound belongs below it (`le`)."""
        self._counts[bisect_left(BOUNDS_MS, milliseconds)] += 1
        self._sum_ms += milliseconds

    def document(self) -> dict[str, object]:
        """Counts of each bound, not cumulative, the last above all bounds; and the sum."""
        return {
            "bounds_ms": list(BOUNDS_MS),
            "counts": list(self._counts),
            "sum_ms": round(self._sum_ms, 3),
        }
