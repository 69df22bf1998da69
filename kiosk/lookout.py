"""The camera's care: open it, read into the slot, open it again, tell the screen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kiosk import config
from kiosk.capture.camera import Camera, EndOfFrames
from kiosk.capture.motion import MotionGate
from kiosk.capture.scrutiny import Rate, Scrutiny, Verdict
from kiosk.capture.slot import FrameSlot
from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import CameraError, CameraStuckError
from kiosk.feedback.notice import Notice, NoticeKind
from kiosk.reception import Screen
from kiosk.types import Frame, Pixels

log = logging.getLogger(__name__)

_REOPEN_WAITS_S = (1.0, 2.0, 5.0, 10.0)
# The camera has deadlines of its own within: 15 s to open, 5 s to close.
_OPEN_S = 30.0
_SLACK_S = 10.0
# So many calls in a row that hang, or openings in a row that bring no frame from a camera which
# once worked: then only a fresh process can help, and systemd makes one.
_MOST_STUCK = 2
_MOST_MUTE = 4
# Below this share of the rate that was asked for the camera is called slow.
_SLOW_SHARE = 0.33
_SLOW_LOOK_S = 15.0


class Lookout:
    """The capture thread's body. `state`: opening, running, ended, or failed with the reason."""

    def __init__(
        self,
        settings: config.Camera,
        camera: Camera,
        *,
        slot: FrameSlot[Frame],
        screen: Screen,
        clock: Clock,
        beat: Callable[[str, float], None],
    ) -> None:
        self._settings, self._beat = settings, beat
        self._camera, self._slot, self._screen, self._clock = camera, slot, screen, clock
        self._gate = MotionGate()
        self._scrutiny = Scrutiny()
        self.rate = Rate()
        self.state = "opening"
        self.one_of = 1
        """Of so many frames one is looked at; more than 1 while the board is hot."""
        self._number = 0
        self._stuck = self._mute = 0
        # What hangs may hold the device: then no opening in this process can succeed.
        self._left_behind = False
        self._blind_ns: int | None = None
        self._verdict = Verdict.GOOD
        self._doubt = False
        """Opened anew because of its pictures, and none has come since that proves it well."""
        self._slow_ns: int | None = None
        self._slow_told = False

    @property
    def awake(self) -> bool:
        """Whether frames are looked at: something moves, or a face was seen just now."""
        return self._gate.awake or not self._settings.motion_gate

    def somebody(self) -> None:
        """A face was seen: whoever stands still is not lost. Any thread."""
        self._gate.keep_awake(self._clock.boottime_ns())

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set or a replay is over; a camera that is not there does not end it.

        CameraStuckError when only a fresh process can help.
        """
        failures = 0
        while not stop.is_set():
            try:
                self._look(stop)
            except EndOfFrames:
                self._over()
                return
            except CameraError as error:
                if stop.is_set():
                    return
                failures = 0 if self._blind_ns is None else failures + 1
                self._blind(error, failures)
                self._count(error)
            finally:
                self._beat("closes the camera", _OPEN_S)
                self._left_behind |= not self._camera.close()
            wait_s = _REOPEN_WAITS_S[min(failures, len(_REOPEN_WAITS_S) - 1)]
            self._beat("waits to open the camera again", wait_s + _SLACK_S)
            self._clock.wait(stop, wait_s)

    def _look(self, stop: threading.Event) -> None:
        """Open the camera and hand its frames on; CameraError when it fails."""
        self._beat("opens the camera", _OPEN_S)
        self._camera.open()
        self._scrutiny.begin()
        self._gate.begin()
        self._mute += 1
        timeout_s = self._settings.frame_timeout_s
        while not stop.is_set():
            self._beat("waits for a frame", timeout_s + _SLACK_S)
            frame = self._camera.read(timeout_s, self._wants)
            self._weigh()
            if frame is not None:
                self._slot.put(frame)

    def _wants(self, grey: Pixels) -> bool:
        """Judge the next frame by its small grey picture; whether the whole is to be looked at."""
        now_ns = self._clock.boottime_ns()
        self.rate.add(now_ns)
        # A replay may show a still for as long as it likes.
        is_replay = self._settings.source == "replay"
        self._verdict = Verdict.GOOD if is_replay else self._scrutiny.judge(grey, now_ns)
        if self._verdict is not Verdict.GOOD:
            return False
        self._number += 1
        is_awake = self._gate.look(grey, now_ns) or not self._settings.motion_gate
        return is_awake and self._number % self.one_of == 0

    def _weigh(self) -> None:
        """What the verdict on the frame that was read means for the camera."""
        if self._verdict is Verdict.GOOD:
            # The first ones after an opening are not judged yet, and no recovery.
            if self._scrutiny.lively:
                self._doubt = False
            if not self._doubt:
                self._seeing()
        elif self._verdict is Verdict.DARK and self._doubt:
            # It was opened anew and is black still: what is missing is light.
            self._without_light()
        else:
            self._doubt = True
            raise CameraError(f"{self._camera.name}: a picture expected, got {self._verdict.value}")

    def _count(self, error: CameraError) -> None:
        """Raise when the ladder's last rung in this process is reached."""
        is_stuck = isinstance(error, CameraStuckError) or self._left_behind
        self._stuck = self._stuck + 1 if is_stuck else 0
        worked = self.rate.age_s(self._clock.boottime_ns()) is not None
        if self._stuck >= _MOST_STUCK or (worked and self._mute >= _MOST_MUTE):
            raise CameraStuckError(
                f"{self._camera.name}: expected to be opened again, {self._stuck} calls hang and"
                f" {self._mute} openings brought no picture; last: {error}",
                hint="the process ends for a fresh one",
            )

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
        self._goes_blind(str(error))
        fields = {"reason": str(error), "failures": failures}
        log.error("camera.failed", extra={"fields": fields})

    def _without_light(self) -> None:
        reason = f"{self._camera.name}: {Verdict.DARK.value}"
        if self.state != f"failed: {reason}":
            self._goes_blind(reason)
            log.warning("camera.dark", extra={"fields": {"camera": self._camera.name}})

    def _goes_blind(self, reason: str) -> None:
        if self._blind_ns is None:
            now_ns = self._clock.boottime_ns()
            # What was missed began with the last frame, not with the end of the wait for another.
            age_s = self.rate.age_s(now_ns) if self.state == "running" else None
            self._blind_ns = now_ns - round((age_s or 0.0) * NS_PER_S)
        self.state = f"failed: {reason}"
        self._show(NoticeKind.NO_CAMERA)

    def _seeing(self) -> None:
        """A frame came: whoever was sent away while the camera was gone is welcome again."""
        now_ns = self._clock.boottime_ns()
        if self._blind_ns is not None:
            stalled_s = round((now_ns - self._blind_ns) / NS_PER_S, 1)
            fields = {"camera": self._camera.name, "stalled_s": stalled_s}
            log.warning("camera.recovered", extra={"fields": fields})
            self._show(NoticeKind.IDLE)
        self._blind_ns = None
        self._stuck = self._mute = 0
        self._left_behind = False
        self.state = "running"
        self._compare_rate(now_ns)

    def _compare_rate(self, now_ns: int) -> None:
        """A camera that delivers a fraction of what was asked for is told of, once."""
        if self._slow_ns is None:
            self._slow_ns = now_ns
        if now_ns - self._slow_ns < _SLOW_LOOK_S * NS_PER_S:
            return
        self._slow_ns = now_ns
        rate, asked = self.rate.per_second(now_ns), self._settings.frames_per_s
        slow = rate < _SLOW_SHARE * asked
        if slow and not self._slow_told:
            fields = {"frames_per_s": round(rate, 2), "asked": asked}
            log.warning("camera.slow", extra={"fields": fields})
        self._slow_told = slow

    def _show(self, kind: NoticeKind) -> None:
        self._screen.show(Notice.of(kind, None, self._clock.now()))
