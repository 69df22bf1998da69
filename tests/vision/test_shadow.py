"""Shadow mode compares two models on live faces and keeps nothing but a histogram."""

import numpy as np
import pytest

from kiosk.errors import EmbeddingError
from kiosk.types import Embedding
from kiosk.vision.shadow import EDGES, Shadow

FACE = Embedding.of(np.array([1.0, 0.0, 0.0]), "s")


def at_cosine(cosine):
    return Embedding.of(np.array([cosine, np.sqrt(1 - cosine**2), 0.0]), "s")


class Other:
    id, space = "m-fp32", "s"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def embed(self, _crop):
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_every_nth_face_is_compared():
    """Of nine faces every third."""
    other = Other(*[FACE] * 3)
    shadow = Shadow(other, 3)
    for _ in range(9):
        shadow.see("crop", FACE, "m-int8")
    assert other.asked == 3
    assert shadow.document()["count"] == 3


def test_the_histogram_has_fixed_bins():
    """Below 0.90, between the edges, and 1 in the last; minimum and mean beside it."""
    shadow = Shadow(Other(*map(at_cosine, (0.5, 0.91, 0.9965, 1.0))), 1)
    for _ in range(4):
        shadow.see("crop", FACE, "m-int8")
    said = shadow.document()
    assert said["edges"] == list(EDGES)
    assert {i: n for i, n in enumerate(said["counts"]) if n} == {0: 1, 1: 1, 11: 1, 12: 1}
    assert said["min"] == pytest.approx(0.5, abs=1e-5)
    assert said["mean"] == pytest.approx((0.5 + 0.91 + 0.9965 + 1.0) / 4, abs=1e-5)


def test_nothing_of_a_face_is_kept():
    """After a face only numbers are held: no array, no crop."""
    shadow = Shadow(Other(FACE), 1)
    shadow.see("crop", FACE, "m-int8")
    kept = [value for name, value in vars(shadow).items() if name not in {"_other", "_lock"}]
    flat = [v for value in kept for v in (value if isinstance(value, list) else [value])]
    assert all(isinstance(v, int | float) for v in flat)


@pytest.mark.parametrize("error", [EmbeddingError("nan"), MemoryError()])
def test_a_failure_of_the_other_model_is_counted_only(error):
    """The face under way is not touched by it, whatever it is."""
    shadow = Shadow(Other(error, FACE), 1)
    shadow.see("crop", FACE, "m-int8")
    shadow.see("crop", FACE, "m-int8")
    said = shadow.document()
    assert (said["failed"], said["count"]) == (1, 1)


def test_a_model_is_not_compared_with_itself():
    """After a fallback the other model is the one in use: 1.0 would say nothing."""
    other = Other()
    shadow = Shadow(other, 1)
    shadow.see("crop", FACE, "m-fp32")
    assert other.asked == 0
    assert shadow.document()["min"] is None
