"""A USB camera through V4L2. The driver may hang for ever, so a thread of its own reads it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import cv2
import numpy as np

from kiosk import config
from kiosk.capture.bounded import within
from kiosk.capture.slot import FrameSlot
from kiosk.clock import Clock
from kiosk.errors import CameraError
from kiosk.types import Frame

log = logging.getLogger(__name__)

_OPEN_S = 10.0
_CLOSE_S = 1.0
_STABLE = Path("/dev/v4l/by-id")


class V4L2Camera:
    """Keeps the newest frame of a V4L2 device, so that what is read is never an old one.

    `camera.device` is a path, best a stable one below /dev/v4l/by-id, or the number N of
    /dev/videoN. The device may grant another size than the one asked for: frames have that.
    """

    def __init__(self, settings: config.Camera, clock: Clock) -> None:
        self.name = device_path(settings.device)
        self._settings = settings
        self._clock = clock
        self._reader: _Reader | None = None

    def open(self) -> None:
        """Open the device with MJPG first, then size and rate, and begin to read it."""
        self.close()
        check_device(self.name)
        capture = within(
            _OPEN_S, f"open {self.name}", self._opened, discard=lambda late: late.release()
        )
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self.name}: a V4L2 camera expected, it is none or another program has it",
                hint=_alternatives(),
            )
        self._reader = _Reader(capture, self.name, self._clock)

    def read(self, timeout_s: float) -> Frame:
        """The newest frame that was not read before; CameraError when none comes in time."""
        reader = self._reader
        if reader is None:
            raise CameraError(f"{self.name}: an open camera expected, it is closed")
        try:
            return reader.slot.take(timeout_s)
        except CameraError as error:
            reason = reader.failure or f"none came within {timeout_s:g} s"
            raise CameraError(
                f"{self.name}: a frame expected, {reason}",
                hint="check cable and USB port, and that no other program uses the camera",
            ) from error

    def close(self) -> None:
        """End the reading thread; one that hangs in the driver is named and left behind."""
        reader, self._reader = self._reader, None
        if reader is not None and not reader.end(_CLOSE_S):
            log.error(
                "camera.stuck",
                extra={"fields": {"call": f"read {self.name}", "waited_s": _CLOSE_S}},
            )

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.name, cv2.CAP_V4L2)
        if capture.isOpened():
            self._configure(capture)
        return capture

    def _configure(self, capture: cv2.VideoCapture) -> None:
        """Ask, then read back and tell what was granted: `set` fails without a word."""
        # The order matters: drivers choose sizes and rates by pixel format.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._settings.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._settings.height)
        capture.set(cv2.CAP_PROP_FPS, self._settings.frames_per_s)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        facts = {
            "device": self.name,
            "format": fourcc.to_bytes(4, "little").decode("ascii", "replace"),
            "width": width,
            "height": height,
            "frames_per_s": float(capture.get(cv2.CAP_PROP_FPS)),
        }
        as_asked = (width, height) == (self._settings.width, self._settings.height)
        log.log(
            logging.INFO if as_asked else logging.WARNING,
            "camera.granted",
            extra={"fields": facts},
        )


class _Reader:
    """The thread that owns an opened capture until it ends, and releases it then."""

    def __init__(self, capture: cv2.VideoCapture, name: str, clock: Clock) -> None:
        self.slot = FrameSlot()
        self.failure = ""
        self._capture, self._name, self._clock = capture, name, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"read {name}", daemon=True)
        self._thread.start()

    def end(self, timeout_s: float) -> bool:
        """Ask the thread to end and wake whoever waits for a frame; False when it hangs."""
        self.failure = self.failure or "the camera was closed"
        self._stop.set()
        self.slot.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._read_one()
        except (CameraError, cv2.error) as error:
            self.failure = self.failure or str(error)
        finally:
            self.slot.close()
            self._capture.release()

    def _read_one(self) -> None:
        if not self._capture.grab():
            raise CameraError("the device delivered none (unplugged, or its time-out passed)")
        seen = self._clock.now()
        good, pixels = self._capture.retrieve()
        if not good:
            # Damaged on the wire, as first frames often are; a camera that delivers nothing else
            # is found by the deadline of `read`.
            log.debug("camera.damaged_frame", extra={"fields": {"device": self._name}})
            return
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise CameraError(
                f"pixels of shape (height, width, 3), uint8, were expected,"
                f" {pixels.shape}, {pixels.dtype} came"
            )
        self.slot.put(Frame(np.asarray(pixels, dtype=np.uint8), seen, self._name))


def device_path(device: str) -> str:
    """The path that `camera.device` stands for."""
    return f"/dev/video{device}" if device.isdecimal() else device


def check_device(name: str) -> None:
    """CameraError for what the file system knows; OpenCV says nothing. The device stays closed."""
    device = Path(name)
    if not device.exists():
        raise CameraError(
            f"{device}: a V4L2 camera expected, nothing is there", hint=_alternatives()
        )
    if not device.is_char_device():
        raise CameraError(
            f"{device}: a V4L2 camera expected, it is not a device", hint=_alternatives()
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise CameraError(
            f"{device}: a V4L2 camera expected, this user may not open it",
            hint="add the user to the group video",
        )


def _alternatives() -> str:
    found = sorted(str(path) for path in _STABLE.glob("*")) if _STABLE.is_dir() else []
    if found:
        return f"set camera.device to one of: {', '.join(found)}"
    return f"nothing is below {_STABLE}: is a camera plugged in?"
