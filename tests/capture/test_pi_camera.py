"""The Pi camera: picamera2 asked as it must be, its traps avoided."""

import builtins
import logging
import sys

import numpy as np
import pytest

from kiosk import config
from kiosk.capture import picamera
from kiosk.capture.picamera import PiCamera
from kiosk.clock import SystemClock
from kiosk.errors import CameraError


def made(**changes):
    given = {"width": 64, "height": 48, "frames_per_s": 20.0, **changes}
    return PiCamera(config.Camera(source="picamera2", **given), SystemClock())


@pytest.fixture
def camera(ribbon):
    """A camera on the fake ribbon cable, opened."""
    camera = made()
    camera.open()
    yield camera
    camera.close()


def test_it_is_configured_once_for_an_endless_loop(ribbon, camera):
    """BGR in memory, no raw stream, four buffers, always the next frame, nothing displayed."""
    assert ribbon.cameras[0].asked == {
        "main": {"size": (64, 48), "format": "RGB888"},
        "lores": {"size": (256, 144), "format": "YUV420"},
        "raw": None,
        "buffer_count": 4,
        "queue": False,
        "display": None,
        "encode": None,
        "controls": {"FrameDurationLimits": (50_000, 50_000)},
    }
    assert ribbon.cameras[0].started


def test_padding_is_cropped(ribbon, camera):
    """Rows are padded to the hardware's stride; the frame has the granted size and order BGR."""
    assert ribbon.stride > 3 * 64
    ribbon.deliver()
    pixels = camera.read(20.0).pixels
    assert pixels.shape == (48, 64, 3)
    assert np.array_equal(np.unique(pixels.reshape(-1, 3), axis=0), [[2, 3, 4]])


def test_an_odd_width_is_what_the_hardware_granted(ribbon):
    """libcamera makes odd sizes even: frames have the granted size."""
    camera = made(width=65)
    camera.open()
    ribbon.deliver()
    assert camera.read(20.0).pixels.shape == (48, 64, 3)
    camera.close()


def test_buffers_are_always_given_back(ribbon, camera):
    """More frames than buffers can be read: each request is released."""
    for _ in range(12):
        ribbon.deliver()
        camera.read(20.0)
    assert ribbon.cameras[0].held == 0


def test_an_abandoned_capture_swallows_the_next_frame(ribbon, camera):
    """The trap itself: after a time-out without a flush a frame and its buffer are lost."""
    raw = ribbon.cameras[0]
    with pytest.raises(TimeoutError), raw.captured_request(wait=0.01):
        pass
    ribbon.deliver()
    with pytest.raises(TimeoutError), raw.captured_request(wait=0.01):
        pass
    assert raw.held == 1
    raw.cancel_all_and_flush()
    raw.held = 0


def test_a_missed_deadline_leaves_nothing_behind(ribbon, camera):
    """The safeguard: after any number of time-outs the next frame is read, no buffer is lost."""
    for _ in range(8):
        with pytest.raises(CameraError, match=r"a new frame within 0\.01 s expected, none came"):
            camera.read(0.01)
        assert ribbon.cameras[0].jobs == []
    ribbon.deliver()
    camera.read(20.0)
    assert ribbon.cameras[0].held == 0


def test_a_frame_counts_only_when_its_sensor_time_advances(ribbon, camera):
    """A frozen pipeline goes on delivering the same frame: that is no frame."""
    ribbon.deliver(sensor_ns=5_000)
    camera.read(20.0)
    for stale in (5_000, 5_000, 4_000):
        ribbon.deliver(sensor_ns=stale)
    with pytest.raises(CameraError, match=r"only such with an old sensor time came|none came"):
        camera.read(0.1)
    ribbon.deliver(sensor_ns=5_000)
    ribbon.deliver(sensor_ns=9_000)
    assert camera.read(20.0).pixels[0, 0, 0] == 9


def test_an_error_while_copying_is_the_cameras(ribbon, camera, monkeypatch):
    """What picamera2 raises at a read ends as a CameraError, and the buffer is given back."""

    def broken(*_, **__):
        raise RuntimeError("failed to find buffer")

    monkeypatch.setattr(camera._session, "_mapped_array", broken)
    ribbon.deliver()
    with pytest.raises(CameraError, match="failed to find buffer"):
        camera.read(20.0)
    assert ribbon.cameras[0].held == 0


def test_closing_waits_for_a_frame_being_copied(ribbon, camera, background):
    """The memory is unmapped only after the reader let go; the fake refuses anything else."""
    reading = background(lambda: camera.read(30.0))
    assert ribbon.job_queued.wait(20.0)
    camera.close()
    with pytest.raises(CameraError, match="the camera was closed"):
        reading.result(20)
    assert not ribbon.cameras[0].is_open


def test_a_close_that_hangs_has_a_deadline(ribbon, caplog, monkeypatch):
    """libcamera may block in the kernel for ever: the kiosk goes on and names it."""
    monkeypatch.setattr(picamera, "_CLOSE_S", 0.05)
    camera = made()
    camera.open()
    ribbon.closing.clear()
    with caplog.at_level(logging.WARNING):
        camera.close()
    assert [record.message for record in caplog.records] == ["camera.stuck", "camera.not_closed"]


def test_an_open_that_hangs_has_a_deadline(ribbon, monkeypatch):
    """What opens too late is closed again, so that the next attempt finds the camera free."""
    monkeypatch.setattr(picamera, "_OPEN_S", 0.05)
    ribbon.opening.clear()
    camera = made()
    with pytest.raises(CameraError, match="open picamera2:0: expected to be done within"):
        camera.open()
    ribbon.opening.set()
    monkeypatch.setattr(picamera, "_OPEN_S", 20.0)
    for _ in range(1000):
        if ribbon.cameras and not ribbon.cameras[0].is_open:
            break
        ribbon.job_queued.wait(0.01)
    camera.open()
    camera.close()


def test_a_start_that_fails_lets_the_camera_go(ribbon, monkeypatch):
    """A camera that was opened and cannot be configured is closed, or it could not open again."""
    from picamera2 import Picamera2

    kind = type(Picamera2(0))
    ribbon.cameras.pop().close()
    with monkeypatch.context() as patch:
        patch.setattr(kind, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no memory")))
        camera = made()
        with pytest.raises(CameraError, match="cannot be started: no memory"):
            camera.open()
    camera.open()
    camera.close()


def test_a_camera_that_is_not_there_is_told(ribbon):
    """No camera on the connector: what was expected and what to check."""
    ribbon.connected = False
    with pytest.raises(CameraError, match="No camera number 1 found") as caught:
        made(device="1").open()
    assert "ribbon cable" in caught.value.hint


def test_a_device_path_is_refused_for_a_pi_camera(ribbon):
    """A path belongs to source v4l2, and the hint says so."""
    with pytest.raises(CameraError, match="a camera number expected") as caught:
        made(device="/dev/video0").open()
    assert "v4l2" in caught.value.hint


def test_a_missing_library_names_its_package(monkeypatch):
    """picamera2 comes from the operating system: the error says which package."""
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    real = builtins.__import__

    def without(name, *rest, **kinds):
        if name.split(".")[0] == "picamera2":
            raise ModuleNotFoundError("No module named 'picamera2'")
        return real(name, *rest, **kinds)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CameraError, match="picamera2 expected, No module") as caught:
        made().open()
    assert "python3-picamera2" in caught.value.hint
