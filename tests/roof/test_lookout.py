"""A camera that fails is opened again, and the person in front is told both ways.

Each kind of failure on a clock that costs nothing: what a camera does is a script of steps.
"""

import threading

import numpy as np
import pytest

from kiosk.capture.camera import EndOfFrames
from kiosk.capture.slot import FrameSlot
from kiosk.clock import NS_PER_S
from kiosk.config import Camera
from kiosk.errors import CameraError, CameraStuckError
from kiosk.feedback.notice import NoticeKind
from kiosk.lookout import Lookout
from kiosk.types import Frame, Stamp, Trust

BACK_S = 15.0


class Clock:
    """Waits for nothing, and moves by what it was asked to wait."""

    def __init__(self):
        self.ns, self.waits = 0, []

    def now(self):
        return Stamp(self.ns // 1_000_000, self.ns, "boot", Trust.SYNCED)

    def boottime_ns(self):
        return self.ns

    def wait(self, event, timeout_s):
        self.waits.append(timeout_s)
        self.ns += round(timeout_s * NS_PER_S)
        return event.is_set()


LIVE, FROZEN, BLACK, SMALL = "live", "frozen", "black", "small"


class Script:
    """A camera that does what is written: a kind of frame, or an error to raise.

    A frame takes a tenth of a second, an error the time-out; what a list of its own gives is done
    at each opening.
    """

    name = "script"

    def __init__(self, clock, *steps, openings=()):
        self.clock, self.steps, self.openings = clock, list(steps), list(openings)
        self.opened = self.closed = 0
        self.holds = False
        self.rng = np.random.default_rng(1)

    def open(self):
        self.opened += 1
        if self.openings and (step := self.openings.pop(0)) is not None:
            raise step

    def read(self, timeout_s, wanted):
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            self.clock.ns += 0 if isinstance(step, EndOfFrames) else round(timeout_s * NS_PER_S)
            raise step
        self.clock.ns += NS_PER_S // 10
        pixels = np.full((90, 160, 3), 0 if step is BLACK else 90, np.uint8)
        if step is LIVE:
            pixels += self.rng.integers(0, 5, pixels.shape, dtype=np.uint8)
        if step is SMALL:
            pixels = pixels[::2, ::2]
        if not wanted(pixels[::4, ::4, 1].copy()):
            return None
        return Frame(pixels, self.clock.now(), self.name)

    def close(self):
        self.closed += 1
        return not self.holds


class Screen:
    def __init__(self):
        self.kinds = []

    def show(self, notice):
        self.kinds.append(notice.kind)


OVER = EndOfFrames("over")


class Watch:
    """A lookout on a script, run to its end."""

    def __init__(self, *steps, stop=None, source="v4l2", openings=(), **settings):
        self.clock, self.screen, self.slot = Clock(), Screen(), FrameSlot()
        self.camera = Script(self.clock, *steps, openings=openings)
        given = Camera(source=source, device="0", **settings)
        self.lookout = Lookout(
            given,
            self.camera,
            slot=self.slot,
            screen=self.screen,
            clock=self.clock,
            beat=lambda *_: None,
        )
        self.stop = stop or threading.Event()

    def run(self):
        self.lookout.run(self.stop)
        return self


def told(caplog, event):
    return [record.fields for record in caplog.records if record.message == event]


def test_a_camera_that_comes_back_is_welcome():
    """Gone: the screen says so; back: it is idle again; opened once more; over: it says so too."""
    watch = Watch(LIVE, CameraError("cable"), LIVE, OVER).run()
    assert watch.screen.kinds == [NoticeKind.NO_CAMERA, NoticeKind.IDLE, NoticeKind.NO_CAMERA]
    assert (watch.camera.opened, watch.camera.closed) == (2, 2)
    assert watch.lookout.state == "ended"
    assert watch.slot.dropped == 1


def test_waits_grow_and_start_again_after_a_frame():
    """1, 2, 5, 10, 10 s between attempts, and 1 s again once a frame has come."""
    gone = CameraError("cable")
    watch = Watch(*[gone] * 5, LIVE, gone, OVER).run()
    assert watch.clock.waits == [1.0, 2.0, 5.0, 10.0, 10.0, 1.0]


def test_the_end_is_no_failure():
    """A read that is broken off because the kiosk stops is neither told nor tried again."""
    watch = Watch(CameraError("closed"))
    watch.stop.set()
    watch.run()
    assert watch.screen.kinds == []
    assert watch.lookout.state == "opening"


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("freezing", [CameraError("a frame expected, none came")]),
        ("vanishing", [CameraError("nothing is there"), CameraError("nothing is there")]),
        ("black", [BLACK] * 21),
        ("frozen picture", [FROZEN] * 52),
        ("another size", [SMALL]),
    ],
)
def test_each_kind_of_failure_is_over_within_fifteen_seconds(caplog, kind, steps):
    """From the last good frame to the next one; the stall is told with its length."""
    if kind == "vanishing":
        watch = Watch(
            *[LIVE] * 9,
            steps[0],
            *[LIVE] * 9,
            OVER,
            openings=[None, steps[1], None],
            frame_timeout_s=5.0,
        )
    else:
        watch = Watch(*[LIVE] * 9, *steps, *[LIVE] * 9, OVER)
    watch.run()
    (recovered,) = told(caplog, "camera.recovered")
    assert 0.9 < recovered["stalled_s"] <= BACK_S
    assert watch.camera.opened >= 2
    assert NoticeKind.NO_CAMERA in watch.screen.kinds[:-1]


