"""Enrolment from a picture, by the kiosk's own pipeline, loaded at the first picture."""

from __future__ import annotations

import threading

from kiosk.clock import SystemClock
from kiosk.config import Models
from kiosk.errors import PictureError
from kiosk.types import Embedding
from kiosk.vision.picture import decode_picture
from kiosk.vision.pipeline import FacePipeline, open_pipeline

_LEAST_QUALITY = 0.3


class PictureEnrolment:
    """One pipeline behind a lock: it serves one picture at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipeline: FacePipeline | None = None

    def embedding_of(self, picture: bytes) -> Embedding:
        """The embedding of the one usable face; PictureError with the reason otherwise."""
        with self._lock:
            if self._pipeline is None:
                clock = SystemClock()
                self._pipeline = open_pipeline(Models(), clock=clock, record=lambda _s, _m: None)
            faces = self._pipeline.faces(decode_picture(picture, "the picture"))
        if len(faces) != 1:
            raise PictureError(f"the picture: exactly one face expected, found {len(faces)}")
        if faces[0].quality.overall < _LEAST_QUALITY:
            raise PictureError(
                f"the picture: quality of at least {_LEAST_QUALITY} expected,"
                f" got {faces[0].quality.overall:.2f}"
            )
        return faces[0].embedding
