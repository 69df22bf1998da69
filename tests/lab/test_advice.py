"""Advice: each rule on both sides of its condition, in the figures that were measured."""

import pytest

from kiosk.lab.advice import Facts, LayerError, advise
from kiosk.lab.margin import GateLine, passes, tightest

ARM = {"architecture": "aarch64", "saturates": False}
LAYERS = (LayerError("a", 1e-5), LayerError("b", 2e-5), LayerError("c", 3e-5))


def gate(cosine):
    return (GateLine("min cosine", cosine, 0.98, 1.0), GateLine("mean MAE", 0.001, 0.005, 0.0))


# rule, weight, facts on its side, facts just on the other side, what it says in their figures
RULES = [
    (
        "overlap-unchecked",
        "hint",
        {"overlap_checked": False},
        {"overlap_checked": True},
        "overlap with the calibration pictures not checked.",
    ),
    ("few-held-out", "hint", {"holdout_faces": 49}, {"holdout_faces": 50}, "49 held-out faces."),
    ("few-held-out", "hint", {"holdout_faces": 1}, {}, "1 held-out face."),
    (
        "few-faces",
        "warning",
        {"calibration_faces": 49},
        {"calibration_faces": 100},
        "49 calibration faces.",
    ),
    (
        "few-faces",
        "hint",
        {"calibration_faces": 50},
        {"calibration_faces": 100},
        "50 calibration faces.",
    ),
    (
        "few-faces",
        "hint",
        {"calibration_faces": 99},
        {"calibration_faces": None},
        "99 calibration faces.",
    ),
    ("few-faces", "warning", {"calibration_faces": 1}, {}, "1 calibration face."),
    (
        "few-people",
        "hint",
        {"calibration_people": 19},
        {"calibration_people": 20},
        "Calibration knows 19 people.",
    ),
    ("few-people", "hint", {"calibration_people": 1}, {}, "Calibration knows one person."),
    (
        "gate-failed",
        "warning",
        {"gate": gate(0.98)},
        {"gate": gate(0.9801)},
        "min cosine: 0.9800, asked for > 0.98. The gate fails.",
    ),
    (
        "little-margin",
        "hint",
        {"gate": gate(0.983)},
        {"gate": gate(0.9845)},
        "min cosine: 0.9830, asked for > 0.98. 85% of the allowed loss is used up.",
    ),
    (
        "layers-that-hurt",
        "warning",
        {"layers": (*LAYERS, LayerError("stem", 1.1e-4))},
        {"layers": (*LAYERS, LayerError("stem", 9.9e-5))},
        "Local error against a median of 2.5e-05: stem (0.00011).",
    ),
    (
        "layers-that-hurt",
        "hint",
        {"layers": (*LAYERS, LayerError("stem", 1.1e-4)), "gate": gate(0.99)},
        {"layers": (*LAYERS, LayerError("stem", 1.1e-4, in_int8=False)), "gate": gate(0.99)},
        "stem",
    ),
    (
        "dynamic-slower",
        "warning",
        {"method": "dynamic", "latency_fp32_ms": 4.0, "latency_int8_ms": 10.0},
        {"method": "dynamic", "latency_fp32_ms": 4.0, "latency_int8_ms": 4.0},
        "10.00 ms in INT8, 4.00 ms in FP32 (best times): 2.50 times as long.",
    ),
    (
        "int8-slower",
        "warning",
        {
            "method": "static",
            "latency_fp32_ms": 6.66,
            "latency_int8_ms": 7.19,
            "latency_figure": "medians",
            "costliest": ("PRelu", 0.64),
        },
        {"method": "static", "latency_fp32_ms": 6.66, "latency_int8_ms": 6.65},
        "7.19 ms in INT8, 6.66 ms in FP32 (medians): 1.08 times as long. PRelu takes 64% of it.",
    ),
    (
        "saturates",
        "warning",
        {"architecture": "x86_64", "saturates": True},
        {"architecture": "x86_64", "saturates": False},
        "This CPU (x86_64) has no VNNI",
    ),
    (
        "no-dot-product",
        "hint",
        {**ARM, "dot_product": False},
        {**ARM, "dot_product": True},
        "This CPU (aarch64) has no dot product (asimddp).",
    ),
    (
        "no-dot-product",
        "hint",
        {"architecture": "x86_64", "dot_product": False},
        {"architecture": "x86_64", "dot_product": False, "saturates": True},
        "This CPU (x86_64) has no dot product (VNNI).",
    ),
    (
        "per-tensor",
        "warning",
        {"per_channel": False, "cosine_mean": 0.6617},
        {"per_channel": True, "cosine_mean": 0.6617},
        "One scale for all channels of a layer's weights: mean cosine 0.6617.",
    ),
    (
        "per-tensor",
        "warning",
        {"per_channel": False, "fewest_steps": ("deep_weight", 15)},
        {"per_channel": False, "fewest_steps": ("deep_weight", 16)},
        "weights: the smallest channel of deep_weight has 15 of 127 steps.",
    ),
    (
        "per-tensor",
        "warning",
        {"per_channel": False, "fewest_steps": ("deep_weight", 90), "gate": gate(0.9)},
        {"per_channel": False, "fewest_steps": ("deep_weight", 90), "gate": gate(0.999)},
        "90 of 127 steps.",
    ),
    (
        "min-max",
        "hint",
        {"calibration_method": "MinMax", "gate": gate(0.983)},
        {"calibration_method": "Percentile", "gate": gate(0.983)},
        "MinMax ranges, and min cosine uses 85% of its allowed loss.",
    ),
    (
        "min-max",
        "hint",
        {"calibration_method": "MinMax", "gate": gate(0.983)},
        {"calibration_method": "MinMax", "gate": gate(0.9845)},
        "85%",
    ),
    ("prelu-nodes", "hint", {"prelu_nodes": 33}, {"prelu_nodes": 0}, "33 PRelu nodes left"),
    (
        "prelu-nodes",
        "hint",
        {"prelu_nodes": 1, "prelu_share": 0.644},
        {},
        "1 PRelu node left in the graph, 64% of the time.",
    ),
    (
        "steep-slopes",
        "hint",
        {"slopes": 3456, "slopes_above_one": 1234},
        {"slopes": 3456, "slopes_above_one": 0},
        "1,234 of 3,456 PReLU slopes are above 1.",
    ),
    (
        "hardly-smaller",
        "hint",
        {"bytes_fp32": 5_184_336, "bytes_int8": 2_600_000},
        {"bytes_fp32": 5_184_336, "bytes_int8": 2_592_168},
        "2,600,000 bytes, 50% of FP32's 5,184,336.",
    ),
]


