"""The gate: every limit on both sides of it, and what is not judged."""

from dataclasses import replace

import numpy as np
import pytest

from kiosk.lab.agreement import Agreement
from kiosk.lab.gate import beside, failing, judge, not_judged, passes, shortfall, unjudged
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
    lines = judge(replace(GOOD, **change), curve(), curve())
    assert [line.name for line in failing(lines)] == [name]
    assert not passes(lines)


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
    """Not judged is neither failed nor passed: the gate stays shut, and the reason is told."""
    lines = judge(GOOD, why_no_roc="no folder for each person")
    assert [line.name for line in unjudged(lines)] == ["AUC drop", "TAR@1e-3 drop"]
    assert {line.note for line in unjudged(lines)} == {"no folder for each person"}
    assert not passes(lines)
    assert shortfall(lines) == ("AUC drop, TAR@1e-3 drop: not judged (no folder for each person)")


def test_lines_left_out_by_word_do_not_shut_the_gate():
    """Cosine and MAE alone decide, curves or not; what was left out stays named."""
    for curves in ((), (curve(), curve(missed=500))):
        lines = judge(GOOD, *curves, identities=False)
        assert passes(lines)
        assert not shortfall(lines)
        assert not_judged(lines) == [
            {"line": name, "why": "left out, --no-identities"}
            for name in ("AUC drop", "TAR@1e-3 drop")
        ]
    assert not passes(judge(replace(GOOD, min_cosine=0.9), identities=False))


@pytest.mark.parametrize(("genuine", "impostors"), [(99, 2000), (1000, 999)])
def test_too_few_pairs_are_not_judged(genuine, impostors):
    """Below 100 genuine or 1000 impostor pairs the drops are told as open, with the counts."""
    few = curve(genuine=genuine, impostors=impostors)
    assert not passes(judge(GOOD, few, few))
    lines = named(judge(GOOD, few, few))
    for name in ("AUC drop", "TAR@1e-3 drop"):
        assert lines[name].is_open
        assert f"got {genuine} and {impostors}" in lines[name].note


def test_a_figure_that_rounds_to_its_limit_is_shown_in_full():
    """0.9949999 is not shown as 0.995000, which would read as if the gate were wrong."""
    line = judge(replace(GOOD, mean_cosine=0.99499999))[0]
    assert (line.passed, line.figure) == (False, "0.99499999")
    assert judge(GOOD)[0].figure == "0.997000"


@pytest.mark.parametrize(
    ("value", "limit", "digits", "text"),
    [
        (0.99496, 0.995, 4, "0.99496"),
        (0.995, 0.995, 4, "0.9950"),
        (0.99504, 0.995, 4, "0.99504"),
        (0.9912, 0.995, 4, "0.9912"),
        (0.99499999, 0.995, 6, "0.99499999"),
        (-0.00001, None, 2, "0.00"),
        (float("nan"), 0.995, 4, "nan"),
    ],
)
def test_a_figure_has_the_digits_that_tell_it_from_its_limit(value, limit, digits, text):
    """Four decimals would show a figure that fails as its limit; nought has no sign."""
    assert beside(value, limit, digits) == text
