"""USB cameras: what is asked for, what may go wrong, and that nothing waits for ever."""

import logging

import cv2
import numpy as np
import pytest

from kiosk import config
from kiosk.capture import v4l2
from kiosk.capture.v4l2 import V4L2Camera
from kiosk.clock import SystemClock
from kiosk.errors import CameraError


@pytest.fixture
def camera(usb):
    """A camera on the fake cable, opened; its path is a character device as the check wants."""
    made = V4L2Camera(config.Camera(source="v4l2", device="/dev/null"), SystemClock())
    made.open()
    yield made
    made.close()


def opened(device):
    made = V4L2Camera(config.Camera(source="v4l2", device=str(device)), SystemClock())
    made.open()
    return made


def test_format_is_asked_for_before_size(usb, camera):
    """Drivers choose sizes and rates by pixel format, so MJPG comes first."""
    assert usb.asked == [
        ("open", "/dev/null", cv2.CAP_V4L2),
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 10.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
        (cv2.CAP_PROP_CONVERT_RGB, 1.0),
    ]


def test_mjpg_is_decoded_here_and_only_as_far_as_needed(usb, monkeypatch):
    """Granted MJPG the driver's bytes are kept: nobody wants it, and only an eighth is decoded."""
    usb.granted_format, how, asked = "MJPG", [], []
    decode = cv2.imdecode
    monkeypatch.setattr(
        cv2, "imdecode", lambda data, flag: (how.append(flag), decode(data, flag))[1]
    )
    camera = opened("/dev/null")
    usb.deliver()

    def unwanted(grey):
        asked.append(grey.shape)
        return False

    assert camera.read(20.0, unwanted) is None
    assert (asked, how) == ([(6, 8)], [cv2.IMREAD_REDUCED_GRAYSCALE_8])
    usb.deliver()
    assert camera.read(20.0).pixels.shape == (48, 64, 3)
    camera.close()


def test_a_frame_counts_only_when_its_time_on_the_wire_advances(usb):
    """A driver that hands out the same buffer again delivers nothing new."""
    usb.wire_ms = 100.0
    camera = opened("/dev/null")
    usb.deliver()
    camera.read(20.0)
    usb.deliver()
    with pytest.raises(CameraError, match="a frame expected"):
        camera.read(0.2)
    usb.wire_ms = 133.0
    usb.deliver()
    assert camera.read(20.0) is not None
    camera.close()


def test_what_was_granted_is_told(usb, caplog):
    """`set` fails without a word: another size than asked for is a warning with the real one."""
    with caplog.at_level(logging.INFO):
        opened("/dev/null").close()
    told = [record for record in caplog.records if record.message == "camera.granted"]
    assert [record.levelname for record in told] == ["WARNING"]
    assert told[0].fields == {
        "device": "/dev/null",
        "format": "YUYV",
        "width": 64,
        "height": 48,
        "frames_per_s": 15.0,
    }


def test_the_newest_frame_is_read(usb, camera):
    """Frames that nobody read in time are dropped: what is read is now."""
    usb.hanging = True
    for _ in range(3):
        usb.deliver()
    for _ in range(2000):
        if usb.frames.empty():
            break
        usb.opening.clear()
        usb.opening.wait(0.005)
    usb.opening.set()
    usb.deliver_damaged()
    assert camera.read(20.0).pixels[0, 0, 0] == 3


def test_a_damaged_frame_is_passed_over(usb, camera):
    """First frames over USB are often torn; the next good one counts."""
    usb.deliver_damaged()
    usb.deliver()
    assert camera.read(20.0).pixels[0, 0, 0] == 1


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 2), np.uint8),
        np.zeros((48, 64, 3), np.uint16),
    ],
)
def test_pixels_of_another_form_are_refused(usb, camera, pixels):
    """A camera that ignores MJPG and delivers something raw is named, not looked at."""
    usb.deliver(pixels)
    with pytest.raises(CameraError, match=r"shape \(height, width, 3\), uint8, were expected"):
        camera.read(20.0)


