"""Tiles cover a large picture, and overlap enough for a face between two of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.vision.tiles import SIDE, tiles


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_tiles_cover_the_picture_and_stay_inside(width, height):
    """Every place is in a finest tile; no window reaches beyond the picture."""
    windows = tiles(width, height)
    if max(width, height) <= 1.5 * SIDE:
        assert windows == ()
        return
    covered = np.zeros((height, width), bool)
    for left, top, w, h in windows:
        assert left >= 0
        assert top >= 0
        assert left + w <= width
        assert top + h <= height
        if max(w, h) == min(SIDE, max(width, height)):
            covered[top : top + h, left : left + w] = True
    assert covered.all()


@pytest.mark.parametrize(("size", "count"), [((640, 480), 6), ((1280, 720), 18), ((344, 384), 0)])
def test_how_many(size, count):
    """What a sweep costs in the usual sizes."""
    assert len(tiles(*size)) == count


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (4000, 3000)])
def test_neighbours_overlap_by_a_quarter(size):
    """A face of up to 72 pixels is whole in one of the finest tiles wherever it stands."""
    lefts = sorted({w[0] for w in tiles(*size) if w[2] == SIDE})
    assert max(np.diff(lefts)) <= 0.75 * SIDE


def test_no_scale_is_left_out():
    """From the whole to the finest tiles no step in scale is larger than 6.7."""
    for longest in (500, 1280, 1920, 4000, 8000):
        sides = sorted({longest, *(max(w[2:]) for w in tiles(longest, longest * 3 // 4))})
        assert all(large / small <= 4.45 * 1.5 for small, large in pairwise(sides))
