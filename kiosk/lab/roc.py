"""Verification figures of scored pairs: AUC, EER, TAR at a FAR, accuracy by folds.

One convention throughout: a pair is accepted when its score is at or above the threshold. FAR is
the share of impostor pairs accepted, TAR that of genuine pairs. TAR at a FAR is taken at the
lowest threshold whose FAR does not exceed the one wanted (a tie that would exceed it is rejected
as a whole), without interpolation. scikit-learn counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, auc, balanced_accuracy_score, roc_curve
from sklearn.model_selection import StratifiedKFold

from kiosk.errors import UserError
from kiosk.lab.progress import track

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]

FARS = (1e-3, 1e-4, 1e-5)
FOLDS = 10
CURVE_POINTS = 2000
_PLACES = 6


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """FAR and TAR at every threshold that makes a difference, from the highest down.

    The first point accepts nothing, the last everything.
    """

    far: Values
    tar: Values
    thresholds: Values

    def auc(self) -> float:
        """The area under the curve; ties count half."""
        return float(auc(self.far, self.tar))

    def eer(self) -> float:
        """Where the share of impostors accepted equals that of genuine pairs rejected.

        Between two points of the curve the line through them is taken.
        """
        return float(np.interp(0.0, self.far + self.tar - 1.0, self.far))

    def index(self, far: float) -> int:
        """The point of most TAR whose FAR does not exceed `far`."""
        return int(np.searchsorted(self.far, far, side="right")) - 1

    def tar_at(self, threshold: float) -> float:
        """The share of genuine pairs at or above a threshold."""
        i = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        return float(self.tar[max(i, 0)])


@dataclass(frozen=True, slots=True)
class Operating:
    """One point of the curve. `tar`, `threshold` and `got_far` are None when `wanted_far` is
    below what the pairs resolve: one impostor pair alone is more."""

    wanted_far: float
    impostors_needed: int
    tar: float | None = None
    threshold: float | None = None
    got_far: float | None = None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy on each fold at the threshold that is best on the others.

    `given` folds come with the pairs (LFW) and count pairs; folds made here are a seeded split of
    the pairs, and since all pairs of a set are impostors but for a few, they count the mean of
    TAR and 1 - FAR.
    """

    mean: float
    standard_error: float
    by_fold: tuple[float, ...]
    given: bool


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """The figures of one set of scored pairs."""

    genuine: int
    impostors: int
    auc: float
    eer: float
    operating: tuple[Operating, ...]
    accuracy: Accuracy | None
    sweep: Sweep

    def at(self, far: float) -> Operating:
        """The operating point for a wanted FAR."""
        return _operating(self.sweep, far, self.impostors)

    def document(self) -> dict[str, object]:
        """The figures for JSON: null where the pairs are too few for one."""
        document: dict[str, object] = {
            "genuine": self.genuine,
            "impostors": self.impostors,
            "auc": self.auc,
            "eer": self.eer,
        }
        for point in self.operating:
            name = far_name(point.wanted_far)
            document[f"tar@{name}"] = point.tar
            document[f"threshold@{name}"] = point.threshold
            document[f"impostors_needed@{name}"] = point.impostors_needed
        document["accuracy"] = None if self.accuracy is None else self.accuracy.mean
        if self.accuracy is not None:
            document["accuracy_standard_error"] = self.accuracy.standard_error
            document["accuracy_by_fold"] = list(self.accuracy.by_fold)
            document["folds"] = "given" if self.accuracy.given else "seeded split"
        return document

    def curve(self, limit: int = CURVE_POINTS) -> Sweep:
        """At most `limit` points for a plot, evenly spread along TAR and along the log of FAR."""
        far, tar, count = self.sweep.far, self.sweep.tar, len(self.sweep.far)
        if count <= limit:
            return self.sweep
        logs = np.log10(np.maximum(far, 0.5 / self.impostors))
        third = (limit - 2) // 3
        spread = [_evenly(values, third) for values in (tar, logs, far)]
        picked = np.unique(np.concatenate([*spread, [0, count - 1]]))
        return Sweep(far[picked], tar[picked], self.sweep.thresholds[picked])


