"""One alignment: least squares without reflection, and no noise carried into large faces."""

import cv2
import numpy as np
import pytest

from kiosk.vision.align import TEMPLATE, LandmarksError, align, similarity


def test_the_fit_is_the_least_of_all():
    """Any other rotation, scale or shift nearby leaves a larger squared distance."""
    rng = np.random.default_rng(4)
    points = TEMPLATE * 1.7 + 30 + rng.normal(0, 3, TEMPLATE.shape)
    best = similarity(points)

    def distance(matrix):
        return ((points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2).sum()

    for _ in range(50):
        a, b, x, y = rng.normal(0, 1e-3, 4)
        other = best + np.array([[a, -b, x], [b, a, y]])
        assert distance(other) > distance(best)


@pytest.mark.parametrize(
    "points",
    [
        TEMPLATE * (-1, 1),
        TEMPLATE * (1, -1),
        np.full((4, 2), 7.0),
        np.full((4, 2), np.nan),
        TEMPLATE + np.array([[np.inf, 0], [0, 0], [0, 0], [0, 0]]),
        TEMPLATE[:3],
    ],
    ids=["mirrored", "upside-down mirrored", "one point", "nan", "inf", "three points"],
)
def test_what_no_face_has_is_refused(points):
    """Mirrored, coinciding or missing landmarks are an error by name, never a wild crop."""
    with pytest.raises(LandmarksError, match="landmarks"):
        similarity(points.astype(np.float32))


def test_a_head_upside_down_is_turned():
    """Turning is not mirroring: half a turn is undone."""
    matrix = similarity((-TEMPLATE).astype(np.float32))
    assert matrix[:, :2] == pytest.approx(-np.eye(2), abs=1e-6)


def test_the_picture_is_only_read_and_what_lies_beyond_is_black():
    """Frames are shared between threads: a read-only one is taken, and not written to."""
    pixels = np.full((60, 60, 3), 200, np.uint8)
    pixels.flags.writeable = False
    crop = align(pixels, TEMPLATE.astype(np.float32))
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    assert (crop[:59, :59] == 200).all()
    assert (crop[61:] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 2.5, 4.0, 9.0])
def test_size_does_not_move_the_face(scale):
    """A blurred picture and its enlargement give the same crop, to a grey level in the mean."""
    rng = np.random.default_rng(8)
    small = cv2.GaussianBlur(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8), (0, 0), 6)
    small = cv2.normalize(small, None, 0, 255, cv2.NORM_MINMAX)
    side = round(112 * scale)
    large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    # The middles of pixels: (x + 1/2) * scale - 1/2.
    points = (TEMPLATE + 0.5) * (side / 112) - 0.5
    crop = align(large, points.astype(np.float32))
    inner = np.abs(crop[4:-4, 4:-4].astype(int) - small[4:-4, 4:-4])
    assert inner.mean() < 1.0


def test_noise_of_a_large_face_is_averaged():
    """Four times the crop's size: a single sample would keep half of the noise and more."""
    rng = np.random.default_rng(9)
    noisy = np.clip(128 + rng.normal(0, 20, (448, 448, 3)), 0, 255).astype(np.uint8)
    points = ((TEMPLATE + 0.3) * 4).astype(np.float32)
    single = cv2.warpAffine(noisy, similarity(points), (112, 112), flags=cv2.INTER_LINEAR)
    assert single[4:-4, 4:-4].std() > 10
    assert align(noisy, points)[4:-4, 4:-4].std() < 8
