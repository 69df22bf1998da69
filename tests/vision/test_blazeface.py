"""What is looked at, when, and how what the network says comes back onto the picture."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.errors import ModelError
from kiosk.vision.anchors import anchors, decode
from kiosk.vision.blazeface import BlazeFace
from kiosk.vision.letterbox import letterbox
from kiosk.vision.manifest import InputSpec
from kiosk.vision.nms import ROW, overlap, weighted_nms
from kiosk.vision.tiles import tiles

SPEC = InputSpec("NCHW", "RGB", 128, 128, 127.5, 1 / 127.5)
ENTRY = SimpleNamespace(id="blobs-fp32", input=SPEC)


class Blobs:
    """A network that sees one white blob if it is `least` pixels of its canvas or larger."""

    outputs = ("scores", "regressors")

    def __init__(self, least=16.0, sure=24.0):
        self.least, self.sure = least, sure
        self.looks = 0
        self.centres = anchors(128)

    def run(self, batch):
        self.looks += 1
        scores = np.full((1, 896, 1), -20.0, np.float32)
        regressors = np.zeros((1, 896, 16), np.float32)
        y, x = np.nonzero(batch[0, 0] > 0)
        if len(x) and max(np.ptp(x), np.ptp(y)) + 1 >= self.least:
            middle = np.array([x.mean(), y.mean()]) + 0.5
            side = np.array([np.ptp(x), np.ptp(y)]) + 1.0
            anchor = int(np.abs(self.centres - middle).sum(axis=1).argmin())
            offset = middle - self.centres[anchor]
            points = [offset, side, *[offset + side * move for move in LANDMARKS]]
            regressors[0, anchor] = np.concatenate(points)
            scores[0, anchor] = 4.0 if max(side) >= self.sure else 0.0
        return [scores, regressors]


# Eyes, nose, mouth and ears of a blob, from its middle, in shares of its side.
LANDMARKS = np.array([(-0.2, -0.2), (0.2, -0.2), (0, 0.1), (0, 0.3), (-0.5, 0), (0.5, 0)])


def frame(width, height, *blobs):
    pixels = np.zeros((height, width, 3), np.uint8)
    for left, top, side in blobs:
        pixels[top : top + side, left : left + side] = 255
    pixels.flags.writeable = False
    return pixels


def boxes(detections):
    return [tuple(round(value) for value in found.box) for found in detections]


def test_anchors_are_those_of_the_short_range_model():
    """Two for each cell of 8 pixels, row by row, then six for each cell of 16: 896 in all."""
    centres = anchors(128)
    assert centres.shape == (896, 2)
    assert centres[:4].tolist() == [[4, 4], [4, 4], [12, 4], [12, 4]]
    assert centres[32].tolist() == [4, 12]
    assert centres[512:519].tolist() == [[8, 8]] * 6 + [[24, 8]]
    assert centres[-1].tolist() == [120, 120]


def test_decoding_follows_the_layout_of_the_regressors():
    """Centre, size, then landmarks, all relative to the anchor; the ears are left out."""
    regressors = np.zeros((896, 16), np.float32)
    regressors[5] = [1, 2, 10, 20, *range(100, 112)]
    logits = np.full(896, -5.0, np.float32)
    logits[5] = 0.0
    (row,) = decode(regressors, logits, anchors(128), 0.5)
    x, y = anchors(128)[5]
    assert row[:4].tolist() == [x + 1 - 5, y + 2 - 10, x + 1 + 5, y + 2 + 10]
    assert row[4:12].tolist() == [
        x + 100,
        y + 101,
        x + 102,
        y + 103,
        x + 104,
        y + 105,
        x + 106,
        y + 107,
    ]
    assert row[12] == 0.5


@pytest.mark.parametrize(("logit", "score"), [(1e30, 1.0), (-1e30, 0.0), (-1000.0, 0.0)])
def test_extreme_logits_do_not_overflow(logit, score):
    """They are clipped at 100 before the exponential; warnings are errors here."""
    logits = np.full(896, logit, np.float32)
    rows = decode(np.zeros((896, 16), np.float32), logits, anchors(128), 0.0 if score else 1e-12)
    assert set(rows[:, 12].tolist()) <= {score}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.data())
def test_the_letterbox_is_undone_exactly(width, height, data):
    """The corners of the scaled window come back onto the corners of the window, to 1e-3 pixels."""
    left = data.draw(st.integers(0, 50))
    top = data.draw(st.integers(0, 50))
    pixels = np.full((top + height, left + width, 3), 200, np.uint8)
    boxed = letterbox(pixels, (left, top, width, height), 128)
    y, x = np.nonzero(boxed.canvas[..., 0])
    corners = np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]], np.float32)
    expected = [[left, top], [left + width, top + height]]
    assert np.abs(boxed.to_picture(corners) - expected).max() < 1e-3
    assert max(np.ptp(x), np.ptp(y)) + 1 == 128


def test_suppression_is_the_mean_weighted_by_score():
    """MediaPipe's: boxes and landmarks of one face are averaged, its best score stays."""
    rows = np.zeros((3, ROW), np.float32)
    rows[0, :4], rows[0, 4], rows[0, 12] = (0, 0, 10, 10), 4, 0.9
    rows[1, :4], rows[1, 4], rows[1, 12] = (2, 0, 12, 10), 7, 0.6
    rows[2, :4], rows[2, 12] = (9, 0, 19, 10), 0.8
    assert overlap(rows[0], rows).tolist() == pytest.approx([1, 80 / 120, 10 / 190])
    first, second = weighted_nms(rows[[1, 2, 0]])
    assert first[:5].tolist() == pytest.approx([0.8, 0, 10.8, 10, 5.2], abs=1e-5)
    assert first[12] == np.float32(0.9)
    assert second.tolist() == rows[2].tolist()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 4, st.floats(0, 1, width=32)), max_size=12)
)
def test_suppression_of_anything(values):
    """Whatever boxes come, even turned inside out: no more rows than came, best score first."""
    rows = np.zeros((len(values), ROW), np.float32)
    for row, value in zip(rows, values, strict=True):
        row[:4], row[12] = value[:4], value[4]
    merged = weighted_nms(rows)
    assert len(merged) <= len(rows)
    assert np.isfinite(merged).all()
    assert (len(merged) == 0) == (len(rows) == 0)
    if len(merged) > 1:
        assert (np.diff(merged[:, 12]) <= 0).all()


