"""A still that walks up: near and far, blurred while it moves, and a face that is found."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk import config
from kiosk.capture import walkup
from kiosk.capture.walkup import Still, Wall, walk_up
from kiosk.demo.stage import CAST, PEOPLE
from kiosk.vision.blazeface import BlazeFace
from kiosk.vision.manifest import load_manifest
from kiosk.vision.session import Session

SIZE = (160, 120)


@pytest.fixture
def wall():
    """An empty wall of 160x120."""
    return Wall(*SIZE, np.random.default_rng(1))


def walked(pixels, wall, *, seconds=5.0, zoom=2.0, seed=3, focus=(0.5, 0.5)):
    """Every frame of a walk-up at ten a second."""
    still = Still(pixels, focus, zoom, SIZE)
    rng = np.random.default_rng(seed)
    return list(walk_up(still, wall, seconds=seconds, frames_per_s=10.0, rng=rng))


def magenta():
    """A picture in a colour that no wall has."""
    return np.full((240, 80, 3), (255, 0, 255), np.uint8)


def covered(frame):
    """The share of a frame that is magenta."""
    channels = frame.astype(int)
    return float((channels[:, :, 2] - channels[:, :, 1] > 60).mean())


def test_somebody_comes_nearer_stands_and_leaves(wall):
    """Nobody at first, then larger and larger, then steady, then smaller and nobody again."""
    shares = [covered(frame) for frame in walked(magenta(), wall)]
    assert shares[0] == 0.0
    assert shares[5] < shares[12] < shares[20] < shares[25]
    standing = shares[25:36]
    assert max(standing) - min(standing) < 0.05
    assert shares[25] > 1.7 * shares[5]
    assert shares[38] > shares[44] > shares[49]


def test_nobody_jumps(wall):
    """From frame to frame the size changes by little, so that a face can be followed."""
    shares = [covered(frame) for frame in walked(magenta(), wall)][5:46]
    assert all(one / two < 1.35 and two / one < 1.35 for one, two in itertools.pairwise(shares))


def test_the_focus_comes_to_stand_where_a_person_looks(wall):
    """The point of the still that `focus` names ends a little above the middle of the frame."""
    pixels = np.full((240, 160, 3), 60, np.uint8)
    cv2.circle(pixels, (112, 48), 9, (0, 0, 255), -1)
    near = walked(pixels, wall, zoom=3.0, focus=(112 / 160, 48 / 240))[28].astype(int)
    ys, xs = np.nonzero(near[:, :, 2] - near[:, :, 1] > 60)
    assert abs(xs.mean() / SIZE[0] - 0.5) < 0.03
    assert abs(ys.mean() / SIZE[1] - 0.42) < 0.03


def test_zoom_is_how_much_nearer_it_comes(wall):
    """The linear size near over the size far is `zoom`."""
    still = Still(magenta(), (0.5, 0.5), 2.5, SIZE)
    assert still.near / still.far == pytest.approx(2.5)
    assert still.far == pytest.approx(120 / 240)


def test_motion_blurs(wall, monkeypatch):
    """While the shutter is open a walking person smears; one who stands stays sharp."""
    blocks = np.random.default_rng(5).integers(0, 255, (60, 40, 3))
    pixels = np.repeat(np.repeat(blocks, 4, 0), 4, 1).astype(np.uint8)

    def sharpness(frames):
        grey = [cv2.cvtColor(frame[30:90, 50:110], cv2.COLOR_BGR2GRAY) for frame in frames]
        return float(np.mean([cv2.Laplacian(each, cv2.CV_32F).var() for each in grey]))

    blurred = walked(pixels, wall, zoom=4.0)
    monkeypatch.setattr(walkup, "_EXPOSURE_S", 1e-6)
    frozen = walked(pixels, wall, zoom=4.0)
    assert sharpness(blurred[39:44]) < 0.85 * sharpness(frozen[39:44])
    assert sharpness(blurred[27:34]) > 0.9 * sharpness(frozen[27:34])


def test_the_light_changes_while_somebody_is_there(wall):
    """The same grey is lighter and darker in turn; the empty wall before and after is not."""
    grey = np.full((480, 320, 3), 120, np.uint8)
    frames = walked(grey, wall, seconds=8.0, zoom=3.0)
    levels = [float(frame[40:60, 70:90].mean()) for frame in frames[25:65]]
    assert max(levels) / min(levels) > 1.08
    empty = wall.empty(np.random.default_rng(0)).astype(int)
    assert abs(int(frames[0].astype(int).mean()) - int(empty.mean())) <= 1


def test_the_wall_is_dim_and_noisy(wall):
    """Nobody stands before a plain wall: no edges in it but the sensor's noise."""
    one, two = (wall.empty(np.random.default_rng(seed)) for seed in (1, 2))
    assert 60 < one.mean() < 110
    noise = (one.astype(int) - two).std() / 2**0.5
    assert 1.0 < noise < 3.0
    smooth = cv2.GaussianBlur(one.astype(np.float32), (0, 0), 6)
    assert np.abs(np.diff(smooth, axis=0)).max() < 1.0
    assert np.abs(np.diff(smooth, axis=1)).max() < 1.0


