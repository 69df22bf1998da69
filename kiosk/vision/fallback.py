"""INT8 that is watched, and FP32 behind it: what INT8 cannot embed, FP32 embeds, and stays."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import ModelError, PictureError
from kiosk.types import Embedding, Pixels
from kiosk.vision.canary import GoldenFace, check_face
from kiosk.vision.embed import Embedder

log = logging.getLogger(__name__)

# journald's catalogue and alerts know the happening by it (systemd.journal-fields(7)).


@dataclass(frozen=True, slots=True)
class Fallback:
    """The switch from one file to another: which, why, and when (milliseconds UTC).

    `spare` says what the golden faces say of the other file.
    """

    source: str
    target: str
    reason: str
    spare: str
    at_ms: int

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        values = asdict(self)
        return {"from": values.pop("source"), "to": values.pop("target"), **values}


class _CanaryError(ModelError):
    """A golden face is not what it was."""


class GuardedEmbedder:
    """An INT8 embedder and an FP32 one of the same space, both loaded. For one thread.

    FP32 is loaded from the start: at the moment of failure the disk may be what failed.
    Without it the golden faces can only say that INT8 is not to be trusted.
    """

    def __init__(
        self,
        main: Embedder,
        spare: Embedder | None,
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
        self.threshold = max(main.threshold, main.threshold if spare is None else spare.threshold)
        self.ailing = ""
        """What the golden faces last said against a file that nothing stands behind."""
        self.fallback: Fallback | None = None

    @property
    def id(self) -> str:
        """The file actually in use."""
        return self._main.id if self.fallback is None else self.fallback.target

    def embed(self, aligned: Pixels) -> Embedding:
        """The embedding of one aligned crop, by FP32 if INT8 fails on it or at its canary.

        Raises what FP32 raises: a crop that neither can embed is no reason to switch. Without
        FP32 it raises what INT8 raises, and a canary that fails is told and changes nothing.
        """
        spare = self._spare
        if spare is None:
            self._sing_alone()
            return self._main.embed(aligned)
        if self.fallback is not None:
            return spare.embed(aligned)
        try:
            self._sing_if_due()
            return self._main.embed(aligned)
        except PictureError:
            raise
        except _CanaryError as error:
            self._switch(spare, error)
            return spare.embed(aligned)
        # Whatever INT8 met, memory that ran out included, FP32 may not.
        except Exception as error:  # noqa: BLE001
            embedding = spare.embed(aligned)
            self._switch(spare, error)
            return embedding

    def _sing_if_due(self) -> None:
        """One golden face a period, each in turn; _CanaryError when it is not what it was."""
        now = self._clock.boottime_ns()
        if not self._faces or now < self._due_ns:
            return
        self._due_ns = now + self._period_ns
        face = self._faces[self._turn % len(self._faces)]
        self._turn += 1
        try:
            check_face(self._main, face)
        except Exception as error:
            raise _CanaryError(_said(error)) from error

    def _sing_alone(self) -> None:
        due = self._due_ns
        try:
            self._sing_if_due()
        except _CanaryError as error:
            self.ailing = str(error)
            fields = {
                "model": self._main.id,
                "reason": self.ailing,
                "meaning": "there is no FP32 to fall back on: it stays, and may take one person"
                " for another",
            }
            log.critical("model.canary_failed", extra={"fields": fields})
        else:
            if self._due_ns != due:
                self.ailing = ""

    def _switch(self, spare: Embedder, error: Exception) -> None:
        now_ms = self._clock.now().utc_ms
        verdict, is_sound = self._judge(spare)
        self.fallback = Fallback(self._main.id, spare.id, _said(error), verdict, now_ms)
        # Where FP32 fails as well, INT8 is not what is broken, and no file here is to be trusted.
        log.log(
            logging.ERROR if is_sound else logging.CRITICAL,
            "model.fallback",
            extra={"fields": self.fallback.document()},
        )

    def _judge(self, spare: Embedder) -> tuple[str, bool]:
        """What the golden faces say of FP32, and whether that is good."""
        if not self._faces:
            return "no golden faces to hold it against", True
        try:
            least = min(check_face(spare, face) for face in self._faces)
        except Exception as error:  # noqa: BLE001 - a verdict, not an end
            return (
                f"fails as well: the golden faces or the runtime are broken: {_said(error)}",
                False,
            )
        return f"agrees with its golden faces: cosine {least:.4f}", True


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