def test_a_large_face_needs_one_look():
    """From 28 % of the frame on nothing is looked at twice, in stills and live."""
    network = Blobs()
    detector = BlazeFace(ENTRY, network)
    pixels = frame(640, 480, (100, 80, 240))
    assert boxes(detector.detect(pixels)) == boxes(detector.glance(pixels)) == [(100, 80, 240, 240)]
    assert network.looks == 2


def test_a_small_face_is_placed_by_a_second_look():
    """One canvas pixel is five of the frame; after the second look the box is right to one."""
    network = Blobs()
    (found,) = BlazeFace(ENTRY, network).glance(frame(640, 480, (203, 151, 97)))
    assert network.looks == 2
    assert np.abs(np.array(found.box) - (203, 151, 97, 97)).max() <= 1.5
    expected = np.array((203, 151)) + 97 * (0.5 + LANDMARKS[:4])
    assert np.abs(found.landmarks - expected).max() <= 1.5
    assert not found.landmarks.flags.writeable


def test_what_the_second_look_does_not_confirm_is_dropped():
    """A candidate that scores one half at its best size, where faces score more, is no face."""
    pixels = frame(640, 480, (203, 151, 97))
    assert BlazeFace(ENTRY, Blobs(sure=20.0)).glance(pixels)
    assert not BlazeFace(ENTRY, Blobs(sure=1000.0)).glance(pixels)


