"""What the running daemon remembers of itself, for `kiosk status`: visits and latencies."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kiosk.histogram import Histogram

_VISITS_KEPT = 100
_TIMINGS_KEPT = 2000


@dataclass(frozen=True, slots=True)
class Visit:
    """One decided visit. `answer` is the server's word, empty while it has not answered."""

    at_ms: int
    outcome: str
    person: str | None
    score: float | None
    nearest: float | None
    event_id: str
    answer: str = ""


class Logbook:
    """Counters, the newest visits, and the newest latencies of each stage. Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visits: deque[Visit] = deque(maxlen=_VISITS_KEPT)
        self._timings: dict[str, deque[float]] = {}
        self._histograms: dict[str, Histogram] = {}
        self._counts: Counter[str] = Counter()

    def time(self, stage: str, milliseconds: float) -> None:
        """Note how long one stage took."""
        with self._lock:
            self._timings.setdefault(stage, deque(maxlen=_TIMINGS_KEPT)).append(milliseconds)
            self._histograms.setdefault(stage, Histogram()).add(milliseconds)

    def count(self, what: str) -> None:
        """Add one to a counter."""
        with self._lock:
            self._counts[what] += 1

    def visit(self, visit: Visit) -> None:
        """Note a decided visit."""
        with self._lock:
            self._visits.append(visit)
            self._counts[visit.outcome] += 1

    def answered(self, event_id: str, answer: str) -> None:
        """Note the server's word on an event, if its visit is still remembered."""
        with self._lock:
            for index, visit in enumerate(self._visits):
                if visit.event_id == event_id:
                    self._visits[index] = replace(visit, answer=answer)

    def summary(self) -> dict[str, Any]:
        """Visits oldest first, counters, each stage's latencies: p50, p95, number; histograms."""
        with self._lock:
            timings = {stage: list(values) for stage, values in self._timings.items()}
            histograms = {stage: one.document() for stage, one in self._histograms.items()}
            return {
                "histograms": histograms,
                "visits": [asdict(visit) for visit in self._visits],
                "counts": dict(self._counts),
                "latency_ms": {stage: _percentiles(values) for stage, values in timings.items()},
            }


def _percentiles(values: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "n": len(values)}
