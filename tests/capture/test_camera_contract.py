"""What every camera promises, whichever library is behind it."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from kiosk import config
from kiosk.capture.camera import open_camera
from kiosk.clock import SystemClock
from kiosk.errors import CameraError

SIZE = {"width": 64, "height": 48}


@pytest.fixture(params=["replay", "v4l2", "picamera2"])
def bench(request):
    """A camera that is not opened, and `deliver`, which lets one frame come to it."""
    if request.param == "replay":
        levels = {f"{number}.png": number for number in range(10, 20)}
        folder = request.getfixturevalue("folder_of")("walk", levels)
        make = request.getfixturevalue("replay")
        # The next frame is due in two seconds: whoever does not wait so long gets none.
        settings = make(folder, frames_per_s=0.5)
        clock, deliver = Due(), None
        deliver = clock.come
    elif request.param == "v4l2":
        settings = config.Camera(source="v4l2", device="/dev/null", **SIZE)
        clock, deliver = SystemClock(), request.getfixturevalue("usb").deliver
    else:
        settings = config.Camera(source="picamera2", **SIZE)
        clock, deliver = SystemClock(), request.getfixturevalue("ribbon").deliver
    camera = open_camera(settings, clock)
    yield SimpleNamespace(camera=camera, deliver=deliver, settings=settings, clock=clock)
    camera.close()


class Due(SystemClock):
    """The machine's clock, which jumps to the moment the next frame is due."""

    ahead_ns = 0

    def come(self):
        self.ahead_ns += 3_000_000_000

    def boottime_ns(self):
        return super().boottime_ns() + self.ahead_ns


def test_it_is_made_without_being_opened(bench):
    """Making a camera touches nothing; reading one that is not open says so."""
    with pytest.raises(CameraError, match="open camera expected, it is closed"):
        bench.camera.read(0.01)


def test_frames_are_as_the_mail_says(bench):
    """uint8 (height, width, 3), read-only, with the camera's name and a moment of now."""
    bench.camera.open()
    before = bench.clock.boottime_ns()
    bench.deliver()
    frame = bench.camera.read(20.0)
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.shape == (48, 64, 3)
    assert not frame.pixels.flags.writeable
    assert frame.camera == bench.camera.name
    assert before <= frame.seen.boottime_ns <= bench.clock.boottime_ns()


def test_frames_are_kept_as_they_came(bench):
    """What was read does not change when the camera goes on: it is a copy of its own."""
    bench.camera.open()
    bench.deliver()
    first = bench.camera.read(20.0)
    kept = first.pixels.copy()
    for _ in range(6):
        bench.deliver()
        later = bench.camera.read(20.0)
        assert later.seen.boottime_ns >= first.seen.boottime_ns
        assert not np.array_equal(later.pixels, kept)
    assert np.array_equal(first.pixels, kept)


def test_every_wait_has_a_deadline(bench):
    """A camera that delivers nothing raises instead of hanging, and delivers again afterwards."""
    bench.camera.open()
    bench.deliver()
    bench.camera.read(20.0)
    for _ in range(6):
        with pytest.raises(CameraError, match=r"0\.02 s"):
            bench.camera.read(0.02)
    bench.deliver()
    assert bench.camera.read(20.0).pixels.shape == (48, 64, 3)


def test_closing_ends_a_read_that_waits(bench, background):
    """A stop need not wait for the deadline of a camera that hangs."""
    bench.camera.open()
    bench.deliver()
    bench.camera.read(20.0)
    begun = threading.Event()
    reading = background(lambda: (begun.set(), bench.camera.read(30.0)))
    assert begun.wait(20.0)
    bench.camera.close()
    with pytest.raises(CameraError, match="closed"):
        reading.result(20)


def test_it_may_be_opened_again(bench):
    """Close is harmless at any time, and after it the camera opens again."""
    bench.camera.close()
    for _ in range(3):
        bench.camera.open()
        bench.deliver()
        assert bench.camera.read(20.0).pixels.shape == (48, 64, 3)
        bench.camera.close()
        bench.camera.close()
        with pytest.raises(CameraError, match="closed"):
            bench.camera.read(0.01)


def test_only_the_camera_in_use_is_imported(replay, tmp_path):
    """A kiosk without a Pi camera never needs picamera2."""
    assert "picamera2" not in sys.modules
    open_camera(replay(tmp_path), SystemClock())
    assert "picamera2" not in sys.modules