def test_tiles_run_only_when_a_still_shows_no_large_face():
    """A large face: one look. A small one, or nobody: all tiles. A small picture: never."""
    for pixels, expected in (
        (frame(1280, 720, (100, 80, 500)), 1),
        (frame(1280, 720), 1 + len(tiles(1280, 720))),
        (frame(400, 300), 1),
    ):
        network = Blobs()
        BlazeFace(ENTRY, network).detect(pixels)
        assert network.looks == expected


def test_a_face_that_only_tiles_show_is_found_once():
    """40 pixels of 1280: below the network's reach on the whole, on two tiles at once in places."""
    pixels = frame(1280, 720, (820, 450, 44))
    inside = [
        w for w in tiles(1280, 720) if 0 < 820 - w[0] < w[2] - 44 and 0 < 450 - w[1] < w[3] - 44
    ]
    assert len(inside) >= 2
    assert not BlazeFace(ENTRY, Blobs()).glance(pixels)
    (found,) = BlazeFace(ENTRY, Blobs()).detect(pixels)
    assert np.abs(np.array(found.box) - (820, 450, 44, 44)).max() <= 1.0


def test_an_empty_live_frame_costs_three_looks():
    """The whole and two tiles, however many tiles there are."""
    network = Blobs()
    detector = BlazeFace(ENTRY, network)
    for _ in range(30):
        detector.glance(frame(1280, 720))
    assert network.looks == 90


@pytest.mark.parametrize("place", [(5, 5), (610, 300), (1230, 670)])
def test_live_tiles_take_turns_and_stay_with_a_face(place):
    """Wherever it is, a small face is found within one round of the tiles, and then kept."""
    detector = BlazeFace(ENTRY, Blobs())
    pixels = frame(1280, 720, (*place, 44))
    rounds = -(-len(tiles(1280, 720)) // 2)
    seen = [bool(detector.glance(pixels)) for _ in range(rounds + 6)]
    assert all(seen[seen.index(True) :])
    assert seen.index(True) < rounds


def test_known_faces_are_followed_for_three_frames():
    """Whole and second look, then three times one look, then the whole again."""
    network = Blobs()
    detector = BlazeFace(ENTRY, network)
    looks = []
    for step in range(8):
        before = network.looks
        (found,) = detector.glance(frame(640, 480, (200 + 9 * step, 150, 97)))
        assert abs(found.box[0] - (200 + 9 * step)) <= 1.5
        looks.append(network.looks - before)
    assert looks == [2, 1, 1, 1, 2, 1, 1, 1]


def test_a_face_that_left_is_searched_for_at_once():
    """A followed face that is not where it was sends the very same frame to the whole look."""
    detector = BlazeFace(ENTRY, Blobs())
    assert detector.glance(frame(640, 480, (30, 30, 97)))
    (found,) = detector.glance(frame(640, 480, (450, 300, 97)))
    assert abs(found.box[0] - 450) <= 1.5
    assert not detector.glance(frame(640, 480))
    assert detector.glance(frame(320, 240, (30, 30, 60)))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3000, 2), (129, 1)])
def test_pictures_of_any_shape(size):
    """No size is too small or too narrow to be looked at."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    detector = BlazeFace(ENTRY, Blobs())
    detector.detect(pixels)
    detector.glance(pixels)


def test_a_model_that_is_no_detector_is_refused():
    """Outputs of other names, or an input that is not square."""
    network = Blobs()
    network.outputs = ("embedding",)
    with pytest.raises(ModelError, match="regressors"):
        BlazeFace(ENTRY, network)
    wide = SimpleNamespace(id="wide-fp32", input=InputSpec("NCHW", "RGB", 128, 96, 0.0, 1.0))
    with pytest.raises(ModelError, match="square"):
        BlazeFace(wide, Blobs())
