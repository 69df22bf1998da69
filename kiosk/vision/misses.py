"""Faces of live frames that a model gave no embedding for: counted, and told now and then."""

from __future__ import annotations

import logging
from typing import Any

from kiosk.clock import NS_PER_S, Clock

log = logging.getLogger(__name__)

# A face stands before the camera for many frames: a line for each would bury the journal.
_TELL_EVERY_NS = 60 * NS_PER_S
# Some two seconds of frames: an odd crop is gone by then, a model that gives nothing is not.
_FRAMES_TO_BE_BLIND = 30


class Misses:
    """What one model missed. `missed`, `embedded` and `frame_ends` on one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._total = 0
        self._told = 0
        self._told_ns: int | None = None
        self._reason = ""
        self._in_a_row = 0
        self._tried_here = self._gave_here = False
        self._is_blind = False

    def missed(self, model_id: str, error: Exception) -> None:
        """Note a face without an embedding; told at once, then at most every minute."""
        self._total += 1
        self._tried_here = True
        self._reason = str(error) or type(error).__name__
        now = self._clock.boottime_ns()
        if self._told_ns is not None and now - self._told_ns < _TELL_EVERY_NS:
            return
        fields = {"model": model_id, "faces": self._total - self._told, "reason": self._reason}
        log.warning("vision.face_dropped", extra={"fields": fields})
        self._told, self._told_ns = self._total, now

    def embedded(self) -> None:
        """Note a face that has its embedding."""
        self._tried_here = self._gave_here = True

    def frame_ends(self, model_id: str) -> None:
        """Close a frame; many in a row with faces and not one embedding are told as critical."""
        if self._gave_here:
            if self._is_blind:
                log.warning("model.sees_again", extra={"fields": {"model": model_id}})
            self._in_a_row, self._is_blind = 0, False
        elif self._tried_here:
            self._in_a_row += 1
            if self._in_a_row >= _FRAMES_TO_BE_BLIND and not self._is_blind:
                self._is_blind = True
                fields = {
                    "model": model_id,
                    "frames": self._in_a_row,
                    "reason": self._reason,
                    "meaning": "no face gets an embedding: nobody is recorded by it",
                }
                log.critical("model.blind", extra={"fields": fields})
        self._tried_here = self._gave_here = False

    def document(self) -> dict[str, Any] | None:
        """The JSON form: faces missed since the start, and whether none passes; None for none."""
        if not self._total:
            return None
        return {"faces": self._total, "blind": self._is_blind, "reason": self._reason}
