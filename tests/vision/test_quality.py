"""Every measure is within 0..1 and falls, never rises, as its defect grows."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.vision.align import TEMPLATE, align
from kiosk.vision.blazeface import Detection
from kiosk.vision.picture import load_picture
from kiosk.vision.quality import (
    edge_of,
    exposure_of,
    measure,
    pose_of,
    sharpness_of,
    size_of,
)

# Box and landmarks (right eye, left eye, nose, mouth) of the people of the demonstration.
FACES = {
    "obama": (212, [(350, 190), (426, 187), (389, 232), (390, 270)]),
    "collins": (102, [(208, 107), (245, 109), (226, 132), (225, 148)]),
    "biden": (148, [(254, 187), (306, 197), (285, 217), (269, 250)]),
}


@pytest.fixture(params=FACES)
def face(request, people):
    """A photograph, its box's side and its landmarks."""
    side, points = FACES[request.param]
    pixels = load_picture(people / f"{request.param}.jpg")
    return pixels, side, np.array(points, np.float32)


def grey(pixels, landmarks):
    return cv2.cvtColor(align(pixels, landmarks), cv2.COLOR_BGR2GRAY)


def falls(values):
    """None above the one before, within 0..1, and lower at the end than at the start."""
    assert all(0.0 <= value <= 1.0 for value in values), values
    assert all(later <= earlier + 0.01 for earlier, later in pairwise(values)), values
    assert values[-1] < values[0], values
    return values


def detection(box, landmarks=TEMPLATE):
    return Detection(tuple(float(v) for v in box), np.array(landmarks, np.float32), 0.9)


def test_blur_lowers_the_sharpness(face):
    """Out of focus by 3 % of the box leaves a similarity of 0.7 to the sharp face, and nothing."""
    pixels, side, landmarks = face
    blurred = [
        sharpness_of(grey(cv2.GaussianBlur(pixels, (0, 0), share * side), landmarks))
        for share in (0.001, 0.01, 0.02, 0.03, 0.06, 0.1)
    ]
    falls(blurred)
    assert blurred[0] > 0.9
    assert blurred[3] < 0.1


@pytest.mark.parametrize("way", ["across", "down"])
def test_motion_lowers_the_sharpness(face, way):
    """Blurred along one direction only, a face is as useless as one out of focus."""
    pixels, side, landmarks = face
    values = []
    for share in (0.001, 0.03, 0.06, 0.1, 0.15):
        length = max(1, round(share * side))
        kernel = np.full((1, length) if way == "across" else (length, 1), 1 / length)
        values.append(sharpness_of(grey(cv2.filter2D(pixels, -1, kernel), landmarks)))
    falls(values)
    assert values[-1] < 0.3
    both = grey(cv2.filter2D(pixels, -1, kernel), landmarks)
    assert cv2.Laplacian(both, cv2.CV_32F).var() > 20, "the plain measure would not see it"


def test_light_and_noise_are_not_sharpness(face):
    """Half the light changes it little; noise does not make a blurred face a sharp one."""
    pixels, side, landmarks = face
    sharp = sharpness_of(grey(pixels, landmarks))
    assert sharpness_of(grey((pixels * 0.5).astype(np.uint8), landmarks)) > sharp - 0.15
    noise = np.random.default_rng(1).normal(0, 5, pixels.shape)
    blurred = cv2.GaussianBlur(pixels, (0, 0), 0.03 * side)
    noisy = np.clip(blurred + noise, 0, 255).astype(np.uint8)
    assert sharpness_of(grey(noisy, landmarks)) < 0.3


def test_darkness_and_glare_lower_the_exposure(face):
    """In steps down to black and up to white; the photographs themselves are exposed well."""
    pixels, _side, landmarks = face
    for factors in ((1.0, 0.5, 0.3, 0.15, 0.05), (1.0, 1.5, 2.0, 3.0, 5.0)):
        values = [
            exposure_of(grey(np.clip(pixels * factor, 0, 255).astype(np.uint8), landmarks))
            for factor in factors
        ]
        falls(values)
        assert values[0] > 0.9
        assert values[-1] < 0.2


def test_light_from_one_side_counts_as_clipped():
    """Half black and half white has a perfect mean and nothing to see."""
    half = np.zeros((112, 112), np.uint8)
    half[:, 56:] = 255
    assert exposure_of(half) == 0.0


def test_turning_away_lowers_the_pose():
    """The nose towards one eye, towards the eyes or the mouth, the head on its side."""
    for move in ((1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        values = []
        for share in (0.0, 8.0, 14.0, 20.0, 26.0):
            points = TEMPLATE.copy()
            points[2] += np.array(move) * share
            values.append(pose_of(points.astype(np.float32)))
        falls(values)
        assert values[0] == 1.0
    rolls = []
    for degrees in (0, 15, 40, 60, 80):
        turn = cv2.getRotationMatrix2D((56, 56), degrees, 1.0)
        rolls.append(pose_of((TEMPLATE @ turn[:, :2].T + turn[:, 2]).astype(np.float32)))
    falls(rolls)
    assert rolls[1] == 1.0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=8, max_size=8))
def test_pose_of_any_landmarks(values):
    """Whatever a detector gives, coinciding points too: a number in 0..1."""
    assert 0.0 <= pose_of(np.array(values, np.float32).reshape(4, 2)) <= 1.0


def test_size_and_edge():
    """Linear between the documented ends."""
    assert size_of(detection((0, 0, 24, 300))) == 0.0
    assert size_of(detection((0, 0, 68, 68))) == pytest.approx(0.5)
    assert size_of(detection((0, 0, 112, 112))) == 1.0
    edges = [
        edge_of(detection((left, 10, 100, 100)), 640, 480) for left in (0, -10, -20, -40, -200)
    ]
    assert edges == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    assert edge_of(detection((0, 0, 0, 0)), 640, 480) == 0.0


def test_good_photographs_are_good(face):
    """The portraits of the demonstration pass every measure."""
    pixels, side, landmarks = face
    left, top = landmarks[:2].mean(axis=0) - (side / 2, 0.35 * side)
    found = detection((left, top, side, side), landmarks)
    assert measure(pixels, align(pixels, landmarks), found).overall > 0.8
