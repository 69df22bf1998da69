"""Who is it? Cosine against the gallery of the same space, above that space's threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import EmbeddingError, KioskError
from kiosk.server.store import Store
from kiosk.types import Embedding
from kiosk.vision.manifest import load_manifest


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest employee, and whether near enough; None when nobody is enrolled."""

    nearest: str | None
    similarity: float | None
    matched: str | None


class Matcher:
    """Matches decoded tokens; thresholds come from the model manifest, or from one for all."""

    def __init__(self, store: Store, threshold: float | None) -> None:
        self._store = store
        self._threshold = threshold
        embedders = (e for e in load_manifest().entries if e.kind == "embedder")
        self._by_space = {entry.space: entry.threshold for entry in embedders}

    def threshold(self, space: str) -> float:
        """The threshold of a space; KioskError when none is known."""
        known = self._threshold if self._threshold is not None else self._by_space.get(space)
        if known is None:
            raise KioskError(
                f"F2_MODEL: a space with a known threshold expected, got {space!r}",
                hint="start the server with --threshold",
            )
        return known

    def match(self, vector: NDArray[np.float64], space: str) -> Found:
        """The nearest employee of the space; EmbeddingError for a vector of no length."""
        probe = Embedding.of(vector, space)
        owners, matrix = self._store.faces(space)
        if matrix is None:
            return Found(None, None, None)
        if matrix.shape[1] != probe.vector.size:
            raise EmbeddingError(
                f"F2_DIM: {matrix.shape[1]} values expected in space {space},"
                f" got {probe.vector.size}"
            )
        similarities = matrix @ probe.vector
        best = int(np.argmax(similarities))
        similarity = float(similarities[best])
        matched = owners[best] if similarity >= self.threshold(space) else None
        return Found(owners[best], similarity, matched)
