"""Replays: what is read, in which order, how it is paced, and what bad input says."""

import itertools
import logging
import struct

import cv2
import numpy as np
import pytest

from kiosk import config
from kiosk.capture.camera import EndOfFrames
from kiosk.capture.replay import ReplayCamera
from kiosk.clock import NS_PER_S, SystemClock
from kiosk.errors import CameraError

GAP = 30  # three seconds at ten frames a second


def middles(frames):
    """The middle pixel's blue value of each frame."""
    return [int(f.pixels[f.pixels.shape[0] // 2, f.pixels.shape[1] // 2, 0]) for f in frames]


def test_a_folder_is_read_in_natural_order(played, replay, folder_of):
    """Numbers in names are numbers; notes and hidden files are no images; each is one frame."""
    levels = {f"frame-{number}.png": 100 + number for number in range(1, 13)}
    folder = folder_of("walk", levels)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"not an image")
    (folder / "below.png").mkdir()
    frames = played(replay(folder))
    assert len(frames) == GAP + 12 + GAP
    assert middles(frames[GAP:-GAP]) == list(range(101, 113))


def test_a_video_is_read_frame_by_frame(played, replay, video_of):
    """Every frame of the file is one frame, in order."""
    levels = list(range(20, 220, 20))
    frames = played(replay(video_of("walk.avi", levels)))
    seen = middles(frames[GAP:-GAP])
    assert len(seen) == len(levels)
    assert np.abs(np.array(seen) - levels).max() <= 3


@pytest.mark.parametrize("name", ["file:walk.avi", "walk%03d.avi", "wälk up.avi"])
def test_a_video_may_have_any_name(played, replay, video_of, name):
    """A colon is no protocol and a percent sign no pattern."""
    video = video_of("plain.avi", [50, 60])
    video.rename(video.with_name(name))
    assert len(played(replay(video.with_name(name)))) == GAP + 2 + GAP


def test_a_video_of_another_rate_is_told(replay, video_of, patient, caplog):
    """It plays at the camera's rate whatever the file claims, and the journal says so."""
    camera = ReplayCamera(
        replay(video_of("fast.avi", [1, 2], 30.0), video_of("right.avi", [1, 2], 10.0)), patient
    )
    with caplog.at_level(logging.WARNING):
        camera.open()
    assert [record.fields for record in caplog.records] == [
        {"entry": 0, "video_frames_per_s": 30.0, "frames_per_s": 10.0}
    ]


def test_each_entry_is_a_visit(played, replay, folder_of):
    """Between two entries, before the first and after the last the wall is empty for 3 s."""
    one, two = folder_of("one", {"a.png": 250}), folder_of("two", {"a.png": 251})
    there = [level > 200 for level in middles(played(replay(one, two)))]
    runs = [(key, len(list(group))) for key, group in itertools.groupby(there)]
    assert runs == [(False, GAP), (True, 1), (False, GAP), (True, 1), (False, GAP)]


def test_it_replays_as_often_as_asked(played, replay, folder_of):
    """replay_loops counts whole lists."""
    folder = folder_of("one", {"a.png": 250})
    levels = middles(played(replay(folder, replay_loops=3)))
    assert sum(level == 250 for level in levels) == 3
    assert len(levels) == 3 * (GAP + 1) + GAP


def test_it_replays_for_ever_when_asked(replay, folder_of, patient):
    """replay_loops = 0 does not end."""
    camera = ReplayCamera(replay(folder_of("one", {"a.png": 250}), replay_loops=0), patient)
    camera.open()
    levels = middles([camera.read(5.0) for _ in range(40 * (GAP + 1))])
    assert levels.count(250) == 40


def test_the_end_stays_the_end(replay, folder_of, patient):
    """After the end every read says so again; opened anew it begins again."""
    camera = ReplayCamera(replay(folder_of("one", {"a.png": 250})), patient)
    for _ in range(2):
        camera.open()
        for _ in range(GAP + 1 + GAP):
            camera.read(5.0)
        for _ in range(3):
            with pytest.raises(EndOfFrames, match="the replay is over"):
                camera.read(5.0)


def test_frames_come_at_the_cameras_rate(replay, folder_of, patient):
    """Not faster than frames_per_s on the clock, the first at once."""
    camera = ReplayCamera(replay(folder_of("one", {"a.png": 9}), frames_per_s=4.0), patient)
    begun = patient.ns
    camera.open()
    for _ in range(9):
        camera.read(5.0)
    assert patient.ns - begun == 8 * NS_PER_S // 4


def test_a_late_reader_gets_no_burst(replay, folder_of, patient):
    """Somebody who slept for a minute goes on at the usual pace."""
    camera = ReplayCamera(replay(folder_of("one", {"a.png": 9})), patient)
    camera.open()
    camera.read(5.0)
    patient.ns += 60 * NS_PER_S
    camera.read(5.0)
    begun = patient.ns
    for _ in range(5):
        camera.read(5.0)
    assert patient.ns - begun == 5 * NS_PER_S // 10


def test_a_clock_that_does_not_wait_replays_unpaced(played, replay, folder_of):
    """A measurement over many frames hands in such a clock; no deadline is then missed."""

    class Hurried(SystemClock):
        def wait(self, event, timeout_s):
            return event.is_set()

    folder = folder_of("one", {"a.png": 9})
    frames = played(replay(folder, replay_loops=40, frames_per_s=0.5), Hurried())
    assert len(frames) == 40 * (2 + 1) + 2


def test_a_picture_is_fitted_whole_and_undistorted(played, replay, folder_of):
    """A wide picture gets black bars above and below, a tall one at its sides."""
    wide, tall = folder_of("w", {"a.png": 255}, (40, 15)), folder_of("t", {"a.png": 255}, (3, 9))
    frames = played(replay(wide, tall))
    first, second = frames[GAP].pixels, frames[GAP + 1 + GAP].pixels
    assert first.shape == second.shape == (48, 64, 3)
    assert (first[:, 32].min(axis=1) > 128).sum() == 24
    assert (first[24].min(axis=1) > 128).all()
    assert (second[24].min(axis=1) > 128).sum() == 16
    assert (second[:, 32].min(axis=1) > 128).all()


def test_an_entry_is_mirrored_relit_and_recompressed(played, replay, tmp_path):
    """mirror swaps left and right, gamma above 1 brightens, a low quality leaves its marks."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32] = (40, 90, 160)
    folder = tmp_path / "walk"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), pixels)

    def first(**changes):
        return played(replay(config.Replay(path=str(folder), **changes)))[GAP].pixels

    assert np.array_equal(first(), pixels)
    assert np.array_equal(first(mirror=True), pixels[:, ::-1])
    brighter, darker = first(gamma=2.0), first(gamma=0.5)
    assert brighter[0, 0].tolist() == [round(255 * (v / 255) ** 0.5) for v in (40, 90, 160)]
    assert darker[0, 0].tolist() == [round(255 * (v / 255) ** 2) for v in (40, 90, 160)]
    assert first(gamma=2.0)[0, 63].tolist() == [0, 0, 0]
    worse, better = first(jpeg_quality=5), first(jpeg_quality=95)
    errors = [int(np.abs(p.astype(int) - pixels).sum()) for p in (worse, better)]
    assert errors[0] > errors[1] > 0


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPEG", ".bin"])
def test_a_still_is_an_image_by_name_or_by_content(played, replay, tmp_path, suffix):
    """A lone image becomes a walk-up of `seconds`, whatever its name ends in."""
    file = tmp_path / f"still{suffix}"
    kind = ".png" if suffix == ".bin" else suffix.lower()
    cv2.imencode(kind, np.full((90, 60, 3), 250, np.uint8))[1].tofile(file)
    frames = played(replay(config.Replay(path=str(file), seconds=2.0)))
    assert len(frames) == GAP + 20 + GAP
    assert max(middles(frames)) > 200


def test_a_photograph_is_turned_upright(played, replay, tmp_path):
    """The orientation in a JPEG's EXIF data is followed, as phones rely on it."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    folder = tmp_path / "walk"
    folder.mkdir()
    marked = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    (folder / "a.jpg").write_bytes(marked)
    upright = played(replay(folder))[GAP].pixels
    # Turned by a quarter clockwise: what was right is now below.
    assert upright[40, 32].min() > 200
    assert upright[8, 32].max() < 50


def test_the_same_seed_gives_the_same_bytes(replay, people, patient, played):
    """Same seed, same bytes, also after opening again; another seed, other bytes."""
    entry = config.Replay(path=str(people / "collins.jpg"), seconds=1.0, jpeg_quality=70)

    def bytes_of(seed):
        return [f.pixels.tobytes() for f in played(replay(entry, entry, replay_seed=seed))]

    one = bytes_of(7)
    assert one == bytes_of(7)
    other = bytes_of(8)
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert one[GAP : GAP + 10] != one[GAP + 10 + GAP : GAP + 20 + GAP]


def test_no_two_frames_are_the_same(played, replay, people):
    """Even the empty wall has a sensor's noise: a frozen camera looks different from a replay."""
    entry = config.Replay(path=str(people / "collins.jpg"), seconds=2.0)
    frames = [f.pixels.tobytes() for f in played(replay(entry))]
    assert all(one != two for one, two in itertools.pairwise(frames))


def bad_paths(folder):
    """Name, path and what the error must say."""
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("nothing to see")
    (folder / "zero.jpg").touch()
    (folder / "text.png").write_text("this is no picture")
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (folder / "damaged").mkdir()
    cv2.imwrite(str(folder / "damaged" / "1.png"), np.zeros((9, 9, 3), np.uint8))
    (folder / "damaged" / "2.png").write_text("this is no picture")
    return {
        "missing": "a file or folder expected, nothing is there",
        "empty": "images .* expected, none found",
        "zero.jpg": "an image expected, it cannot be decoded",
        "text.png": "an image expected, it cannot be decoded",
        "noise.mp4": "a video expected, no frame of it can be decoded",
        "damaged": "2.png: an image expected, it cannot be decoded",
        "n" * 300: "cannot be read: File name too long",
    }


@pytest.mark.parametrize(
    "name",
    ["missing", "empty", "zero.jpg", "text.png", "noise.mp4", "damaged", "n" * 300],
    ids=lambda name: name[:10],
)
def test_bad_input_is_named_at_open(replay, tmp_path, patient, name, folder_of):
    """Every path is looked at before the first frame; the error names it and says what to do."""
    said = bad_paths(tmp_path)[name]
    good = folder_of("good", {"a.png": 1})
    camera = ReplayCamera(replay(good, tmp_path / name), patient)
    with pytest.raises(CameraError, match=said) as caught:
        camera.open()
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("change", ["damage", "remove"])
def test_a_file_that_goes_bad_on_the_way_is_no_end(replay, folder_of, patient, change):
    """A replay that broke off does not claim to be over."""
    folder = folder_of("walk", {"1.png": 1, "2.png": 2})
    camera = ReplayCamera(replay(folder), patient)
    camera.open()
    for _ in range(GAP + 1):
        camera.read(5.0)
    if change == "damage":
        (folder / "2.png").write_text("overwritten")
    else:
        (folder / "2.png").unlink()
    for _ in range(2):
        with pytest.raises(CameraError) as caught:
            camera.read(5.0)
        assert not isinstance(caught.value, EndOfFrames)
