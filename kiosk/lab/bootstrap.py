"""Confidence intervals of verification figures by resampling, the same draws for every model.

All pairs of a set of faces are far from independent: each person stands in many. So people are
drawn, with replacement, where they are known: a person drawn twice doubles the pairs of their
own and those with others (pairs of a person with their own copy are left out). Where they are not
known, pairs are drawn, genuine and impostor ones apart, and the interval is too narrow to the
degree that a face stands in several. Intervals are percentiles of the resampled figures; a set
without a single error gives one of no width, which is no proof of perfection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from kiosk.lab.progress import track
from kiosk.lab.roc import FARS, Flags, Numbers, Sweep, Values, far_name, impostors_needed

RESAMPLES = 1000
CONFIDENCE = 0.95
_LEAST_RESAMPLES = 200
# So many scores are counted at most for one model, some 10 ns each.
_MOST_COUNTED = 400_000_000

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Figures of resampled sets: `figures[name]` is (models, resamples), NaN where not to be had.

    Names are auc, eer, tar@F and threshold@F.
    """

    unit: str
    """What was drawn: people, or pairs."""
    units: int
    resamples: int
    figures: dict[str, Values]

    def interval(self, name: str, model: int = 0) -> Interval | None:
        """The 95 % interval of a figure; None when it could not be had in most resamples."""
        return _percentiles(self.figures.get(name), lambda rows: rows[model])

    def drop(self, name: str) -> Interval | None:
        """The 95 % interval of the first model's figure less the second's, paired by draw."""
        return _percentiles(self.figures.get(name), lambda rows: rows[0] - rows[1])


def bootstrap(
    scores: Sequence[Values],
    same: Flags,
    people: Numbers | None,
    *,
    fars: Sequence[float] = FARS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Resample pairs scored by one or more models; `people` (pairs, 2) holds both identities.

    Takes memory for one resample at a time, and fewer resamples (200 at least) of a very large
    set. The same seed gives the same figures.
    """
    resamples = min(resamples, max(_LEAST_RESAMPLES, _MOST_COUNTED // len(same)))
    fars = [far for far in fars if int((~same).sum()) >= impostors_needed(far)]
    draw, unit, units = _pairs(same) if people is None else _people(people)
    ranked = [_Ranked(values, same) for values in scores]
    names = ["auc", "eer"] + [
        f"{what}@{far_name(f)}" for f in fars for what in ("tar", "threshold")
    ]
    table = np.full((len(names), len(scores), resamples), np.nan)
    random = np.random.default_rng(seed)
    for number in track(range(resamples), "resampling"):
        weights = draw(random)
        for model, ranks in enumerate(ranked):
            swept = ranks.sweep(weights)
            if swept is not None:
                table[:, model, number] = _figures(swept, fars)
    return Bootstrap(unit, units, resamples, dict(zip(names, table, strict=True)))


class _Ranked:
    """Scores sorted once; each resample only weighs them anew."""

    def __init__(self, scores: Values, same: Flags) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        # The last place of each run of equal scores: a tie is accepted or rejected as a whole.
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._thresholds = np.concatenate([[np.nextafter(ordered[0], np.inf)], ordered[self._ends]])
        self._same = same[self._order].astype(np.float64)

    def sweep(self, weights: Values) -> Sweep | None:
        """The weighted curve, or None when all weight lies on one kind of pair."""
        weighed = weights[self._order]
        genuine = weighed * self._same
        accepted = np.concatenate([[0.0], np.cumsum(genuine)[self._ends]])
        wrongly = np.concatenate([[0.0], np.cumsum(weighed - genuine)[self._ends]])
        if not accepted[-1] or not wrongly[-1]:
            return None
        return Sweep(wrongly / wrongly[-1], accepted / accepted[-1], self._thresholds)


def _figures(swept: Sweep, fars: Sequence[float]) -> list[float]:
    # Not `Sweep.auc`: its checks of the order cost as much as the counting.
    figures = [float(np.trapezoid(swept.tar, swept.far)), swept.eer()]
    for far in fars:
        i = swept.index(far)
        figures += [float(swept.tar[i]), float(swept.thresholds[i])]
    return figures


def _people(people: Numbers) -> tuple[Callable[[Generator], Values], str, int]:
    known, numbered = np.unique(people, return_inverse=True)
    first, second = numbered.reshape(people.shape).T
    count = len(known)

    def draw(random: Generator) -> Values:
        times = np.bincount(random.integers(count, size=count), minlength=count).astype(np.float64)
        weights: Values = np.where(first == second, times[first], times[first] * times[second])
        return weights

    return draw, "people", count


def _pairs(same: Flags) -> tuple[Callable[[Generator], Values], str, int]:
    kinds = [np.flatnonzero(same), np.flatnonzero(~same)]

    def draw(random: Generator) -> Values:
        weights = np.zeros(len(same))
        for kind in kinds:
            drawn = random.integers(len(kind), size=len(kind))
            weights[kind] = np.bincount(drawn, minlength=len(kind))
        return weights

    return draw, "pairs", len(same)


def _percentiles(rows: Values | None, choose: Callable[[Values], Values]) -> Interval | None:
    if rows is None:
        return None
    values = choose(rows)
    values = values[np.isfinite(values)]
    if len(values) * 2 < rows.shape[1] or not len(values):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
