"""A slot for one frame: the newest wins, because a decision about the past helps nobody."""

from __future__ import annotations

import threading

from kiosk.errors import CameraError
from kiosk.types import Frame


class FrameSlot:
    """Between the capturing and the seeing thread. `dropped` counts frames nobody took."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False
        self._taking = False
        self.dropped = 0

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits and the last one taken is done with."""
        with self._ready:
            return self._frame is None and not self._taking

    def put(self, frame: Frame) -> None:
        """Lay a frame in, in place of one that nobody took."""
        with self._ready:
            if self._frame is not None:
                self.dropped += 1
            self._frame = frame
            self._ready.notify()

    def take(self, timeout_s: float) -> Frame:
        """The newest frame; CameraError when none comes in time or the slot is closed."""
        with self._ready:
            self._taking = False
            self._ready.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            frame, self._frame = self._frame, None
            if frame is None:
                raise CameraError(f"a frame within {timeout_s:g} s expected, none came")
            self._taking = True
            return frame

    def close(self) -> None:
        """Wake whoever waits."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
