"""The camera's care: open it, read into the slot, open it again, tell the screen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kiosk import config
from kiosk.capture.camera import Camera, EndOfFrames
from kiosk.capture.slot import FrameSlot
from kiosk.clock import Clock
from kiosk.errors import CameraError
from kiosk.feedback.notice import Notice, NoticeKind
from kiosk.reception import Screen

log = logging.getLogger(__name__)

_REOPEN_WAITS_S = (1.0, 2.0, 5.0, 10.0)
# The camera has deadlines of its own within: 15 s to open, 5 s to close.
_OPEN_S = 30.0
_SLACK_S = 10.0


class Lookout:
    """The capture thread's body. `state`: opening, running, ended, or failed with the reason."""

    def __init__(
        self,
        settings: config.Camera,
        camera: Camera,
        *,
        slot: FrameSlot,
        screen: Screen,
        clock: Clock,
        beat: Callable[[str, float], None],
    ) -> None:
        self._beat = beat
        self._frame_timeout_s = settings.frame_timeout_s
        self._camera, self._slot, self._screen, self._clock = camera, slot, screen, clock
        self.state = "opening"

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set or a replay is over; no failure of the camera ends it."""
        failures = 0
        while not stop.is_set():
            try:
                self._beat("opens the camera", _OPEN_S)
                self._camera.open()
                while not stop.is_set():
                    self._beat("waits for a frame", self._frame_timeout_s + _SLACK_S)
                    frame = self._camera.read(self._frame_timeout_s)
                    self._seeing()
                    failures = 0
                    self._slot.put(frame)
            except EndOfFrames:
                self._over()
                return
            except CameraError as error:
                if stop.is_set():
                    return
                self._blind(error, failures)
            finally:
                self._beat("closes the camera", _OPEN_S)
                self._camera.close()
            wait_s = _REOPEN_WAITS_S[min(failures, len(_REOPEN_WAITS_S) - 1)]
            self._beat("waits to open the camera again", wait_s + _SLACK_S)
            self._clock.wait(stop, wait_s)
            failures += 1

    def _over(self) -> None:
        """Nothing is seen any more: whoever comes now must not read that the kiosk is ready."""
        self.state = "ended"
        self._show(NoticeKind.NO_CAMERA)
        fields = {
            "camera": self._camera.name,
            "meaning": "the replay is over, nobody is seen until a restart",
        }
        log.info("camera.ended", extra={"fields": fields})

    def _blind(self, error: CameraError, failures: int) -> None:
        self.state = f"failed: {error}"
        self._show(NoticeKind.NO_CAMERA)
        fields = {"reason": str(error), "failures": failures}
        log.error("camera.failed", extra={"fields": fields})

    def _seeing(self) -> None:
        """A frame came: whoever was sent away while the camera was gone is welcome again."""
        if self.state.startswith("failed"):
            self._show(NoticeKind.IDLE)
        self.state = "running"

    def _show(self, kind: NoticeKind) -> None:
        self._screen.show(Notice.of(kind, None, self._clock.now()))
