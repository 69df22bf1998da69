"""How far two models agree on the same faces: cosines and absolute errors of their embeddings."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import ModelError
from kiosk.types import FloatArray

Values = NDArray[np.float64]

PERCENTILES = (1, 5, 50)
_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over `faces` pairs of unit vectors. A face's MAE is the mean of its |difference|s.

    `max_mae` is the largest MAE of a face (the guide's figure), `max_absolute_error` the largest
    difference of a single value.
    """

    faces: int
    mean_cosine: float
    min_cosine: float
    p1_cosine: float
    p5_cosine: float
    p50_cosine: float
    mean_mae: float
    max_mae: float
    max_absolute_error: float

    def document(self) -> dict[str, float]:
        """The figures under their names, for JSON and for the record."""
        return asdict(self)


def agreement(reference: FloatArray, other: FloatArray) -> Agreement:
    """Compare two L2-normalised matrices (faces, dim), row by row.

    Raises ModelError for matrices of different shape, without a row, or not of unit length.
    """
    if reference.shape != other.shape or reference.ndim != 2 or not len(reference):
        raise ModelError(
            f"two matrices of embeddings of one shape expected, got {reference.shape}"
            f" and {other.shape}"
        )
    cosines = cosines_of(reference, other)
    errors = np.abs(_unit(reference) - _unit(other))
    by_face = errors.mean(axis=1)
    p1, p5, p50 = np.percentile(cosines, PERCENTILES)
    return Agreement(
        faces=len(cosines),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        p1_cosine=float(p1),
        p5_cosine=float(p5),
        p50_cosine=float(p50),
        mean_mae=float(by_face.mean()),
        max_mae=float(by_face.max()),
        max_absolute_error=float(errors.max()),
    )


def cosines_of(reference: FloatArray, other: FloatArray) -> Values:
    """The cosine of every row of one matrix with the same row of another."""
    # For unit vectors 1 - |a - b|^2 / 2 is the same, and exactly 1 for equal ones.
    differences = _unit(reference) - _unit(other)
    cosines: Values = 1.0 - 0.5 * np.square(differences).sum(axis=1)
    return cosines


def _unit(matrix: FloatArray) -> Values:
    """The rows in float64, their length exactly 1: float32 rounding would show in the cosines."""
    rows = matrix.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.abs(norms - 1.0) <= _NORM_TOLERANCE).all():
        raise ModelError("embeddings of length 1 expected, some are not")
    unit: Values = rows / norms
    return unit
