"""8-bit sums: two processors part where a pair of values lies near a tie; once moved none does."""

import platform
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kiosk.errors import ModelError
from kiosk.lab.assemble import Plan, shipped_graph
from kiosk.lab.calibrate import read_ranges, widen, write_ranges
from kiosk.lab.quantise import Recipe, quantised, recipe_from, to_bytes
from kiosk.lab.runner import session_of
from kiosk.lab.ties import LEAST_MARGIN, MOST_STEPS, whole_steps, write_without_ties
from lab.nets import mobile, noise
from lab.sums import Sum, sums_of

NEAR = Sum((0.4248921275138855, 0.4875923991203308, 0.5047643780708313), (138, 121, 127), (0, 255))
"""A sum of a MobileFaceNet as its ranges were calibrated: four pairs lie within 2e-6 of a tie."""
SIGNED = Sum((0.3125, 0.4375, 0.5), (0, 0, 0), (-128, 127))
"""A sum with pairs that are ties, in exact arithmetic too."""


def moved(one):
    """The sum with the scales that `whole_steps` gives it."""
    scales = whole_steps(dict(zip("abc", one.scales, strict=True)), {"c"})
    return replace(one, scales=tuple(step * steps for step, steps in scales.values()))


def all_pairs(one):
    """What onnxruntime makes here of every pair of values."""
    kind = np.dtype(np.uint8 if one.ends[0] == 0 else np.int8)
    code = helper.np_dtype_to_tensor_dtype(kind)
    constants = []
    for name, scale, zero in zip("abc", one.scales, one.zeros, strict=True):
        constants.append(helper.make_tensor(f"{name}s", TensorProto.FLOAT, [], [scale]))
        constants.append(helper.make_tensor(f"{name}z", code, [], [zero]))
    names = [f"{name}{part}" for name in "abc" for part in ("", "s", "z")]
    names.remove("c")
    values = [helper.make_tensor_value_info(name, code, [256, 256]) for name in "abc"]
    node = helper.make_node("QLinearAdd", names, ["c"], domain="com.microsoft")
    graph = helper.make_graph([node], "sum", values[:2], values[2:], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    session = session_of(helper.make_model(graph, opset_imports=opsets, ir_version=8), threads=1)
    every = np.arange(one.ends[0], one.ends[1] + 1).astype(kind)
    first, second = np.repeat(every[:, None], 256, axis=1), np.repeat(every[None], 256, axis=0)
    return session.run(None, {"a": first, "b": second})[0].astype(np.int64)


@pytest.mark.parametrize("one", [NEAR, SIGNED])
def test_two_processors_part_near_a_tie(one):
    """As calibrated, float32 and fixed point round some pairs to different sides."""
    assert one.margin() < 1e-5
    assert (one.in_float32() != one.in_fixed_point()).any()


@pytest.mark.parametrize("one", [NEAR, SIGNED])
def test_after_the_move_every_order_gives_the_same(one):
    """No pair that is not clipped lies near a tie; all 65,536 come out as exact ones do."""
    after = moved(one)
    assert after.margin() >= LEAST_MARGIN * 0.9999
    expected = np.clip(np.rint(after.exact()), *after.ends)
    assert (after.in_float32() == expected).all()
    assert (after.in_fixed_point() == expected).all()
    assert (all_pairs(after) == expected).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the arithmetic of x86 is told")
def test_the_arithmetic_of_this_processor_is_the_one_told():
    """onnxruntime on x86 gives what `in_float32` says, near ties too."""
    assert (all_pairs(NEAR) == NEAR.in_float32()).all()


def test_scales_become_whole_steps_and_move_little():
    """Up, by less than 1 %; a result's number of steps is odd, the step a power of two."""
    scales = {"a": 0.0123, "b": 0.017, "c": 0.0199}
    found = whole_steps(scales, {"c"})
    assert set(found) == set(scales)
    for name, (step, steps) in found.items():
        assert np.frexp(step)[0] == 0.5
        assert 1.0 <= step * steps / scales[name] < 1.01
        assert steps <= MOST_STEPS
        assert np.float32(step * steps) == step * steps
    assert found["c"][1] % 2 == 1


@pytest.mark.parametrize("least", [0.0, 0.001, float("inf"), float("nan")])
def test_scales_that_have_no_step_in_common_stay(least):
    """One that is no scale, or so small beside the others that a step would be coarse for it."""
    assert whole_steps({"a": least, "b": 0.9, "c": 1.0}, {"c"}) == {}


@pytest.fixture(scope="module")
def model():
    return mobile(0)


@pytest.fixture
def ranges(model, tmp_path):
    path = tmp_path / "ranges.json"
    options = {"method": "MinMax", "percentile": 100.0, "op_types": Recipe().op_types}
    write_ranges(model, noise(model, 4), path, **options)
    return path


def recipe_of(model, **choices):
    exclude = tuple(n.name for n in model.graph.node if n.op_type == "PRelu")
    return Recipe(calibration="MinMax", exclude=exclude, **choices)


@pytest.mark.parametrize("form", ["qdq", "nhwc"])
@pytest.mark.parametrize("kind", ["S8", "U8"])
def test_a_quantised_graph_has_no_sum_near_a_tie(model, ranges, kind, form):
    """Signed and unsigned, as QDQ and in integer operators; as calibrated it may have."""
    plan = Plan(form, recipe_of(model, activations=kind, tie_free_sums=True), {})
    sums = sums_of(shipped_graph(model, plan, ranges))
    assert sums
    for one in sums:
        assert one.margin() >= LEAST_MARGIN * 0.9999
        assert (one.in_float32() == one.in_fixed_point()).all()


@pytest.mark.parametrize("kind", ["S8", "U8"])
def test_zero_points_and_other_scales_stay(model, ranges, kind):
    """Only the tensors of a sum get another scale, and by less than 1 %."""
    plain = recipe_of(model, activations=kind)
    before = quantised(model, plain, ranges)
    after = quantised(model, replace(plain, tie_free_sums=True), ranges)
    one, two = sums_of(before)[0], sums_of(after)[0]
    assert one.zeros == two.zeros
    for old, new in zip(one.scales, two.scales, strict=True):
        assert 0.9999 < new / old < 1.01
    ends = {f"{name}_scale" for name in _sum_of(model)}
    old, new = (_scales(m) for m in (before, after))
    assert {name for name in old if old[name] != new[name]} <= ends
    assert {name for name in ends if old[name] != new[name]}


def _sum_of(model):
    node = next(node for node in model.graph.node if node.op_type == "Add")
    return [*node.input, *node.output]


def _scales(model):
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor).tobytes()
        for tensor in model.graph.initializer
        if tensor.name.endswith("_scale") and not tensor.dims
    }


