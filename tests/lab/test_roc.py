"""AUC, EER, TAR at a FAR and accuracy, against figures worked out by hand and scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from kiosk.errors import UserError
from kiosk.lab.roc import (
    best_threshold,
    far_name,
    impostors_needed,
    measure,
    rounded_up,
    sweep,
)


def labelled(genuine, impostors):
    scores = np.array([*genuine, *impostors], dtype=np.float64)
    same = np.array([True] * len(genuine) + [False] * len(impostors))
    return scores, same


def brute(scores, same, far):
    """The most TAR over every threshold whose FAR stays within `far`, by trying them all."""
    best = 0.0
    for threshold in scores:
        if (scores[~same] >= threshold).mean() <= far:
            best = max(best, (scores[same] >= threshold).mean())
    return best


def test_a_tiny_set_by_hand():
    """Genuine 0.9 0.8 0.3, impostors 0.7 0.2 0.1 0.0: 11 of 12 pairs in order, TAR 2/3 at FAR 0."""
    scores, same = labelled([0.9, 0.8, 0.3], [0.7, 0.2, 0.1, 0.0])
    found = measure(scores, same, fars=(0.25, 0.5))
    assert (found.genuine, found.impostors) == (3, 4)
    assert found.auc == pytest.approx(11 / 12)
    quarter, half = found.operating
    # At 0.3 all genuine pairs are in, and of the impostors 0.7 alone.
    assert (quarter.tar, quarter.threshold, quarter.got_far) == (1.0, 0.3, 0.25)
    assert (half.tar, half.threshold) == (1.0, 0.2)
    # TAR 2/3 from FAR 0 to 1/4: the line FAR = 1 - TAR is met at FAR 1/4 between 2/3 and 1.
    assert found.eer == pytest.approx(0.25)


def test_perfect_scores():
    """Every genuine pair above every impostor: 1, 0, 1 and full accuracy."""
    generator = np.random.default_rng(0)
    scores, same = labelled(generator.uniform(0.6, 0.9, 200), generator.uniform(-0.2, 0.3, 2000))
    found = measure(scores, same)
    assert found.auc == pytest.approx(1.0)
    assert found.eer == pytest.approx(0.0)
    assert found.at(1e-3).tar == 1.0
    assert found.accuracy.mean == 1.0


def test_scores_turned_round():
    """Every genuine pair below every impostor: AUC 0, EER 1, TAR 0."""
    scores, same = labelled([0.1] * 5, [0.9] * 1000)
    found = measure(scores, same)
    assert (found.auc, found.at(1e-3).tar) == (0.0, 0.0)
    assert found.eer == pytest.approx(1.0)


def test_random_scores():
    """Scores that know nothing give an AUC and an EER of a half and TAR equal to FAR."""
    generator = np.random.default_rng(5)
    scores, same = labelled(generator.random(20_000), generator.random(20_000))
    found = measure(scores, same, fars=(0.1,))
    assert found.auc == pytest.approx(0.5, abs=0.01)
    assert found.eer == pytest.approx(0.5, abs=0.01)
    assert found.operating[0].tar == pytest.approx(0.1, abs=0.01)


def test_all_scores_tied():
    """One score for all: AUC and EER one half; no threshold but 'nobody' keeps a FAR."""
    scores, same = labelled([0.5] * 10, [0.5] * 1000)
    found = measure(scores, same)
    assert (found.auc, found.eer) == (0.5, 0.5)
    assert found.at(1e-3).tar == 0.0
    assert found.at(1e-3).threshold > 0.5


def test_a_tie_that_would_exceed_the_far_is_rejected_as_a_whole():
    """Two impostors tied at the cut of FAR 1/1000 take the genuine pair tied with them along."""
    scores, same = labelled([0.9, 0.7], [0.7, 0.7] + [0.0] * 998)
    point = measure(scores, same).at(1e-3)
    assert (point.tar, point.threshold, point.got_far) == (0.5, 0.9, 0.0)


def test_the_threshold_accepts_at_and_above():
    """Accepting score >= threshold gives exactly the TAR and FAR that are told."""
    generator = np.random.default_rng(3)
    scores, same = labelled(generator.normal(1, 1, 500), generator.normal(-1, 1, 3000))
    point = measure(scores, same).at(1e-3)
    assert (scores[same] >= point.threshold).mean() == point.tar
    assert (scores[~same] >= point.threshold).mean() == point.got_far <= 1e-3


def test_a_far_below_the_pairs_is_not_told():
    """999 impostors do not resolve 1e-3, 1000 do; null stands in the document, never a figure."""
    scores, same = labelled([0.9], np.linspace(0, 0.5, 999))
    found = measure(scores, same)
    assert found.document()["tar@1e-3"] is None
    assert found.document()["threshold@1e-3"] is None
    assert found.document()["impostors_needed@1e-3"] == 1000
    scores, same = labelled([0.9], np.linspace(0, 0.5, 1000))
    assert measure(scores, same).document()["tar@1e-3"] == 1.0


@pytest.mark.parametrize("far", [1e-2, 1e-3, 1e-4, 1e-5, 3e-4, 0.5])
def test_the_impostors_needed_are_the_inverse(far):
    """1/FAR, rounded up, without the noise of floats."""
    needed = impostors_needed(far)
    assert 1 / needed <= far * (1 + 1e-9)
    assert 1 / (needed - 1) > far


def test_names_of_rates():
    """Rates are written as keys of the output hold them."""
    assert [far_name(far) for far in (1e-3, 1e-4, 1e-5, 2.5e-4)] == [
        "1e-3",
        "1e-4",
        "1e-5",
        "2.5e-4",
    ]


few = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=12)


@settings(deadline=None)
@given(few, few)
def test_auc_is_scikit_learn_s_and_tar_that_of_trying_everything(genuine, impostors):
    """Whatever the ties: the area is that of roc_auc_score, TAR the best of all thresholds."""
    scores, same = labelled(genuine, impostors)
    found = measure(scores, same, fars=(0.1, 0.25, 0.5))
    assert found.auc == pytest.approx(roc_auc_score(same, scores))
    for point in found.operating:
        if len(impostors) < point.impostors_needed:
            assert point.tar is None
        else:
            assert point.tar == pytest.approx(brute(scores, same, point.wanted_far))
    assert 0.0 <= found.eer <= 1.0


@settings(deadline=None)
@given(few, few)
def test_only_the_order_of_scores_counts(genuine, impostors):
    """A rising function of the scores leaves AUC, EER and TAR alone."""
    scores, same = labelled(genuine, impostors)
    plain, bent = (measure(s, same, fars=(0.5,)) for s in (scores, np.exp(scores)))
    assert plain.auc == pytest.approx(bent.auc)
    assert plain.eer == pytest.approx(bent.eer)
    assert plain.operating[0].tar == bent.operating[0].tar


def test_eer_where_both_errors_are_one_in_four():
    """One of four genuine pairs below, one of four impostors above the cut: EER 1/4."""
    scores, same = labelled([0.9, 0.8, 0.7, 0.1], [0.75, 0.3, 0.2, 0.05])
    assert measure(scores, same).eer == pytest.approx(0.25)


def test_folds_that_come_with_the_pairs():
    """Nine folds cut at 0.5 where the tenth has its impostor at 0.8: nine times 1, once 1/2."""
    scores, same, fold = [], [], []
    for number in range(10):
        scores += [0.9, 0.8 if number == 9 else 0.1]
        same += [True, False]
        fold += [number, number]
    found = measure(np.array(scores), np.array(same), fold=np.array(fold)).accuracy
    assert found.given
    assert found.by_fold == (1.0,) * 9 + (0.5,)
    assert found.mean == pytest.approx(0.95)
    assert found.standard_error == pytest.approx(np.std(found.by_fold, ddof=1) / np.sqrt(10))


def test_folds_made_here_are_seeded_and_say_so():
    """Without folds a split is made: the same for a seed, another for another, marked as made."""
    generator = np.random.default_rng(9)
    scores, same = labelled(generator.normal(1, 1, 80), generator.normal(0, 1, 500))
    first, again, other = (measure(scores, same, seed=s).accuracy for s in (1, 1, 2))
    assert first.by_fold == again.by_fold != other.by_fold
    assert not first.given
    assert measure(scores, same).document()["folds"] == "seeded split"


def test_accuracy_of_a_made_split_is_not_bought_with_impostors():
    """Random scores with 50 impostors for each genuine pair give about a half, not 0.98."""
    generator = np.random.default_rng(4)
    scores, same = labelled(generator.random(100), generator.random(5000))
    assert measure(scores, same).accuracy.mean == pytest.approx(0.5, abs=0.1)


def test_too_few_pairs_for_folds():
    """Nine genuine pairs are not split into ten: no accuracy, and null in the document."""
    scores, same = labelled([0.9] * 9, [0.1] * 50)
    assert measure(scores, same).document()["accuracy"] is None


def test_a_gap_is_cut_in_the_middle():
    """The best threshold lies half-way between the lowest genuine and the highest impostor."""
    scores, same = labelled([0.9, 0.7], [0.3, 0.1])
    assert best_threshold(scores, same, balanced=False) == pytest.approx(0.5)


def test_scores_that_are_neighbours_are_not_confused():
    """Where the best is to accept nobody, the highest score is not accepted by rounding."""
    top = np.nextafter(0.5, 0)
    scores, same = labelled([0.1], [top, 0.4, 0.3])
    assert best_threshold(scores, same, balanced=False) > top


@pytest.mark.parametrize(("genuine", "impostors"), [([], [0.1]), ([0.9], [])])
def test_one_kind_of_pair_makes_no_curve(genuine, impostors):
    """Without genuine or without impostor pairs the counts are told."""
    scores, same = labelled(genuine, impostors)
    with pytest.raises(UserError, match="genuine and impostor pairs expected"):
        measure(scores, same)


def test_scores_that_are_not_finite_are_refused():
    """NaN is refused, not sorted somewhere."""
    scores, same = labelled([0.9, np.nan], [0.1])
    with pytest.raises(UserError, match="finite scores expected"):
        measure(scores, same)


def test_a_curve_for_plots_is_thin_and_keeps_its_ends():
    """At most 2000 points, rising, of the whole curve, and dense where FAR is small."""
    generator = np.random.default_rng(6)
    scores, same = labelled(generator.normal(2, 1, 3000), generator.normal(0, 1, 50_000))
    found = measure(scores, same)
    thin = found.curve()
    assert 500 < len(thin.far) <= 2000
    assert (thin.far[0], thin.tar[0]) == (0.0, 0.0)
    assert (thin.far[-1], thin.tar[-1]) == (1.0, 1.0)
    assert (np.diff(thin.far) >= 0).all()
    assert (np.diff(thin.tar) >= 0).all()
    assert thin.auc() == pytest.approx(found.auc, abs=1e-4)
    assert ((thin.far > 0) & (thin.far < 1e-3)).sum() >= 20
    assert np.isfinite(thin.thresholds).all()


def test_a_short_curve_is_left_as_it_is():
    """What is below the limit is not thinned."""
    scores, same = labelled([0.9, 0.8], [0.1, 0.2])
    found = measure(scores, same)
    assert len(found.curve().far) == len(found.sweep.far) == 5


def test_tar_at_a_threshold():
    """The share at or above any threshold, between scores and at one."""
    scores, same = labelled([0.9, 0.8, 0.3], [0.7])
    swept = sweep(scores, same)
    assert [swept.tar_at(t) for t in (1.0, 0.9, 0.85, 0.8, 0.0)] == pytest.approx(
        [0, 1 / 3, 1 / 3, 2 / 3, 1]
    )


@given(st.floats(-1.0, 1.0))
def test_a_threshold_is_rounded_up_once(value):
    """Six decimals, never below what it was, and itself when it is rounded again."""
    told = rounded_up(value)
    assert value <= told < value + 1.000001e-6
    assert rounded_up(told) == told == float(f"{told:.6f}")


def folds_by_brute_force(scores, same, fold):
    """LFW's protocol in plain loops: of the best thresholds on nine folds the highest, half-way
    to the next lower score; the share of right answers on the tenth."""
    shares = []
    for number in sorted(set(fold)):
        rest = [(s, g) for s, g, f in zip(scores, same, fold, strict=True) if f != number]
        test = [(s, g) for s, g, f in zip(scores, same, fold, strict=True) if f == number]
        levels = sorted({s for s, _ in rest})
        best = (sum(not g for _, g in rest), float("inf"), max(levels))
        for lower, level in zip([None, *levels], levels, strict=False):
            right = sum((s >= level) == g for s, g in rest)
            if (right, level) > best[:2]:
                best = (right, level, lower)
        _, level, lower = best
        threshold = level if lower is None else (level + lower) / 2
        if level == float("inf"):
            threshold = (np.nextafter(lower, 2) + lower) / 2
            threshold = max(threshold, np.nextafter(lower, 2))
        shares.append(sum((s >= threshold) == g for s, g in test) / len(test))
    return shares


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-6, 6), min_size=40, max_size=40), st.integers(0, 3))
def test_ten_folds_are_those_of_brute_force(noise, apart):
    """Threshold from nine folds, accuracy on the tenth, ties to the highest: pair by pair."""
    same = [number % 2 == 0 for number in range(40)]
    scores = [(n + apart * (1 if g else -1)) / 16 for n, g in zip(noise, same, strict=True)]
    fold = [number // 4 for number in range(40)]
    found = measure(np.array(scores), np.array(same), fold=np.array(fold)).accuracy
    assert found.by_fold == pytest.approx(folds_by_brute_force(scores, same, fold))
    assert found.mean == pytest.approx(np.mean(found.by_fold))


def test_equal_thresholds_are_equal_whatever_the_shares():
    """Of thresholds with as many right answers the highest is taken, not that of a last bit."""
    generator = np.random.default_rng(5)
    for _ in range(200):
        same = generator.random(49) < 0.45
        scores = generator.integers(0, 30, 49) / 32 + 0.1 * same
        right = {float(t): int(((scores >= t) == same).sum()) for t in scores}
        top = max(level for level, count in right.items() if count == max(right.values()))
        if max(right.values()) > int((~same).sum()):
            below = max((s for s in scores if s < top), default=top)
            assert best_threshold(scores, same, balanced=False) == pytest.approx((top + below) / 2)
