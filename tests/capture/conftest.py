"""Cameras that need no hardware, each obeying the rules of the real one it stands for."""

import queue
import sys
import threading
import types
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from kiosk import config
from kiosk.capture import picamera, v4l2
from kiosk.capture.camera import EndOfFrames
from kiosk.capture.replay import ReplayCamera
from kiosk.clock import NS_PER_S
from kiosk.types import Frame, Stamp, Trust

# Longer than anything may take: a test that waits so long has found a hang.
HANG_S = 20.0


class PatientClock:
    """A clock that costs nothing: waiting moves it on."""

    def __init__(self):
        self.ns = 5 * NS_PER_S
        self.waits = []

    def boottime_ns(self):
        return self.ns

    def now(self):
        return Stamp(self.ns // 1_000_000, self.ns, "boot", Trust.SYNCED)

    def wait(self, event, timeout_s):
        self.waits.append(timeout_s)
        if not event.is_set():
            self.ns += round(timeout_s * NS_PER_S)
        return event.is_set()


class Usb:
    """The far end of a fake cv2.VideoCapture: a cable, a driver and what the driver does.

    As the real one: nothing raises; a device that is not there or is taken is not opened; `set`
    claims success whatever it granted; `grab` waits for a frame and is False when none can come;
    `retrieve` is (False, None) for a damaged frame. While nothing is delivered the cable carries
    damaged frames, or with `hanging` nothing at all.
    """

    granted_size = (64, 48)
    # "MJPG": `retrieve` hands out the JPEG's bytes while CONVERT_RGB is off, as the real one.
    granted_format = "YUYV"
    wire_ms = 0.0

    def __init__(self):
        self.plugged = True
        self.hanging = False
        self.captures = []
        self.asked = []
        self.frames = queue.Queue()
        self.released = threading.Event()
        self.opening = threading.Event()
        self.opening.set()
        self.number = 0

    def deliver(self, pixels=None):
        """One frame comes over the cable."""
        self.number += 1
        width, height = self.granted_size
        solid = np.full((height, width, 3), self.number % 256, np.uint8)
        self.frames.put(solid if pixels is None else pixels)

    def deliver_damaged(self):
        """One frame comes that cannot be decoded."""
        self.frames.put(None)

    def unplug(self):
        """Every wait for a frame ends at once, without one."""
        self.plugged = False
        self.frames.put(None)

    def capture(self, name, backend):
        self.captures.append(_Capture(self, name, backend))
        return self.captures[-1]


class _Capture:
    def __init__(self, usb, name, backend):
        usb.asked.append(("open", name, backend))
        usb.opening.wait(HANG_S)
        self._usb = usb
        self._open = usb.plugged and not any(other.isOpened() for other in usb.captures)
        self._grabbed = None
        usb.released.clear()

    def isOpened(self):  # noqa: N802 - the real one's name
        return self._open

    def set(self, key, value):
        self._usb.asked.append((key, value))
        return True

    def get(self, key):
        width, height = self._usb.granted_size
        values = {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: 15.0,
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*self._usb.granted_format),
            cv2.CAP_PROP_POS_MSEC: self._usb.wire_ms,
        }
        return float(values.get(key, 0.0))

    def grab(self):
        if not self._open or not self._usb.plugged:
            return False
        try:
            self._grabbed = self._usb.frames.get(timeout=HANG_S if self._usb.hanging else 0.005)
        except queue.Empty:
            self._grabbed = None
        return self._usb.plugged

    def retrieve(self):
        if self._grabbed is None:
            return False, None
        raw = (cv2.CAP_PROP_CONVERT_RGB, 0.0) in self._usb.asked
        if raw and isinstance(self._grabbed, np.ndarray) and self._grabbed.ndim == 3:
            return True, cv2.imencode(".jpg", self._grabbed)[1].reshape(1, -1)
        return True, self._grabbed

    def release(self):
        self._open = False
        self._usb.released.set()