def test_without_light_it_is_opened_once_and_then_waited_for(caplog):
    """Black for a minute: one new opening, no more; with light it goes on at once."""
    watch = Watch(*[LIVE] * 9, *[BLACK] * 600, LIVE, LIVE, OVER).run()
    assert watch.camera.opened == 2
    assert len(told(caplog, "camera.dark")) == 1
    assert told(caplog, "camera.recovered")[-1]["stalled_s"] > 50


def test_a_replay_may_stand_still():
    """A still that is shown for a minute is no frozen camera."""
    watch = Watch(*[FROZEN] * 600, OVER, source="replay").run()
    assert watch.camera.opened == 1


def test_a_slow_camera_is_told_once(caplog):
    """Two frames a second of twenty that were asked for."""
    watch = Watch(*[LIVE] * 600, OVER, frames_per_s=60.0).run()
    assert [fields["asked"] for fields in told(caplog, "camera.slow")] == [60.0]
    assert watch.lookout.state == "ended"


def test_calls_that_hang_twice_end_the_process():
    """A driver that hangs is not cured from within; systemd starts a fresh process."""
    stuck = CameraStuckError("close expected to be done within 5 s")
    with pytest.raises(CameraStuckError, match="the process ends for a fresh one"):
        Watch(LIVE, openings=[stuck, stuck]).run()


def test_a_camera_that_worked_and_is_mute_ends_the_process():
    """It can be opened, again and again, and delivers nothing any more."""
    mute = CameraError("none came")
    watch = Watch(LIVE, *[mute] * 9)
    with pytest.raises(CameraStuckError):
        watch.run()
    assert watch.camera.opened == 5


def test_what_a_close_left_behind_ends_the_process():
    """It holds the device: every opening says another program has it, and none ever succeeds."""
    taken = CameraError("another program has it")
    watch = Watch(LIVE, CameraError("none came"), openings=[None, taken, taken, taken, taken])
    watch.camera.holds = True
    with pytest.raises(CameraStuckError, match="fresh one"):
        watch.run()
    assert watch.camera.opened == 3


def test_a_picture_that_stays_frozen_is_no_recovery(caplog):
    """Opened anew it shows the very same: the screen stays honest, and the process is renewed."""
    watch = Watch(*[LIVE] * 9, *[FROZEN] * 500)
    with pytest.raises(CameraStuckError):
        watch.run()
    assert told(caplog, "camera.recovered") == []
    assert watch.screen.kinds.count(NoticeKind.IDLE) == 0


def test_a_camera_that_never_was_there_is_a_state(caplog):
    """No fresh process would find it: the queue drains meanwhile, and it is tried for ever."""
    gone = CameraError("nothing is there")
    watch = Watch(OVER, openings=[gone] * 100)
    watch.run()
    assert watch.camera.opened == 101
    assert len(told(caplog, "camera.failed")) == 100


def test_nobody_there_no_frame_is_handed_on():
    """After some seconds an empty corridor costs no frame; a face that was seen keeps it open."""
    watch = Watch(*[LIVE] * 300, OVER)
    watch.run()
    assert watch.slot.dropped < 70
    watch = Watch(*[LIVE] * 300, OVER)
    seen = watch.slot.put

    def put(frame):
        seen(frame)
        watch.lookout.somebody()

    watch.slot.put = put
    watch.run()
    assert watch.slot.dropped >= 298


def test_a_hot_board_looks_at_every_fourth_frame():
    """What the supervisor sets holds from the next frame on."""
    watch = Watch(*[LIVE] * 40, OVER, motion_gate=False)
    watch.lookout.one_of = 4
    watch.run()
    assert watch.slot.dropped + (not watch.slot.is_empty) == 10
