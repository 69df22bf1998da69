"""Enrolment from a picture, by the kiosk's own pipeline, loaded at the first picture."""

from __future__ import annotations

import logging
import threading

from kiosk.clock import Clock
from kiosk.config import Models
from kiosk.errors import PictureError
from kiosk.types import Embedding
from kiosk.vision.picture import decode_picture
from kiosk.vision.pipeline import FacePipeline, open_pipeline

log = logging.getLogger(__name__)

_NAME = "the picture"
_SIGNATURES = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n"}
MEDIA_TYPES = tuple(_SIGNATURES)


class PictureEnrolment:
    """One pipeline behind a lock: one picture at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pipeline: FacePipeline | None = None

    def embedding_of(self, picture: bytes, media_type: str) -> Embedding:
        """The embedding of the one usable face of a JPEG or PNG picture.

        PictureError with the reason otherwise; ModelError when the weights cannot be loaded.
        """
        # The decoder knows many more formats; each one less is one less to be attacked through.
        if not picture.startswith(_SIGNATURES[media_type]):
            raise PictureError(f"{_NAME}: expected {media_type}, got something else")
        with self._lock:
            pipeline = self._opened()
            return pipeline.face_to_enrol(decode_picture(picture, _NAME), _NAME).embedding

    def _opened(self) -> FacePipeline:
        if self._pipeline is None:
            self._pipeline = open_pipeline(Models(), clock=self._clock, record=_note)
        return self._pipeline


def _note(stage: str, milliseconds: float) -> None:
    log.debug("enrolment.stage", extra={"fields": {"stage": stage, "ms": milliseconds}})