class Ribbon:
    """The far end of a fake picamera2.

    Its rules are those of picamera2 0.3.38 (job.py, picamera2.py): a capture is a job in a queue
    and gets the next frame; one that timed out stays there, swallows the next frame and keeps its
    buffer, until `cancel_all_and_flush`; without a free buffer no frame comes; after the release
    the memory is the camera's again; a wait of 0 means "do not wait"; `stop` hangs.
    """

    stride = 224

    def __init__(self):
        self.lock = threading.Lock()
        self.cameras = []
        self.controls = {"FrameDurationLimits": (1000, 1_000_000, 33_333)}
        self.sensor_ns = 1000
        self.connected = True
        self.opening = threading.Event()
        self.opening.set()
        self.closing = threading.Event()
        self.closing.set()
        self.job_queued = threading.Event()

    def deliver(self, sensor_ns=None):
        """One frame comes from the sensor, or as soon as somebody asks for one."""
        self.sensor_ns += 1000
        camera = self.cameras[-1]
        with self.lock:
            camera.coming.append(self.sensor_ns if sensor_ns is None else sensor_ns)
            camera.serve()

    def module(self):
        module = types.ModuleType("picamera2")
        begin = lambda camera, number=0: _Picamera2.__init__(camera, self, number)  # noqa: E731
        module.Picamera2 = type("Picamera2", (_Picamera2,), {"__init__": begin})
        module.MappedArray = _MappedArray
        return module


class _Picamera2:
    def __init__(self, ribbon, number):
        ribbon.opening.wait(HANG_S)
        if not ribbon.connected:
            raise RuntimeError(f"No camera number {number} found")
        if any(camera.is_open for camera in ribbon.cameras):
            raise RuntimeError("Camera __init__ sequence did not complete.")
        self.ribbon = ribbon
        self.is_open = True
        self.started = False
        self.jobs, self.coming = [], []
        self.camera_controls = ribbon.controls
        self.held = 0
        ribbon.cameras.append(self)

    def create_video_configuration(self, **asked):
        self.asked = asked
        return asked

    def configure(self, asked):
        width, height = asked["main"]["size"]
        # Odd widths are made even (align_stream).
        self.size = (width - width % 2, height - height % 2)
        self.buffers = asked["buffer_count"]

    def camera_configuration(self):
        return {
            "main": {"size": self.size, "stride": self.ribbon.stride},
            "lores": {"size": self.asked["lores"]["size"]},
        }

    def start(self):
        self.started = True

    def serve(self):
        while self.jobs and self.coming and self.held < self.buffers:
            self.held += 1
            self.jobs.pop(0).set_result(_Request(self, self.coming.pop(0)))

    @contextmanager
    def captured_request(self, wait=None, flush=None):
        assert self.started
        job = Future()
        with self.ribbon.lock:
            self.jobs.append(job)
            self.ribbon.job_queued.set()
            self.serve()
        request = job.result(timeout=wait) if wait else job
        try:
            yield request
        finally:
            request.release()

    def cancel_all_and_flush(self):
        with self.ribbon.lock:
            for job in self.jobs:
                job.set_exception(CancelledError())
            self.jobs = []

    def stop(self):
        raise AssertionError("stop hangs when the event thread is dead: call close")

    def close(self):
        assert self.held == 0, "closed while a frame was being copied"
        self.ribbon.closing.wait(HANG_S)
        self.is_open = False


class _Request:
    def __init__(self, camera, sensor_ns):
        self.camera, self.sensor_ns = camera, sensor_ns
        width, height = camera.size
        self.memory = np.full((height, camera.ribbon.stride), 255, np.uint8)
        level = sensor_ns // 1000 % 255
        self.memory[:, : width * 3] = np.tile([level, level + 1, level + 2], width) % 256

    def get_metadata(self):
        return {"SensorTimestamp": self.sensor_ns, "ExposureTime": 10_000}

    def release(self):
        with self.camera.ribbon.lock:
            self.memory[:] = 0
            self.camera.held -= 1
            self.camera.serve()


