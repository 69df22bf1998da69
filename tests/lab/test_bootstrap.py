"""Intervals by resampling: seeded, exact in their weights, and about right."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from kiosk.lab import bootstrap as module
from kiosk.lab.bootstrap import bootstrap
from kiosk.lab.roc import measure


def two_kinds(generator, genuine, impostors, distance=1.5):
    scores = np.concatenate(
        [generator.normal(distance, 1, genuine), generator.normal(0, 1, impostors)]
    )
    return scores, np.arange(genuine + impostors) < genuine


def people_of(generator, people, pictures, spread):
    """Scores of all pairs of pictures whose people differ in how hard they are."""
    who = np.repeat(np.arange(people), pictures)
    left, right = np.triu_indices(len(who), 1)
    same = who[left] == who[right]
    hard = generator.normal(0, spread, people)
    scores = np.where(same, 2.0, 0.0) + hard[who[left]] + hard[who[right]]
    return scores + generator.normal(0, 1, len(scores)), same, np.stack([who[left], who[right]], 1)


def test_the_same_seed_gives_the_same_interval():
    """Seeded draws: equal figures for a seed, others for another."""
    scores, same = two_kinds(np.random.default_rng(0), 100, 1200)
    first, again, other = (bootstrap([scores], same, None, resamples=50, seed=s) for s in (1, 1, 2))
    for name, rows in first.figures.items():
        assert np.array_equal(rows, again.figures[name])
    assert first.interval("auc") != other.interval("auc")


def test_a_resample_weighs_as_scikit_learn_does():
    """With whole weights and tied scores the area is roc_auc_score's with sample weights."""
    generator = np.random.default_rng(1)
    scores, same = two_kinds(generator, 40, 90)
    scores = np.round(scores, 1)
    weights = generator.integers(0, 4, len(scores)).astype(np.float64)
    swept = module._Ranked(scores, same).sweep(weights)
    assert swept.auc() == pytest.approx(roc_auc_score(same, scores, sample_weight=weights))


def test_equal_weights_give_the_figures_themselves():
    """Every pair once is the set itself, ties included."""
    scores, same = two_kinds(np.random.default_rng(2), 50, 1500)
    scores = np.round(scores, 2)
    swept = module._Ranked(scores, same).sweep(np.ones(len(scores)))
    found = measure(scores, same)
    assert swept.auc() == pytest.approx(found.auc)
    assert swept.eer() == pytest.approx(found.eer)
    assert swept.tar[swept.index(1e-3)] == found.at(1e-3).tar
    assert swept.thresholds[swept.index(1e-3)] == found.at(1e-3).threshold


def test_a_person_drawn_twice_counts_their_pairs_with_others_twice():
    """People (0, 1, 2) drawn 2, 1 and 0 times: own pairs 2 and 1, mixed ones 2 and 0."""
    people = np.array([[0, 0], [1, 1], [0, 1], [0, 2], [2, 2]])
    draw, unit, count = module._people(people)

    class Drawn:
        def integers(self, _high, size):
            assert size == 3
            return np.array([0, 0, 1])

    assert (unit, count) == ("people", 3)
    assert draw(Drawn()).tolist() == [2, 1, 2, 0, 0]


def test_drawn_pairs_keep_the_numbers_of_both_kinds():
    """Genuine and impostor pairs are drawn apart: as many of each as there are."""
    same = np.arange(30) < 10
    draw, unit, count = module._pairs(same)
    weights = draw(np.random.default_rng(3))
    assert (unit, count) == ("pairs", 30)
    assert (weights[same].sum(), weights[~same].sum()) == (10, 20)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of 100 sets of known AUC the 95 % interval holds it in 88 to 100."""
    truth = norm.cdf(1.5 / np.sqrt(2))
    held = 0
    for number in range(100):
        scores, same = two_kinds(np.random.default_rng(100 + number), 150, 150)
        low, high = bootstrap([scores], same, None, fars=(), resamples=200).interval("auc")
        held += low <= truth <= high
    assert 88 <= held <= 100


def test_drawing_people_is_wider_where_people_differ():
    """Pairs that share a person are not independent: the honest interval is much wider."""
    scores, same, people = people_of(np.random.default_rng(7), 20, 6, spread=1.0)
    by_people = bootstrap([scores], same, people, fars=(), resamples=200).interval("auc")
    by_pairs = bootstrap([scores], same, None, fars=(), resamples=200).interval("auc")
    assert by_people[1] - by_people[0] > 1.5 * (by_pairs[1] - by_pairs[0])


def test_a_drop_is_paired():
    """A model against itself drops nothing in any draw; against noise it drops for sure."""
    scores, same = two_kinds(np.random.default_rng(8), 200, 1000, distance=3)
    noise = np.random.default_rng(9).normal(size=len(scores))
    assert bootstrap([scores, scores], same, None, resamples=50).drop("tar@1e-3") == (0.0, 0.0)
    low, high = bootstrap([scores, noise], same, None, resamples=50).drop("auc")
    assert 0.3 < low < high


def test_a_far_that_is_not_resolvable_has_no_interval():
    """With 500 impostor pairs there is none for 1e-3."""
    scores, same = two_kinds(np.random.default_rng(10), 50, 500)
    found = bootstrap([scores], same, None, resamples=20)
    assert found.interval("tar@1e-3") is None
    assert found.interval("auc") is not None


def test_two_people_are_too_few_for_most_draws():
    """Half the draws of two people hold one alone and no impostors; those are left out."""
    people = np.array([[0, 0], [1, 1], [0, 1], [0, 1]])
    scores, same = np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False])
    found = bootstrap([scores], same, people, fars=(), resamples=100, seed=1)
    finite = np.isfinite(found.figures["auc"][0])
    assert 20 < finite.sum() < 80
    assert set(found.figures["auc"][0][finite]) == {1.0}


def test_a_large_set_gets_fewer_resamples(monkeypatch):
    """The work is bounded: the number of resamples falls to 200 for a set that is too large."""
    monkeypatch.setattr(module, "_MOST_COUNTED", 1000)
    scores, same = two_kinds(np.random.default_rng(11), 10, 20)
    assert bootstrap([scores], same, None, fars=(), resamples=900).resamples == 200
    assert bootstrap([scores], same, None, fars=(), resamples=30).resamples == 30
