"""A slot for one frame: the newest wins, because a decision about the past helps nobody."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from kiosk.errors import CameraError

T = TypeVar("T")


class FrameSlot(Generic[T]):
    """Between a thread that lays frames in and one that takes them.

    `dropped` counts frames that nobody took.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: T | None = None
        self._closed = False
        self._taken = False
        self.dropped = 0

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits and the taker has come back from the last one."""
        with self._changed:
            return self._frame is None and not self._taken

    def put(self, frame: T) -> None:
        """Lay a frame in, in place of one that nobody took. A closed slot drops it."""
        with self._changed:
            if self._frame is not None or self._closed:
                self.dropped += 1
            if not self._closed:
                self._frame = frame
                self._changed.notify_all()

    def take(self, timeout_s: float) -> T:
        """The newest frame.

        Raises CameraError when none comes within `timeout_s`, and at once when the slot is closed
        and the last frame is taken.
        """
        with self._changed:
            self._taken = False
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            frame, self._frame = self._frame, None
            if frame is None:
                reason = "the slot is closed" if self._closed else "none came"
                raise CameraError(f"a frame within {timeout_s:g} s expected, {reason}")
            self._taken = True
            return frame

    def close(self) -> None:
        """Take no more frames and wake whoever waits; the last frame may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
