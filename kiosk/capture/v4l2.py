"""A USB camera through V4L2. The driver may hang for ever, so a thread of its own reads it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import cv2
import numpy as np

from kiosk import config
from kiosk.clock import Clock
from kiosk.errors import CameraError
from kiosk.types import Frame

log = logging.getLogger(__name__)

_CLOSE_S = 1.0
_STABLE = Path("/dev/v4l/by-id")


class V4L2Camera:
    """Keeps the newest frame of a V4L2 device; every wait has a deadline."""

    def __init__(self, settings: config.Camera, clock: Clock) -> None:
        self.name = settings.device
        self._settings = settings
        self._clock = clock
        self._newest: Frame | None = None
        self._ready = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure = ""

    def open(self) -> None:
        """Open the device with MJPG first, then size and rate, and begin to read."""
        capture = cv2.VideoCapture(self._settings.device, cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self._settings.device}: a V4L2 camera expected, it cannot be opened",
                hint=f"set camera.device to one of: {_devices()}",
            )
        # The order matters: many drivers choose sizes and rates by pixel format.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._settings.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._settings.height)
        capture.set(cv2.CAP_PROP_FPS, self._settings.frames_per_s)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        granted = {
            "width": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "frames_per_s": float(capture.get(cv2.CAP_PROP_FPS)),
        }
        log.info("camera.opened", extra={"fields": {"device": self._settings.device, **granted}})
        self._stop, self._failure, self._newest = threading.Event(), "", None
        self._thread = threading.Thread(
            target=self._pump, args=(capture, self._stop), name="v4l2", daemon=True
        )
        self._thread.start()

    def read(self, timeout_s: float) -> Frame:
        """The newest frame that was not read before; CameraError when none comes in time."""
        with self._ready:
            self._ready.wait_for(lambda: self._newest is not None or self._failure, timeout_s)
            frame, self._newest = self._newest, None
        if frame is None:
            reason = self._failure or f"none came within {timeout_s:g} s"
            raise CameraError(f"{self.name}: a frame expected, {reason}", hint="check the cable")
        return frame

    def close(self) -> None:
        """End the reading thread; one that hangs in the driver is named and left behind."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join(_CLOSE_S)
        if thread.is_alive():
            log.error("camera.stuck", extra={"fields": {"device": self._settings.device}})

    def _pump(self, capture: cv2.VideoCapture, stop: threading.Event) -> None:
        """Read until asked to stop or the device fails; the thread owns the capture."""
        try:
            while not stop.is_set():
                good, pixels = capture.read()
                if not good or pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8:
                    self._put(None, "the device delivered none")
                    return
                self._put(Frame(np.asarray(pixels, np.uint8), self._clock.now(), self.name), "")
        finally:
            capture.release()

    def _put(self, frame: Frame | None, failure: str) -> None:
        with self._ready:
            self._newest, self._failure = frame, failure
            self._ready.notify()


def _devices() -> str:
    found = sorted(str(path) for path in _STABLE.glob("*")) if _STABLE.is_dir() else []
    return ", ".join(found) or f"nothing below {_STABLE}, is a camera plugged in?"
