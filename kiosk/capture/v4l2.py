"""A USB camera through V4L2. The driver may hang for ever, so a thread of its own reads it."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kiosk import config
from kiosk.capture.bounded import within
from kiosk.capture.camera import Wanted, everything
from kiosk.capture.slot import FrameSlot
from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import CameraError
from kiosk.types import Frame, Pixels, Stamp

log = logging.getLogger(__name__)

_OPEN_S = 10.0
_CLOSE_S = 1.0
_STABLE = Path("/dev/v4l/by-id")


class V4L2Camera:
    """Keeps the newest frame of a V4L2 device, so that what is read is never an old one.

    Where the device grants MJPG its frames are kept as they come over the wire: a small grey
    picture is decoded out of one for a fraction of what the whole costs.

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

    def read(self, timeout_s: float, wanted: Wanted = everything) -> Frame | None:
        """The newest frame that was not read before; CameraError when none comes in time.

        Its grey picture has an eighth of its width and height.
        """
        reader = self._reader
        if reader is None:
            raise CameraError(f"{self.name}: an open camera expected, it is closed")
        end_ns = self._clock.boottime_ns() + round(timeout_s * NS_PER_S)
        while True:
            came = self._newest(reader, (end_ns - self._clock.boottime_ns()) / NS_PER_S, timeout_s)
            grey = came.grey()
            if grey is None:
                # Damaged on the wire, as first frames often are; a camera that delivers nothing
                # else is found by the deadline.
                log.debug("camera.damaged_frame", extra={"fields": {"device": self.name}})
                continue
            if not wanted(grey):
                return None
            pixels = came.pixels()
            if pixels is not None:
                return Frame(pixels, came.seen, self.name)

    def _newest(self, reader: _Reader, left_s: float, timeout_s: float) -> _Came:
        try:
            return reader.slot.take(max(0.0, left_s))
        except CameraError as error:
            reason = reader.failure or f"none came within {timeout_s:g} s"
            raise CameraError(
                f"{self.name}: a frame expected, {reason}",
                hint="check cable and USB port, and that no other program uses the camera",
            ) from error

    def close(self) -> bool:
        """End the reading thread; one that hangs in the driver is named and left behind."""
        reader, self._reader = self._reader, None
        if reader is None or reader.end(_CLOSE_S):
            return True
        log.error(
            "camera.stuck",
            extra={"fields": {"call": f"read {self.name}", "waited_s": _CLOSE_S}},
        )
        return False

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
        # The frame's bytes as they came: decoded here, as far as they are needed.
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0.0 if _grants_mjpg(capture) else 1.0)
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


def _grants_mjpg(capture: cv2.VideoCapture) -> bool:
    return int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"MJPG")


@dataclass(frozen=True, slots=True, eq=False)
class _Came:
    """What came over the wire: JPEG bytes in one row, or pixels."""

    data: Pixels
    seen: Stamp

    def grey(self) -> Pixels | None:
        """uint8 (height / 8, width / 8); None for what is damaged."""
        if _is_jpeg(self.data):
            return _decoded(self.data, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        return np.ascontiguousarray(self.data[::8, ::8, 1])

    def pixels(self) -> Pixels | None:
        """uint8 (height, width, 3), BGR; None for what is damaged."""
        return _decoded(self.data, cv2.IMREAD_COLOR) if _is_jpeg(self.data) else self.data


def _is_jpeg(data: np.ndarray) -> bool:
    """Bytes come as one row or one column."""
    return data.ndim == 1 or (data.ndim == 2 and 1 in data.shape)


def _decoded(data: Pixels, how: int) -> Pixels | None:
    picture = cv2.imdecode(data.reshape(-1), how)
    return None if picture is None else np.asarray(picture, dtype=np.uint8)


class _Reader:
    """The thread that owns an opened capture until it ends, and releases it then."""

    def __init__(self, capture: cv2.VideoCapture, name: str, clock: Clock) -> None:
        self.slot: FrameSlot[_Came] = FrameSlot()
        self._wire_ms = 0.0
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
            log.debug("camera.damaged_frame", extra={"fields": {"device": self._name}})
            return
        if not self._is_new() or pixels.size == 0:
            return
        self.slot.put(_Came(_checked(pixels), seen))

    def _is_new(self) -> bool:
        """Whether the driver's time of the frame advances; it does where one is told at all."""
        wire_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        if 0.0 < wire_ms <= self._wire_ms:
            return False
        self._wire_ms = wire_ms
        return True


def _checked(data: np.ndarray) -> Pixels:
    """What a driver handed out, if it is JPEG bytes or a BGR picture; CameraError otherwise."""
    is_picture = data.ndim == 3 and data.shape[2] == 3
    if data.dtype != np.uint8 or not (_is_jpeg(data) or is_picture):
        raise CameraError(
            f"JPEG bytes or pixels of shape (height, width, 3), uint8, were expected,"
            f" {data.shape}, {data.dtype} came"
        )
    # The driver uses its memory again for the next frame.
    return np.array(data, dtype=np.uint8)


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