def measure(
    scores: Values,
    same: Flags,
    *,
    fold: Numbers | None = None,
    fars: Sequence[float] = FARS,
    seed: int = 0,
) -> Roc:
    """The figures of pairs with these scores; `same` marks the genuine ones, `fold` their folds.

    Raises UserError when there is no genuine or no impostor pair, or a score is not finite.
    """
    genuine, impostors = int(same.sum()), int((~same).sum())
    if not genuine or not impostors:
        raise UserError(
            f"genuine and impostor pairs expected, got {genuine} and {impostors}",
            hint="a curve needs pairs of one person and pairs of two",
        )
    if not np.isfinite(scores).all():
        raise UserError("finite scores expected, some are not")
    swept = sweep(scores, same)
    return Roc(
        genuine,
        impostors,
        swept.auc(),
        swept.eer(),
        tuple(_operating(swept, far, impostors) for far in fars),
        accuracy(scores, same, fold, seed),
        swept,
    )


def sweep(scores: Values, same: Flags) -> Sweep:
    """The whole curve: a point for every distinct score."""
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    # The first point accepts nothing; scikit-learn gives infinity for it, which JSON has not.
    thresholds[0] = np.nextafter(thresholds[1], np.inf)
    return Sweep(far, tar, thresholds)


def impostors_needed(far: float) -> int:
    """How many impostor pairs resolve a FAR: with fewer, a single one is above it."""
    return math.ceil(1 / far - 1e-6)


def _operating(swept: Sweep, far: float, impostors: int) -> Operating:
    needed = impostors_needed(far)
    if impostors < needed:
        return Operating(far, needed)
    i = swept.index(far)
    return Operating(
        far, needed, float(swept.tar[i]), float(swept.thresholds[i]), float(swept.far[i])
    )


def accuracy(scores: Values, same: Flags, fold: Numbers | None, seed: int) -> Accuracy | None:
    """Accuracy by folds; None when the pairs are too few to be split into ten."""
    given = fold is not None
    if fold is None:
        if min(int(same.sum()), int((~same).sum())) < FOLDS:
            return None
        fold = np.empty(len(same), dtype=np.int64)
        split = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        for number, (_, test) in enumerate(split.split(same, same)):
            fold[test] = number
    count = accuracy_score if given else balanced_accuracy_score
    results = []
    for number in track(np.unique(fold).tolist(), "accuracy by folds"):
        test = fold == number
        if len(np.unique(same[~test])) < 2:
            return None
        threshold = best_threshold(scores[~test], same[~test], balanced=not given)
        results.append(float(count(same[test], scores[test] >= threshold)))
    if len(results) < 2:
        return None
    error = float(np.std(results, ddof=1) / math.sqrt(len(results)))
    return Accuracy(float(np.mean(results)), error, tuple(results), given)


def best_threshold(scores: Values, same: Flags, *, balanced: bool) -> float:
    """The threshold of most accuracy, the highest one where several are equal.

    It lies half-way to the next lower score, so that a gap between the two kinds is cut in the
    middle and not at its edge.
    """
    swept = sweep(scores, same)
    genuine, impostors = int(same.sum()), int((~same).sum())
    # In whole pairs: as shares, equal accuracies differ in their last bits, which would decide.
    right = np.rint(swept.tar * genuine).astype(np.int64)
    wrong = np.rint(swept.far * impostors).astype(np.int64)
    weights = (impostors, genuine) if balanced else (1, 1)
    best = int(np.argmax(weights[0] * right - weights[1] * wrong))
    threshold = float(swept.thresholds[best])
    if best + 1 == len(swept.thresholds):
        return threshold
    lower = float(swept.thresholds[best + 1])
    middle = (threshold + lower) / 2
    # Between neighbours the middle rounds to one of them: never to the one that is rejected.
    return middle if middle > lower else threshold


def rounded_up(threshold: float) -> float:
    """A threshold as it is told and stored: six decimals, and never below what it was.

    Rounded down, it would accept what it was set to refuse.
    """
    near = round(threshold, _PLACES)
    return near if near >= threshold else round(near + 10.0**-_PLACES, _PLACES)


def far_name(far: float) -> str:
    """A rate as keys and heads write it: 1e-3, 2.5e-4."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _evenly(values: Values, count: int) -> Numbers:
    """The indices that are nearest to `count` even steps through values that only rise."""
    steps = np.linspace(values[0], values[-1], count)
    return np.minimum(np.searchsorted(values, steps), len(values) - 1).astype(np.int64)
