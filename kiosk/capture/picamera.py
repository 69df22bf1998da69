"""The Raspberry Pi camera: the only place that knows picamera2.

libcamera's own time-out raises nothing in picamera2: a capture simply never returns, and `stop`
and `close` may not either. So every call into it has a deadline, and what a missed one leaves
behind in picamera2's queue is flushed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from concurrent.futures import CancelledError
from enum import Enum
from typing import Any

import numpy as np

from kiosk import config
from kiosk.capture.bounded import within
from kiosk.capture.camera import Wanted, everything
from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import CameraError
from kiosk.types import Frame, Pixels

log = logging.getLogger(__name__)

_OPEN_S = 15.0
# libcamera's control_ids_core.yaml: AeConstraintModeEnum and AfModeEnum.
_SHADOWS = 2
_MANUAL_FOCUS = 0
_CLOSE_S = 5.0
# picamera2 takes a wait of nothing for "do not wait" and then returns a job instead of a frame.
_LEAST_WAIT_S = 0.001
# Narrow, for it is looked at only; a multiple of 128, to which the Pi 5 pads rows.
_SMALL = (256, 144)
_HINT = "check ribbon cable and power supply"


class PiCamera:
    """A camera behind libcamera; `camera.device` is its number, 0 when empty.

    Configured once, at `open`. A frame counts only when its sensor time has advanced: a pipeline
    that froze goes on delivering the last one.
    """

    def __init__(self, settings: config.Camera, clock: Clock) -> None:
        self.name = f"picamera2:{settings.device or '0'}"
        self._settings = settings
        self._clock = clock
        self._session: _Session | None = None

    def open(self) -> None:
        """Open, configure and start the camera."""
        self.close()
        try:
            import picamera2
        except ImportError as error:
            raise CameraError(
                f"{self.name}: the library picamera2 expected, {error}",
                hint="apt install python3-picamera2 and make the environment with"
                " --system-site-packages, or set camera.source",
            ) from error
        number = self._settings.device or "0"
        if not number.isdecimal():
            raise CameraError(
                f"camera.device: a camera number expected for picamera2, got {number!r}",
                hint='leave it empty, or set camera.source = "v4l2" for a device path',
            )
        camera = within(
            _OPEN_S,
            f"open {self.name}",
            lambda: self._started(picamera2.Picamera2, int(number)),
            discard=lambda late: late.close(),
        )
        granted = camera.camera_configuration()
        width, height = granted["main"]["size"]
        small = granted["lores"]["size"]
        facts = {"device": self.name, "width": int(width), "height": int(height)}
        log.info("camera.granted", extra={"fields": facts})
        self._session = _Session(
            camera, picamera2.MappedArray, (int(width), int(height)), (int(small[0]), int(small[1]))
        )

    def _started(self, make: Any, number: int) -> Any:
        try:
            camera = _made(make, number)
        except (RuntimeError, IndexError, OSError) as error:
            raise CameraError(
                f"{self.name}: a camera expected, {error}",
                hint=f"{_HINT}; `rpicam-hello --list-cameras` lists what is connected",
            ) from error
        try:
            camera.configure(self._configuration(camera))
            camera.start()
        except (RuntimeError, OSError) as error:
            # One that is left open could not be opened again in this process.
            camera.close()
            raise CameraError(f"{self.name}: cannot be started: {error}", hint=_HINT) from error
        return camera

    def _configuration(self, camera: Any) -> Any:
        return camera.create_video_configuration(
            # picamera2 names formats by little-endian words: RGB888 is BGR in memory.
            main={"size": (self._settings.width, self._settings.height), "format": "RGB888"},
            lores={"size": _SMALL, "format": "YUV420"},
            raw=None,
            buffer_count=4,
            # The next frame, never one that has been waiting since the last call.
            queue=False,
            display=None,
            encode=None,
            controls=self._controls(camera),
        )

    def _controls(self, camera: Any) -> dict[str, Any]:
        """Frame rate; where the sensor has them exposure for faces before a bright door, and focus.

        A mode that the sensor's tuning lacks is only logged by libcamera: what the camera lists is
        asked for, nothing else.
        """
        step_us = int(1_000_000 / self._settings.frames_per_s)
        controls: dict[str, Any] = {"FrameDurationLimits": (step_us, step_us)}
        offered = camera.camera_controls
        constraint = offered.get("AeConstraintMode")
        if constraint is not None and constraint[1] >= _SHADOWS:
            controls["AeConstraintMode"] = _SHADOWS
        if "LensPosition" in offered:
            dioptres = 1.0 / self._settings.distance_m
            least, most = offered["LensPosition"][:2]
            controls |= {"AfMode": _MANUAL_FOCUS, "LensPosition": min(max(dioptres, least), most)}
        return controls

    def read(self, timeout_s: float, wanted: Wanted = everything) -> Frame | None:
        """The next frame with a new sensor time; CameraError when none comes in time.

        Its grey picture is the brightness of the low-resolution stream; the frame itself is
        copied out of the camera's memory only when it is wanted.
        """
        session = self._session
        if session is None:
            raise CameraError(f"{self.name}: an open camera expected, it is closed")
        end_ns = self._clock.boottime_ns() + int(timeout_s * NS_PER_S)
        reason = "none came"
        while (left_s := (end_ns - self._clock.boottime_ns()) / NS_PER_S) > 0:
            try:
                taken = session.capture(max(left_s, _LEAST_WAIT_S), wanted)
            except (TimeoutError, CancelledError):
                reason = "the camera was closed" if session.closing.is_set() else "none came"
                break
            except (RuntimeError, OSError) as error:
                raise CameraError(f"{self.name}: a frame expected, {error}", hint=_HINT) from error
            if isinstance(taken, np.ndarray):
                return Frame(taken, self._clock.now(), self.name)
            if taken is _Came.UNWANTED:
                return None
            reason = "only such with an old sensor time came"
        raise CameraError(
            f"{self.name}: a new frame within {timeout_s:g} s expected, {reason}", hint=_HINT
        )

    def close(self) -> bool:
        """End a read that waits, then close; what hangs in the kernel is named and left behind."""
        session, self._session = self._session, None
        if session is None:
            return True
        try:
            within(_CLOSE_S, f"close {self.name}", session.close, discard=lambda _: None)
        except (CameraError, RuntimeError, OSError) as error:
            facts = {"device": self.name, "reason": str(error)}
            # It is let go all the same; opening it again will tell whether it is free.
            log.warning("camera.not_closed", extra={"fields": facts})
            return False
        return True


def _made(kind: Any, number: int) -> Any:
    """A Picamera2; one that fails to begin leaves nothing open.

    picamera2 0.3.38 makes a pipe first and forgets it when what follows fails: a camera that is
    not there would cost a descriptor at every try, and a thousand of them the daemon.
    """
    camera = kind.__new__(kind)
    try:
        camera.__init__(number)
    except Exception:
        with contextlib.suppress(AttributeError, OSError):
            camera.notifymeread.close()
            os.close(camera.notifyme_w)
        raise
    return camera


class _Came(Enum):
    """What came instead of pixels."""

    STALE = "a frame with an old sensor time"
    UNWANTED = "a new one that nobody wants"


class _Session:
    """A started camera from `open` to `close`."""

    def __init__(
        self, camera: Any, mapped_array: Any, size: tuple[int, int], small: tuple[int, int]
    ) -> None:
        self.closing = threading.Event()
        self._camera, self._mapped_array, self._size = camera, mapped_array, size
        self._small = small
        self._capturing = threading.Lock()
        self._sensor_ns = -1

    def capture(self, timeout_s: float, wanted: Wanted) -> Pixels | _Came:
        """A copy of the next frame, if its sensor time is a new one and it is wanted.

        Raises TimeoutError or CancelledError with picamera2's queue left empty.
        """
        with self._capturing:
            if self.closing.is_set():
                raise CancelledError
            try:
                with self._camera.captured_request(wait=timeout_s) as request:
                    return self._copied(request, wanted)
            except TimeoutError:
                # The abandoned job would swallow the next frame and never release its buffer.
                self._camera.cancel_all_and_flush()
                raise

    def _copied(self, request: Any, wanted: Wanted) -> Pixels | _Came:
        sensor_ns = int(request.get_metadata().get("SensorTimestamp", self._sensor_ns))
        if sensor_ns <= self._sensor_ns:
            return _Came.STALE
        self._sensor_ns = sensor_ns
        if not wanted(self._part(request, "lores", self._small)):
            return _Came.UNWANTED
        return self._part(request, "main", self._size)

    def _part(self, request: Any, stream: str, size: tuple[int, int]) -> Pixels:
        """A copy of a stream's pixels, for YUV420 of its first plane, the brightness."""
        width, height = size
        with self._mapped_array(request, stream, write=False) as mapped:
            # Rows may be padded to the hardware's stride. The memory is the camera's again
            # after the release: never keep a view of it.
            return np.array(mapped.array[:height, :width], dtype=np.uint8)

    def close(self) -> None:
        """Wake the reader and wait until it has let go of its buffer, then close the camera."""
        self.closing.set()
        while not self._capturing.acquire(timeout=0.05):
            self._camera.cancel_all_and_flush()
        try:
            # Not `stop`: with a dead event thread it hangs, while `close` ends that thread first.
            self._camera.close()
        finally:
            self._capturing.release()
