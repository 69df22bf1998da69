"""The Raspberry Pi camera: the only place that knows picamera2.

libcamera's own time-out raises nothing in picamera2: a capture simply never returns. So every
wait has a deadline, and what a missed one leaves behind in picamera2's queue is flushed.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import numpy as np

from kiosk import config
from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import CameraError
from kiosk.types import Frame

log = logging.getLogger(__name__)

_CLOSE_S = 5.0


class PiCamera:
    """A camera behind libcamera. Configured once; a frame counts when its sensor time advances."""

    def __init__(self, settings: config.Camera, clock: Clock) -> None:
        self.name = f"picamera2:{settings.device or '0'}"
        self._settings = settings
        self._clock = clock
        self._camera: Any = None
        self._mapped: Any = None
        self._last_sensor_ns = 0

    def open(self) -> None:
        """Open, configure and start the camera."""
        try:
            import picamera2
        except ImportError as error:
            raise CameraError(
                f"the library picamera2 expected, {error}",
                hint="apt install python3-picamera2, or set camera.source",
            ) from error
        self._mapped = picamera2.MappedArray
        try:
            camera = picamera2.Picamera2(int(self._settings.device or 0))
            camera.configure(self._configuration(camera))
            camera.start()
        except (RuntimeError, IndexError, OSError, ValueError) as error:
            raise CameraError(
                f"{self.name}: a camera expected, {error}", hint="check the ribbon cable"
            ) from error
        self._camera, self._last_sensor_ns = camera, 0

    def _configuration(self, camera: Any) -> Any:
        step_us = int(1_000_000 / self._settings.frames_per_s)
        return camera.create_video_configuration(
            # picamera2 names formats by little-endian words: RGB888 is BGR in memory.
            main={"size": (self._settings.width, self._settings.height), "format": "RGB888"},
            raw=None,
            buffer_count=4,
            queue=False,
            display=None,
            encode=None,
            controls={"FrameDurationLimits": (step_us, step_us)},
        )

    def read(self, timeout_s: float) -> Frame:
        """The next frame with a new sensor time; CameraError when none comes in time."""
        if self._camera is None:
            raise CameraError("an open camera expected, it is closed", hint="call open first")
        end_ns = self._clock.boottime_ns() + int(timeout_s * NS_PER_S)
        while (left_s := (end_ns - self._clock.boottime_ns()) / NS_PER_S) > 0:
            frame = self._capture(left_s)
            if frame is not None:
                return frame
        raise CameraError(f"{self.name}: a new frame within {timeout_s:g} s expected, none came")

    def _capture(self, timeout_s: float) -> Frame | None:
        try:
            with self._camera.captured_request(wait=timeout_s) as request:
                sensor_ns = int(request.get_metadata().get("SensorTimestamp", 0))
                if sensor_ns <= self._last_sensor_ns:
                    return None
                self._last_sensor_ns = sensor_ns
                with self._mapped(request, "main", write=False) as mapped:
                    # Rows may be padded to the hardware's stride: crop, and copy before release.
                    view = mapped.array[: self._settings.height, : self._settings.width, :3]
                    pixels = np.array(view, dtype=np.uint8)
        except (FutureTimeoutError, TimeoutError, CancelledError) as error:
            # The abandoned job would swallow the next frame and never release its buffer.
            self._camera.cancel_all_and_flush()
            raise CameraError(
                f"{self.name}: a frame within {timeout_s:.1f} s expected, none came",
                hint="check ribbon cable and power supply",
            ) from error
        return Frame(pixels, self._clock.now(), self.name)

    def close(self) -> None:
        """Close in a thread with a deadline: libcamera may block in the kernel."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        closing = threading.Thread(target=camera.close, name="picamera2-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if closing.is_alive():
            log.error("camera.stuck", extra={"fields": {"device": self.name}})
