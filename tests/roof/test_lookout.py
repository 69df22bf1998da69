"""A camera that fails is opened again, and the person in front is told both ways."""

import threading

import numpy as np

from kiosk.capture.camera import EndOfFrames
from kiosk.capture.slot import FrameSlot
from kiosk.config import Camera
from kiosk.errors import CameraError
from kiosk.feedback.notice import NoticeKind
from kiosk.lookout import Lookout
from kiosk.types import Frame, Stamp, Trust

NOW = Stamp(0, 0, "boot", Trust.SYNCED)


class Clock:
    """Waits for nothing and remembers how long it was asked to."""

    def __init__(self):
        self.waits = []

    def now(self):
        return NOW

    def wait(self, event, timeout_s):
        self.waits.append(timeout_s)
        return event.is_set()


class Script:
    """A camera whose reads give frames or raise what is written."""

    name = "script"

    def __init__(self, *reads):
        self.reads = list(reads)
        self.opened = self.closed = 0

    def open(self):
        self.opened += 1

    def read(self, timeout_s):
        step = self.reads.pop(0)
        if isinstance(step, Exception):
            raise step
        return Frame(np.zeros((4, 4, 3), np.uint8), NOW, self.name)

    def close(self):
        self.closed += 1


class Screen:
    def __init__(self):
        self.kinds = []

    def show(self, notice):
        self.kinds.append(notice.kind)


def watch(camera, stop=None):
    clock, screen, slot = Clock(), Screen(), FrameSlot()
    lookout = Lookout(Camera(), camera, slot=slot, screen=screen, clock=clock, beat=lambda *_: None)
    lookout.run(stop or threading.Event())
    return lookout, clock, screen, slot


def test_a_camera_that_comes_back_is_welcome():
    """Gone: the screen says so; back: it is idle again; opened once more; over: it says so too."""
    camera = Script(1, CameraError("cable"), 1, EndOfFrames("over"))
    lookout, _, screen, slot = watch(camera)
    assert screen.kinds == [NoticeKind.NO_CAMERA, NoticeKind.IDLE, NoticeKind.NO_CAMERA]
    assert (camera.opened, camera.closed) == (2, 2)
    assert lookout.state == "ended"
    assert slot.dropped == 1


def test_waits_grow_and_start_again_after_a_frame():
    """1, 2, 5, 10, 10 s between attempts, and 1 s again once a frame has come."""
    gone = CameraError("cable")
    _, clock, _, _ = watch(Script(*[gone] * 5, 1, gone, EndOfFrames("over")))
    assert clock.waits == [1.0, 2.0, 5.0, 10.0, 10.0, 1.0]


def test_the_end_is_no_failure():
    """A read that is broken off because the kiosk stops is neither told nor tried again."""
    stop = threading.Event()

    class Stopping(Script):
        def read(self, timeout_s):
            stop.set()
            raise CameraError("closed")

    camera = Stopping()
    lookout, _, screen, _ = watch(camera, stop)
    assert screen.kinds == []
    assert (lookout.state, camera.opened) == ("opening", 1)
