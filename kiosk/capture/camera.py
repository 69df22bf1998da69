"""What a camera is, and which one the configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kiosk import config
from kiosk.clock import Clock
from kiosk.errors import CameraError
from kiosk.types import Frame, Pixels

Wanted = Callable[[Pixels], bool]
"""Given a small grey picture of a frame, uint8 (height, width): whether the frame is wanted."""


def everything(_: Pixels) -> bool:
    """Every frame is wanted."""
    return True


class EndOfFrames(CameraError):  # noqa: N818 - an end, not a mistake
    """A replay is over; no camera of glass and wire raises it."""


class Camera(Protocol):
    """A source of frames.

    One thread opens and reads it. Any thread may close it, which ends a `read` that waits; after
    `close` it may be opened again. No call waits without a deadline: `read` has the caller's,
    `open` and `close` have one of the camera's own.
    """

    name: str

    def open(self) -> None:
        """Make ready; CameraError naming what was expected, what came and what to do."""
        ...

    def read(self, timeout_s: float, wanted: Wanted = everything) -> Frame | None:
        """The next frame, never the same one twice; None when it came and is not wanted.

        `wanted` is asked once with the frame's small grey picture, which costs a fraction of the
        frame. Raises CameraError when none comes within `timeout_s`, when the camera fails or is
        closed, and EndOfFrames when a replay is over.
        """
        ...

    def close(self) -> bool:
        """Let go; harmless when it is not open.

        False where a call into the driver hangs and was left behind, which is named in the
        journal: it may hold the device for as long as this process lives.
        """
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
