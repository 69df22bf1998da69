"""How two models' embeddings are compared."""

import numpy as np
import pytest

from kiosk.errors import ModelError
from kiosk.lab.agreement import agreement


def unit(rows):
    matrix = np.asarray(rows, dtype=np.float64)
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def test_equal_embeddings_agree_wholly():
    """The same rows give ones and zeros, whatever float32 rounding did to their lengths."""
    rows = unit(np.random.default_rng(1).normal(size=(50, 192)))
    found = agreement(rows, rows.copy())
    assert found.faces == 50
    assert (found.mean_cosine, found.min_cosine) == (1.0, 1.0)
    assert (found.mean_mae, found.max_mae, found.max_absolute_error) == (0.0, 0.0, 0.0)


def test_figures_are_those_worked_out_by_hand():
    """Cosines 1, 0.8 and 0; MAE by face 0, (0.2 + 0.6) / 2 and 1; the largest error is 1."""
    first = unit([[1, 0], [1, 0], [1, 0]])
    second = unit([[1, 0], [0.8, 0.6], [0, 1]])
    found = agreement(first, second).document()
    assert found["mean_cosine"] == pytest.approx(0.6)
    assert found["min_cosine"] == pytest.approx(0.0, abs=1e-9)
    assert found["p50_cosine"] == pytest.approx(0.8)
    # numpy's linear percentile: 5 % of the way through two gaps is a tenth of the first.
    assert found["p5_cosine"] == pytest.approx(0.08)
    assert found["p1_cosine"] == pytest.approx(0.016)
    assert found["mean_mae"] == pytest.approx((0 + 0.4 + 1) / 3)
    assert found["max_mae"] == pytest.approx(1.0)
    assert found["max_absolute_error"] == pytest.approx(1.0)


def test_one_flipped_face_shows_in_the_least_and_not_in_the_median():
    """A single bad face among many is seen by min, not by the median."""
    rows = unit(np.random.default_rng(2).normal(size=(100, 64)))
    other = rows.copy()
    other[7] = -other[7]
    found = agreement(rows, other)
    assert found.min_cosine == pytest.approx(-1.0)
    assert found.p50_cosine == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.eye(3, dtype=np.float32), np.eye(4, dtype=np.float32)),
        (np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)),
        (np.eye(3, dtype=np.float32), 2 * np.eye(3, dtype=np.float32)),
        (np.eye(3, dtype=np.float32), np.full((3, 3), np.nan, np.float32)),
    ],
)
def test_what_is_no_pair_of_unit_matrices_is_refused(first, second):
    """Other shapes, no rows, other lengths and NaN are refused, never averaged."""
    with pytest.raises(ModelError, match="expected"):
        agreement(first, second)
