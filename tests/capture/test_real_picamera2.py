"""picamera2's own code under our camera: only libcamera, prctl and the kernel's devices are stubs.

The fake picamera2 of the other tests is held against what is seen here.
"""

import contextlib
import gc
import importlib
import os
import sys
import threading
import types
import warnings
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from capture import libcamera_stub
from kiosk import config
from kiosk.capture import picamera
from kiosk.capture.picamera import PiCamera
from kiosk.clock import SystemClock
from kiosk.errors import CameraError, CameraStuckError

# picamera2 0.3.38 still says setDaemon.
pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")

LIBRARY = Path(sys.prefix) / "picamera"
HANG_S = 20.0


class Heap:
    """/dev/dma_heap: hands out memory, as the kernel does, by descriptors."""

    def alloc(self, name, size):
        descriptor = os.memfd_create(name)
        os.ftruncate(descriptor, size)
        return types.SimpleNamespace(get=lambda: descriptor, isValid=lambda: True)

    def close(self):
        """Nothing is held."""


@pytest.fixture(scope="module")
def library():
    """The real package, imported once over the stubs, and taken out again."""
    if not LIBRARY.is_dir():
        pytest.skip(f"picamera2 is not at {LIBRARY}: make lint puts it there")
    known = set(sys.modules)
    sys.modules.update(libcamera_stub.modules())
    sys.path.insert(0, str(LIBRARY))
    picamera2 = importlib.import_module("picamera2")
    allocator = importlib.import_module("picamera2.allocators.dmaallocator")
    allocator.DmaHeap = Heap
    allocator.fcntl = types.SimpleNamespace(ioctl=lambda *_: 0)
    yield picamera2
    sys.path.remove(str(LIBRARY))
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def sensor(library, monkeypatch):
    """A fresh sensor on the ribbon."""
    made = libcamera_stub.Sensor()
    monkeypatch.setattr(libcamera_stub.CameraManager, "sensor", made)
    library.Picamera2._cm.reset()
    monkeypatch.setattr(picamera, "_CLOSE_S", 3.0)
    yield made
    made.mode = "live"
    made.let_go.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("open ", "close ")):
            thread.join(HANG_S)


def made(**changes):
    given = {"width": 640, "height": 360, "frames_per_s": 20.0, **changes}
    return PiCamera(config.Camera(source="picamera2", **given), SystemClock())


def read_on(camera):
    """Until it fails: a frame or two may be on the way."""
    while True:
        camera.read(0.3)


@pytest.fixture
def camera(sensor):
    camera = made()
    camera.open()
    yield camera
    camera.close()


def test_frames_come_cropped_copied_and_in_order(camera):
    """BGR of the size asked for, without the padding of a row; each one newer; a copy."""
    first, second = camera.read(HANG_S), camera.read(HANG_S)
    assert first.pixels.shape == (360, 640, 3)
    level = int(first.pixels[0, 0, 0])
    assert np.array_equal(
        np.unique(first.pixels.reshape(-1, 3), axis=0), [[level, level + 1, level + 2]]
    )
    assert int(second.pixels[0, 0, 0]) != level


def test_the_small_stream_decides(camera):
    """Its first plane without padding; an unwanted frame is given back, hundreds of times."""
    asked = []

    def unwanted(grey):
        asked.append(grey.shape)
        return False

    for _ in range(200):
        assert camera.read(HANG_S, unwanted) is None
    assert set(asked) == {(144, 256)}
    assert camera.read(HANG_S).pixels.shape == (360, 640, 3)


def test_controls_are_those_that_the_sensor_offers(sensor):
    """Exposure for dark faces and a focus at the distance, where there are such; limits hold."""
    plain = made()
    plain.open()
    assert set(sensor.camera.started_with) == {"FrameDurationLimits"}
    plain.close()
    sensor.offer("AeConstraintMode", 0, 3, 0)
    sensor.offer("AfMode", 0, 2, 0)
    sensor.offer("LensPosition", 0.0, 12.0, 1.0)
    focused = made(distance_m=0.5)
    focused.open()
    assert sensor.camera.started_with["AeConstraintMode"] == 2
    assert sensor.camera.started_with["LensPosition"] == 2.0
    focused.close()


def test_a_capture_without_a_deadline_never_returns(library, sensor):
    """The trap itself: libcamera times out, picamera2 raises nothing, the caller waits for ever."""
    raw = library.Picamera2(0)
    raw.configure(raw.create_video_configuration(raw=None, queue=False, display=None, encode=None))
    raw.start()
    sensor.mode = "mute"
    returned = threading.Event()

    def capture():
        with contextlib.suppress(CancelledError), raw.captured_request():
            returned.set()

    thread = threading.Thread(target=capture, daemon=True)
    thread.start()
    assert not returned.wait(2.0)
    raw.cancel_all_and_flush()
    raw.close()


def test_a_mute_camera_is_told_and_opened_again(sensor, camera):
    """libcamera gives every request back and delivers nothing more: only a new opening helps."""
    camera.read(HANG_S)
    sensor.mode = "mute"
    with pytest.raises(CameraError, match="a new frame within"):
        read_on(camera)
    sensor.mode = "live"
    camera.close()
    camera.open()
    assert camera.read(HANG_S) is not None


def test_an_old_sensor_time_is_no_frame(sensor, camera):
    """The pipeline froze and goes on delivering: that is a missing frame."""
    camera.read(HANG_S)
    sensor.mode = "stale"
    with pytest.raises(CameraError, match=r"old sensor time|none came"):
        read_on(camera)


def test_a_stop_that_hangs_costs_its_deadline(sensor, monkeypatch):
    """Closing blocks in the kernel: it is named, and the next opening has a deadline as well."""
    monkeypatch.setattr(picamera, "_CLOSE_S", 0.3)
    monkeypatch.setattr(picamera, "_OPEN_S", 2.0)
    camera = made()
    camera.open()
    sensor.mode = "hang"
    camera.close()
    with pytest.raises((CameraError, CameraStuckError)):
        camera.open()


def test_openings_that_fail_leave_nothing_open(library, sensor):
    """picamera2 forgets a pipe each time; tried for years, that would be every descriptor."""

    def grown(attempt):
        gc.collect()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            attempt()
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())) - before

    def alone():
        with contextlib.suppress(RuntimeError):
            library.Picamera2(0)

    def ours():
        with pytest.raises(CameraError):
            made().open()

    sensor.connected = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert grown(alone) >= 20
    assert grown(ours) == 0


def test_no_camera_is_named(sensor):
    """The ribbon is loose: which number was looked for, and what to do."""
    sensor.connected = False
    with pytest.raises(CameraError, match=r"picamera2:0: a camera expected.*rpicam-hello"):
        made().open()


def test_closing_wakes_who_reads(sensor):
    """A read that waits ends when another thread closes."""
    camera = made()
    camera.open()
    sensor.mode = "mute"
    errors = []

    def read():
        try:
            while True:
                camera.read(HANG_S)
        except CameraError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    threading.Event().wait(0.3)
    camera.close()
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert "closed" in errors[0] or "a new frame" in errors[0]