def test_a_range_becomes_no_narrower(model, ranges, tmp_path):
    """What was calibrated still fits; a sum that is left in FP32 keeps its ranges."""
    target = tmp_path / "even.json"
    write_without_ties(model, ranges, target, activations="S8")
    before, after = read_ranges(ranges), read_ranges(target)
    assert list(before) == list(after)
    for name in before:
        reach = [np.abs(np.ravel(each[name].range_value)).max() for each in (before, after)]
        assert reach[0] <= reach[1] <= 1.01 * reach[0]
    add = next(node.name for node in model.graph.node if node.op_type == "Add")
    write_without_ties(model, ranges, target, activations="S8", exclude=(add,))
    untouched = read_ranges(target)
    assert all(untouched[name].range_value == before[name].range_value for name in before)


def test_ranges_too_far_apart_are_left_alone(model, ranges, tmp_path):
    """A step that suits the largest scale would be too coarse for one a hundredth as large."""
    names = _sum_of(model)
    widen(ranges, names[:1], 0.005)
    write_without_ties(model, ranges, tmp_path / "even.json", activations="U8")
    before, after = read_ranges(ranges), read_ranges(tmp_path / "even.json")
    assert all(after[name].range_value == before[name].range_value for name in names)


def test_ranges_that_are_none_are_refused(model, tmp_path):
    """The file is named."""
    (tmp_path / "r.json").write_text("{}", encoding="ascii")
    with pytest.raises(ModelError, match=r"r\.json"):
        write_without_ties(model, tmp_path / "r.json", tmp_path / "even.json", activations="S8")


def test_a_record_from_before_is_quantised_as_it_was(model, ranges):
    """A recipe that does not speak of ties keeps the calibrated scales: its file keeps its hash."""
    document = recipe_of(model).document()
    del document["tie_free_sums"]
    old = recipe_from(document)
    assert not old.tie_free_sums
    assert to_bytes(quantised(model, old, ranges)) == to_bytes(
        quantised(model, recipe_of(model), ranges)
    )