def test_a_distant_picture_lies_where_a_near_one_would():
    """Reduced copies of the still are drawn without a shift: nobody hops when one takes over."""
    pixels = np.zeros((1600, 1600, 3), np.uint8)
    pixels[700:900, 1000:1200] = 255
    still = Still(pixels, (0.5, 0.5), 8.0, (200, 200))
    for scale in (0.13, 0.2, 0.26, 0.45, 0.6, 0.9):
        shift = 100 - scale * np.array([1100, 800])
        matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
        drawn = still.drawn(matrix, (200, 200))[:, :, 0].astype(float)
        ys, xs = np.mgrid[:200, :200]
        middle = ((drawn * xs).sum() / drawn.sum(), (drawn * ys).sum() / drawn.sum())
        assert middle == pytest.approx((99.5, 99.5), abs=0.3), scale


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    zoom=st.floats(1.0, 8.0),
    seconds=st.floats(0.5, 3.0),
    rate=st.floats(0.5, 30.0),
    focus=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_any_picture_walks_up(height, width, zoom, seconds, rate, focus):
    """Whatever the configuration allows gives at least two whole frames and no warning."""
    wall = Wall(64, 48, np.random.default_rng(0))
    still = Still(np.full((height, width, 3), 200, np.uint8), focus, zoom, (64, 48))
    rng = np.random.default_rng(1)
    frames = list(walk_up(still, wall, seconds=seconds, frames_per_s=rate, rng=rng))
    assert len(frames) == max(2, round(seconds * rate))
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((48, 64, 3), "uint8")}


@pytest.fixture(scope="module")
def detector():
    """The product's own face detector."""
    entry = load_manifest().get("blazeface-short-fp32", "detector")
    return BlazeFace(entry, Session(entry, 1))


@pytest.mark.parametrize("walk", CAST, ids=lambda walk: walk.person)
def test_a_face_is_found_on_the_way_and_none_in_the_gaps(walk, detector, played):
    """In 640x480 the near face is 120 to 200 px high; before and after there is nobody."""
    entry = config.Replay(path=str(PEOPLE / walk.file), **walk.changes)
    frames = played(config.Camera(source="replay", width=640, height=480, replay=(entry,)))
    boxes = [[d.box for d in detector.detect(frame.pixels)] for frame in frames[::4]]
    heights = [max((box[3] for box in found), default=0.0) for found in boxes]
    before, there, after = heights[:8], heights[8:20], heights[20:]
    assert not any(before)
    assert not any(after)
    assert all(there)
    assert 120 <= max(there) <= 200
    assert there[0] < 0.75 * max(there)
    assert there[-1] < 0.75 * max(there)
