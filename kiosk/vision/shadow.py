"""Shadow mode: now and then a live face is embedded by a second model too, only to compare."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import Any

from kiosk.types import Embedding, Pixels
from kiosk.vision.canary import Embeds

# Finest where a good INT8 file lies; below 0.90 it makes no difference how far.
EDGES = (0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998, 1.0)


class Shadow:
    """A histogram of cosines between two models, and nothing else of any face.

    `see` on one thread, `document` on any.
    """

    def __init__(self, other: Embeds, every: int) -> None:
        self._other, self._every = other, every
        self._lock = threading.Lock()
        self._waited = 0
        self._counts = [0] * len(EDGES)
        self._failed = 0
        self._least = 1.0
        self._sum = 0.0

    def see(self, aligned: Pixels, embedding: Embedding, model_id: str) -> None:
        """Compare every n-th face; nothing to compare once the other model is the one in use."""
        if model_id == self._other.id:
            return
        self._waited += 1
        if self._waited < self._every:
            return
        self._waited = 0
        try:
            cosine = self._other.embed(aligned).similarity(embedding)
        # Its failures are a result too, and must not touch the face that is being recorded.
        except Exception:  # noqa: BLE001
            with self._lock:
                self._failed += 1
            return
        with self._lock:
            # A cosine of 1 may come out a rounding above it.
            self._counts[min(bisect_right(EDGES, cosine), len(EDGES) - 1)] += 1
            self._least = min(self._least, cosine)
            self._sum += cosine

    def document(self) -> dict[str, Any]:
        """Counts below the first edge, then between each edge and the next."""
        with self._lock:
            count = sum(self._counts)
            return {
                "other": self._other.id,
                "every": self._every,
                "count": count,
                "failed": self._failed,
                "min": round(self._least, 6) if count else None,
                "mean": round(self._sum / count, 6) if count else None,
                "edges": list(EDGES),
                "counts": list(self._counts),
            }
