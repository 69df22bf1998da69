"""INT8 with FP32 behind it: what INT8 cannot embed, FP32 embeds, and from then on stays."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import EmbeddingError, ModelError
from kiosk.types import Embedding, Pixels
from kiosk.vision.canary import LIMITS, GoldenFace
from kiosk.vision.embed import Embedder
from kiosk.vision.manifest import precision_of

log = logging.getLogger(__name__)

# journald's catalogue and alerts know the happening by it (systemd.journal-fields(7)).
FALLBACK_MESSAGE_ID = "673e3483c2cc44e087927d4785b22f1e"


@dataclass(frozen=True, slots=True)
class Fallback:
    """The switch from one file to another: which, why, and when (milliseconds UTC)."""

    source: str
    target: str
    reason: str
    at_ms: int

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        values = asdict(self)
        return {"from": values.pop("source"), "to": values.pop("target"), **values}


class GuardedEmbedder:
    """An INT8 embedder and an FP32 one of the same space, both loaded. For one thread.

    FP32 is loaded from the start: at the moment of failure the disk may be what failed.
    """

    def __init__(
        self,
        main: Embedder,
        spare: Embedder,
        *,
        faces: tuple[GoldenFace, ...],
        clock: Clock,
        period_s: float,
    ) -> None:
        self._main, self._spare, self._faces, self._clock = main, spare, faces, clock
        self._period_ns = int(period_s * NS_PER_S)
        # Due at once: no face is embedded before the file proved itself in this process.
        self._due_ns = clock.boottime_ns()
        self._turn = 0
        self.space = main.space
        self.dim = main.dim
        # One gallery serves both, so neither may match below its own threshold.
        self.threshold = max(main.threshold, spare.threshold)
        self.fallback: Fallback | None = None

    @property
    def id(self) -> str:
        """The file actually in use."""
        return self._main.id if self.fallback is None else self.fallback.target

    def embed(self, aligned: Pixels) -> Embedding:
        """The embedding of one aligned crop, by FP32 if INT8 fails on it or at its canary.

        Raises what FP32 raises: a crop that neither can embed is no reason to switch.
        """
        if self.fallback is not None:
            return self._spare.embed(aligned)
        try:
            self._sing_if_due()
            return self._main.embed(aligned)
        except (ModelError, EmbeddingError) as error:
            embedding = self._spare.embed(aligned)
            self._switch(str(error))
            return embedding

    def _sing_if_due(self) -> None:
        """One golden face a period, each in turn; ModelError when it is not what it was."""
        now = self._clock.boottime_ns()
        if not self._faces or now < self._due_ns:
            return
        self._due_ns = now + self._period_ns
        face = self._faces[self._turn % len(self._faces)]
        self._turn += 1
        cosine = face.embedding.similarity(self._main.embed(face.crop))
        least = LIMITS[precision_of(self._main.id)].least
        if not cosine >= least:
            raise ModelError(
                f"model {self._main.id}: cosine of at least {least} to golden face {face.name}"
                f" expected, got {cosine:.4f}"
            )

    def _switch(self, reason: str) -> None:
        now_ms = self._clock.now().utc_ms
        self.fallback = Fallback(self._main.id, self._spare.id, reason, now_ms)
        log.error(
            "model.fallback",
            extra={"fields": self.fallback.document(), "message_id": FALLBACK_MESSAGE_ID},
        )
