"""The gate: every limit on both sides of it, and what is not judged."""

from dataclasses import replace

import numpy as np
import pytest

from kiosk.lab.agreement import Agreement
from kiosk.lab.gate import failing, judge, passes, unjudged
from kiosk.lab.roc import measure

GOOD = Agreement(500, 0.997, 0.985, 0.99, 0.992, 0.998, 0.003, 0.006, 0.02)


def curve(*, missed=0, genuine=1000, impostors=2000):
    """A set in which so many genuine pairs lie below every impostor, the others above."""
    scores = np.concatenate(
        [np.full(missed, -1.0), np.full(genuine - missed, 0.9), np.linspace(0, 0.5, impostors)]
    )
    return measure(scores, np.arange(genuine + impostors) < genuine)


def named(lines):
    return {line.name: line for line in lines}


def test_a_good_model_passes_every_line():
    """All judged lines pass, and 1e-4 and 1e-5 have no limit."""
    lines = judge(GOOD, curve(), curve())
    assert passes(lines)
    assert not unjudged(lines)
    assert [line.name for line in lines if line.passed] == [
        "mean cosine",
        "min cosine",
        "mean MAE",
        "AUC drop",
        "TAR@1e-3 drop",
    ]
    assert [line.name for line in lines if not line.limit] == ["TAR@1e-4 drop", "TAR@1e-5 drop"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"mean_cosine": 0.995}, "mean cosine"),
        ({"min_cosine": 0.98}, "min cosine"),
        ({"mean_mae": 0.005}, "mean MAE"),
        ({"mean_cosine": float("nan")}, "mean cosine"),
    ],
)
def test_a_figure_at_its_limit_fails_alone(change, name):
    """Limits are strict; NaN fails; only the line concerned is named."""
    assert [line.name for line in failing(judge(replace(GOOD, **change)))] == [name]


def test_a_lost_percentage_point_fails():
    """Nine of 1000 genuine pairs lost pass, ten fail: 1 pp at FAR 1e-3, and 0.01 of AUC."""
    assert passes(judge(GOOD, curve(), curve(missed=9)))
    bad = failing(judge(GOOD, curve(), curve(missed=11)))
    assert [line.name for line in bad] == ["AUC drop", "TAR@1e-3 drop"]
    assert bad[1].got == pytest.approx(0.011)


def test_a_gain_passes():
    """An INT8 model that is better than its original does not fail for being different."""
    assert passes(judge(GOOD, curve(missed=50), curve()))


def test_without_curves_the_lines_are_open_and_say_why():
    """Not judged is neither passed nor failed, and is told with its reason."""
    lines = judge(GOOD, why_no_roc="no folder for each person")
    assert [line.name for line in unjudged(lines)] == ["AUC drop", "TAR@1e-3 drop"]
    assert {line.note for line in unjudged(lines)} == {"no folder for each person"}
    assert passes(lines)


@pytest.mark.parametrize(("genuine", "impostors"), [(99, 2000), (1000, 999)])
def test_too_few_pairs_are_not_judged(genuine, impostors):
    """Below 100 genuine or 1000 impostor pairs the drops are told as open, with the counts."""
    few = curve(genuine=genuine, impostors=impostors)
    lines = named(judge(GOOD, few, few))
    for name in ("AUC drop", "TAR@1e-3 drop"):
        assert lines[name].is_open
        assert f"got {genuine} and {impostors}" in lines[name].note


def test_a_figure_that_rounds_to_its_limit_is_shown_in_full():
    """0.9949999 is not shown as 0.995000, which would read as if the gate were wrong."""
    line = judge(replace(GOOD, mean_cosine=0.99499999))[0]
    assert (line.passed, line.figure) == (False, "0.99499999")
    assert judge(GOOD)[0].figure == "0.997000"
