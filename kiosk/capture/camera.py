"""What a camera is, and which one the configuration asks for."""

from __future__ import annotations

from typing import Protocol

from kiosk import config
from kiosk.clock import Clock
from kiosk.errors import CameraError
from kiosk.types import Frame


class EndOfFrames(CameraError):  # noqa: N818 - an end, not a mistake
    """A replay is over; no camera of glass and wire raises it."""


class Camera(Protocol):
    """A source of frames. One thread opens, reads and closes it; `open` may follow `close`."""

    name: str

    def open(self) -> None:
        """Make ready; CameraError naming what is missing."""
        ...

    def read(self, timeout_s: float) -> Frame:
        """The next frame; CameraError when none comes in time."""
        ...

    def close(self) -> None:
        """Let go; harmless when it is not open."""
        ...


def open_camera(settings: config.Camera, clock: Clock) -> Camera:
    """The camera of the configuration, not opened yet; its library is imported only here."""
    match settings.source:
        case "replay":
            from kiosk.capture.replay import ReplayCamera

            return ReplayCamera(settings, clock)
        case "v4l2":
            from kiosk.capture.v4l2 import V4L2Camera

            return V4L2Camera(settings, clock)
        case "picamera2":
            from kiosk.capture.picamera import PiCamera

            return PiCamera(settings, clock)