def keys(facts):
    return [advice.key for advice in advise(Facts(**facts))]


@pytest.mark.parametrize(("key", "weight", "inside", "outside", "told"), RULES)
def test_a_rule_speaks_on_its_side_only(key, weight, inside, outside, told):
    """Each rule speaks when its condition holds, in the user's figures, and is silent otherwise."""
    found = {advice.key: advice for advice in advise(Facts(**inside))}
    assert found[key].weight == weight
    assert told in found[key].seen
    assert found[key].why.endswith(".")
    assert found[key].do.endswith(".")
    assert key not in keys(outside)


def test_nothing_known_is_nothing_advised():
    """What was not measured gives no advice."""
    assert advise(Facts()) == ()


def test_few_faces_are_a_fault_below_fifty():
    """49 faces are a warning, 50 a hint, 100 are enough."""
    weights = [[a.weight for a in advise(Facts(calibration_faces=n))] for n in (49, 50, 99, 100)]
    assert weights == [["warning"], ["hint"], ["hint"], []]


def test_warnings_come_first():
    """A warning of a later rule stands before the hint of an earlier one."""
    found = advise(Facts(calibration_people=3, prelu_nodes=1, per_channel=False))
    assert [advice.weight for advice in found] == ["warning", "hint", "hint"]
    assert found[0].key == "per-tensor"


def test_a_failing_gate_is_not_also_a_little_margin():
    """One gate gives one piece of advice: failed, or close, or none."""
    assert keys({"gate": gate(0.9)}) == ["gate-failed"]
    assert keys({"gate": gate(0.981)}) == ["little-margin"]
    assert keys({"gate": gate(0.999)}) == []
    assert keys({"gate": gate(float("nan"))}) == ["gate-failed"]


def test_int8_that_is_slower_is_told_what_else_there_is():
    """The format to try is the other one, and none where the format is not known."""
    slow = {"latency_fp32_ms": 1.0, "latency_int8_ms": 2.0}
    said = {f: advise(Facts(**slow, format=f))[0].do for f in ("QDQ", "QOperator", None)}
    assert "try QOperator" in said["QDQ"]
    assert "try QDQ" in said["QOperator"]
    assert "try" not in said[None]


def test_no_more_than_four_layers_are_named():
    """The worst four by name, worst first; the rest is counted."""
    bad = tuple(LayerError(f"bad{n}", n * 1e-3) for n in range(1, 7))
    good = tuple(LayerError(f"good{n}", 1e-5) for n in range(20))
    seen = advise(Facts(layers=(*good, *bad)))[0].seen
    assert "bad6 (0.006), bad5 (0.005), bad4 (0.004), bad3 (0.003) and 2 more" in seen
    assert "bad2" not in seen


def test_two_layers_have_no_median_to_exceed():
    """With fewer than three layers in INT8 none is called the one that hurts."""
    assert keys({"layers": (LayerError("a", 1.0), LayerError("b", 1e-9))}) == []


@pytest.mark.parametrize(
    ("line", "passed", "used"),
    [
        (GateLine("mean cosine", 0.9975, 0.995, 1.0), True, 0.5),
        (GateLine("mean cosine", 0.995, 0.995, 1.0), False, 1.0),
        (GateLine("mean MAE", 0.004, 0.005, 0.0), True, 0.8),
        (GateLine("mean MAE", 0.005, 0.005, 0.0), False, 1.0),
        (GateLine("AUC drop", -0.001, 0.01, 0.0), True, 0.0),
        (GateLine("TAR@1e-3 drop", 0.02, 0.01, 0.0), False, 2.0),
    ],
)
def test_limits_are_strict_and_the_loss_is_measured_from_fp32(line, passed, used):
    """The limit itself fails; better than FP32 has used nothing."""
    assert line.passed is passed
    assert line.used == pytest.approx(used)
    assert line.sign == (">" if line.best == 1.0 else "<")


def test_nan_passes_no_gate_and_is_the_tightest():
    """A figure that is not a number fails its line, and no line at all is no pass."""
    nan = GateLine("mean MAE", float("nan"), 0.005, 0.0)
    assert not passes((*gate(0.99), nan))
    assert tightest((*gate(0.9), nan)) is nan
    assert not passes(())


def test_a_rewrite_that_was_done_is_not_advised():
    """Nothing is left to rewrite in what a build made."""
    slower = {"method": "static", "latency_fp32_ms": 6.0, "latency_int8_ms": 7.0}
    (plain,), (done,) = advise(Facts(**slower)), advise(Facts(**slower, prelu_rewritten=True))
    assert (plain.key, done.key) == ("int8-slower", "int8-slower")
    assert "rewrite PReLU" in plain.do
    assert done.do == "See the profile by operator, and run FP32 on this machine."