def test_unplugging_ends_the_wait(usb, camera, background):
    """A vanished camera is an error at once, with what to check, and its device is let go."""
    reading = background(lambda: camera.read(30.0))
    usb.unplug()
    with pytest.raises(CameraError, match="unplugged") as caught:
        reading.result(20)
    assert "cable" in caught.value.hint
    assert usb.released.wait(20.0)


def test_an_error_of_opencv_is_the_cameras(usb, camera, monkeypatch):
    """What OpenCV raises out of a decoder ends as a CameraError, not as a dead thread."""

    def raises(_):
        raise cv2.error("decoder says no")

    monkeypatch.setattr("kiosk.capture.v4l2.FrameSlot.put", lambda *_: raises(None))
    usb.deliver()
    with pytest.raises(CameraError, match="decoder says no"):
        camera.read(20.0)


def test_a_driver_that_hangs_is_left_behind_and_named(usb, camera, caplog):
    """close returns although the driver never does; the journal says which call hangs."""
    usb.hanging = True
    usb.deliver_damaged()
    with pytest.raises(CameraError, match=r"none came within 0\.02 s"):
        camera.read(0.02)
    with caplog.at_level(logging.ERROR):
        camera.close()
    assert [record.fields["call"] for record in caplog.records] == ["read /dev/null"]
    assert not usb.released.is_set()
    usb.deliver()
    assert usb.released.wait(20.0), "a driver that comes back is not let go"


def test_a_driver_that_hangs_at_open_is_given_up(usb, monkeypatch):
    """Opening has a deadline too, and what opens too late is released again."""
    monkeypatch.setattr(v4l2, "_OPEN_S", 0.05)
    usb.opening.clear()
    with pytest.raises(CameraError, match="open /dev/null: expected to be done within"):
        opened("/dev/null")
    usb.opening.set()
    assert usb.released.wait(20.0)


def test_a_busy_camera_is_told(usb):
    """Not opened: it is no camera, or somebody else has it."""
    usb.unplug()
    with pytest.raises(CameraError, match="another program has it") as caught:
        opened("/dev/null")
    assert caught.value.hint


def test_a_device_that_is_no_camera_is_refused_by_opencv_itself():
    """Without any fake: /dev/null is a device and no camera."""
    with pytest.raises(CameraError, match="/dev/null: a V4L2 camera expected"):
        opened("/dev/null")


def test_a_missing_device_lists_the_stable_names(tmp_path, monkeypatch):
    """The hint names what is there below by-id, so that it can be copied into the config."""
    (tmp_path / "usb-Acme_Cam-video-index0").touch()
    monkeypatch.setattr(v4l2, "_STABLE", tmp_path)
    with pytest.raises(CameraError, match="nothing is there") as caught:
        opened("/dev/video-none")
    assert caught.value.hint.endswith("usb-Acme_Cam-video-index0")


def test_no_device_at_all_asks_for_the_plug(tmp_path, monkeypatch):
    """With nothing below by-id the hint says so."""
    monkeypatch.setattr(v4l2, "_STABLE", tmp_path / "absent")
    with pytest.raises(CameraError) as caught:
        opened("/dev/video-none")
    assert "is a camera plugged in?" in caught.value.hint


def test_a_file_is_no_device(tmp_path):
    """A video file belongs to the replay, and is not taken for a camera."""
    file = tmp_path / "walk.avi"
    file.touch()
    with pytest.raises(CameraError, match="it is not a device"):
        opened(file)


def test_a_device_of_somebody_else_names_the_group(usb, monkeypatch):
    """A permission that is missing is told apart from a camera that is missing."""
    monkeypatch.setattr(v4l2.os, "access", lambda *_: False)
    with pytest.raises(CameraError) as caught:
        opened("/dev/null")
    assert "group video" in caught.value.hint


def test_a_number_is_the_path_of_a_device(usb):
    """camera.device = "7" means /dev/video7."""
    with pytest.raises(CameraError, match="/dev/video77: "):
        opened("77")
