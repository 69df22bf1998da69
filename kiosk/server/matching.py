"""Who is it? Cosine against the gallery of the same space, above that space's threshold."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import EmbeddingError, UserError
from kiosk.server.store import Store
from kiosk.types import Embedding, FloatArray
from kiosk.vision.manifest import ModelEntry


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of one match.

    `matched`: the nearest employee if near enough. `similarity`: the nearest one's cosine, None
    when nobody was there to compare with. `claim_checked`: whether the one asked about was there.
    """

    matched: str | None
    similarity: float | None
    claim_checked: bool


NOBODY = Found(None, None, claim_checked=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Gallery:
    """The faces of one space, as they were at `version`."""

    version: int
    owners: tuple[str, ...]
    matrix: FloatArray


class Matcher:
    """Matches embeddings with the enrolled faces, held in memory as one matrix for each space."""

    def __init__(
        self, store: Store, entries: Iterable[ModelEntry], threshold: float | None
    ) -> None:
        """`threshold`, if given, holds for every space; else each has its manifest entry's.

        UserError when somebody is enrolled in a space that then has none.
        """
        self._store = store
        self._lock = threading.Lock()
        self._galleries: dict[str, _Gallery] = {}
        self._threshold = threshold
        embedders = [entry for entry in entries if entry.kind == "embedder"]
        self._dims = {entry.space: entry.dim for entry in embedders}
        # Files of one space may differ, and the wire does not tell which: the strictest counts.
        self._thresholds = {
            entry.space: entry.threshold
            for entry in sorted(embedders, key=lambda entry: entry.threshold)
        }
        for space in {row["space"] for row in store.employees()}:
            self.threshold(space)

    def threshold(self, space: str) -> float:
        """The least cosine of a match in a space; UserError when none is known."""
        if self._threshold is not None:
            return self._threshold
        if space not in self._thresholds:
            raise UserError(
                f"F2_MODEL: expected a space with a known threshold, got {space!r}",
                hint="start the server with --threshold",
            )
        return self._thresholds[space]

    def embedding(self, vector: NDArray[Any], space: str) -> Embedding:
        """Normalise a decoded token; EmbeddingError if it cannot be one of the space."""
        dim = self._dim(space)
        if dim is not None and vector.size != dim:
            raise EmbeddingError(f"F2_DIM: expected {dim} in space {space}, got {vector.size}")
        # In doubles first: a token may hold what float32 would round to nothing.
        peak = float(np.abs(vector).max())
        return Embedding.of(vector / peak if peak > 0.0 else vector, space)

    def match(self, probe: Embedding, claimed: str | None) -> Found:
        """The nearest employee of the probe's space, if near enough."""
        gallery = self._gallery(probe.space)
        if not gallery.owners:
            return NOBODY
        similarities = gallery.matrix @ probe.vector
        best = int(np.argmax(similarities))
        similarity = float(similarities[best])
        matched = gallery.owners[best] if similarity >= self.threshold(probe.space) else None
        return Found(matched, similarity, claim_checked=claimed in gallery.owners)

    def _dim(self, space: str) -> int | None:
        if space in self._dims:
            return self._dims[space]
        gallery = self._gallery(space)
        return int(gallery.matrix.shape[1]) if gallery.owners else None

    def _gallery(self, space: str) -> _Gallery:
        """The space's faces, read again only when somebody changed them."""
        with self._lock:
            # The version first: a change in between is then seen at the next call.
            version = self._store.gallery_version()
            held = self._galleries.get(space)
            if held is None or held.version != version:
                held = _Gallery(version, *self._store.faces(space))
                self._galleries.pop(space, None)
                # Anybody may name a space: only those with faces are worth remembering.
                if held.owners:
                    self._galleries[space] = held
            return held