class _MappedArray:
    def __init__(self, request, stream, reshape=True, write=True):
        assert not write, "mapping for writing synchronises memory for nothing"
        if stream == "lores":
            # YUV420: three planes in one array, rows padded to the stride.
            width, height = request.camera.asked["lores"]["size"]
            self.array = np.full((height * 3 // 2, width + 64), request.memory[0, 0], np.uint8)
            return
        assert stream == "main"
        width, height = request.camera.size
        self.array = request.memory[:, : width * 3].reshape((height, width, 3))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        del self.array


@pytest.fixture
def patient():
    """A clock that costs nothing."""
    return PatientClock()


@pytest.fixture
def usb(monkeypatch):
    """A USB camera on a fake cable; every thread that reads it has ended afterwards."""
    cable = Usb()
    real = cv2.VideoCapture

    def capture(name, backend=0):
        return cable.capture(name, backend) if backend == cv2.CAP_V4L2 else real(name, backend)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    monkeypatch.setattr(v4l2, "_CLOSE_S", 0.2)
    yield cable
    cable.opening.set()
    cable.unplug()
    _join_readers()


@pytest.fixture
def ribbon(monkeypatch):
    """A Pi camera on a fake ribbon cable, with picamera2 importable."""
    cable = Ribbon()
    monkeypatch.setitem(sys.modules, "picamera2", cable.module())
    monkeypatch.setattr(picamera, "_CLOSE_S", 2.0)
    yield cable
    cable.opening.set()
    cable.closing.set()
    _join_readers()


def _join_readers():
    for thread in threading.enumerate():
        if thread.name.startswith(("read ", "open ", "close ")):
            thread.join(HANG_S)
            assert not thread.is_alive(), f"{thread.name} did not end"


@pytest.fixture
def background():
    """Runs a call in a thread; `.result(20)` is what it returned, or raises what it raised."""
    with ThreadPoolExecutor(2) as threads:
        yield threads.submit


@pytest.fixture
def played(patient):
    """All frames of a replay from beginning to end."""

    def play(settings, clock=None):
        camera = ReplayCamera(settings, clock or patient)
        camera.open()
        frames = []
        try:
            while True:
                frames.append(camera.read(5.0))
        except EndOfFrames:
            return frames

    return play


@pytest.fixture
def replay(patient):
    """Makes the settings of a replay of 64x48 frames at 10 a second."""

    def make(*entries, **changes):
        given = {"width": 64, "height": 48, "frames_per_s": 10.0, **changes}
        paths = [config.Replay(path=str(e)) if not hasattr(e, "gamma") else e for e in entries]
        return config.Camera(source="replay", replay=tuple(paths), **given)

    return make


@pytest.fixture
def folder_of(tmp_path):
    """Writes a folder of one-coloured images: name to grey level."""

    def make(name, levels, size=(64, 48)):
        folder = tmp_path / name
        folder.mkdir()
        for file, level in levels.items():
            pixels = np.full((size[1], size[0], 3), level, np.uint8)
            assert cv2.imwrite(str(folder / file), pixels)
        return folder

    return make


@pytest.fixture
def video_of(tmp_path):
    """Writes a video of one-coloured frames."""

    def make(name, levels, frames_per_s=10.0, size=(64, 48)):
        path = tmp_path / name
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), frames_per_s, size
        )
        assert writer.isOpened()
        for level in levels:
            writer.write(np.full((size[1], size[0], 3), level, np.uint8))
        writer.release()
        return path

    return make


@pytest.fixture
def frame_of():
    """Makes a frame whose pixels are all `level`."""

    def make(level):
        stamp = Stamp(level, level, "boot", Trust.SYNCED)
        return Frame(np.full((2, 2, 3), level, np.uint8), stamp, "test")

    return make
