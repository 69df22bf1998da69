"""The integer form computes what its QDQ twin says, in the shapes of the FP32 file."""

import numpy as np
import onnx
import pytest

from kiosk.errors import ModelError
from kiosk.lab.assemble import Plan, assemble
from kiosk.lab.calibrate import write_ranges
from kiosk.lab.integer import in_integers, with_float_sums
from kiosk.lab.prelu import as_max, with_slopes_below_one
from kiosk.lab.quantise import Recipe, in_int8, quantised
from kiosk.lab.runner import session_of
from lab.nets import Sketch, kinds, mobile, noise

SIDES = [1, 6, 8, 8]
MOST_STEPS = 2


def recipe_of(graph, **choices):
    """7-bit weights: x86 without VNNI would saturate in sums of 8-bit ones."""
    exclude = tuple(n.name for n in graph.graph.node if n.name.startswith("prelu_"))
    return Recipe(calibration="MinMax", reduce_range=True, exclude=exclude, **choices)


def both(model, tmp_path, **choices):
    """The twin that reference arithmetic can run, and the integer form."""
    graph = as_max(with_slopes_below_one(model))
    recipe = recipe_of(graph, **choices)
    options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
    write_ranges(graph, noise(graph, 4), tmp_path / "r.json", **options)
    plan = Plan("nhwc", recipe, {})
    made = assemble(graph, {}, plan, tmp_path / "r.json")
    return made.judged, made.shipped


def assert_alike(model, judged, shipped):
    """The integer form is its twin within two steps, and far nearer to it than FP32 is."""
    one, two = session_of(judged, threads=1, arithmetic="reference"), session_of(shipped)
    plain = session_of(model)
    apart, moved = [], []
    for values in noise(model, 4, seed=9):
        fed = {"image": values}
        expected, got, fp32 = (s.run(None, fed)[0] for s in (one, two, plain))
        assert got.shape == expected.shape == fp32.shape
        # Bit for bit on most nets: a tie in rounding may fall to either side.
        steps = np.abs(got - expected).max() / (np.abs(expected).max() / 127)
        assert steps <= MOST_STEPS
        apart.append(np.square(got - expected).mean())
        moved.append(np.square(fp32 - expected).mean())
    assert sum(apart) < 0.05 * sum(moved)


@pytest.mark.parametrize("kind", ["S8", "U8"])
def test_a_mobile_net_in_integers_is_its_twin(tmp_path, kind):
    """Dense, depthwise and 1x1 layers, PReLU, a residual Add, Flatten and Gemm."""
    model = mobile(0)
    judged, shipped = both(model, tmp_path, activations=kind)
    assert_alike(model, judged, shipped)
    assert in_int8(shipped) == in_int8(judged) == (7, 7)
    found = kinds(shipped)
    assert found["MatMulIntegerToFloat"] == 3 - kinds_read_by_integers(judged)
    assert found["QLinearConv"] == 6 - found["MatMulIntegerToFloat"]
    assert {"PRelu", "Conv", "QuantizeLinear"} - set(found) == {"PRelu", "Conv"}
    assert {o.domain for o in shipped.opset_import} >= {"", "com.microsoft"}


def kinds_read_by_integers(judged):
    """1x1 layers that keep their 8-bit output: their pair of Q and DQ stands in the twin."""
    read = {node.input[0] for node in judged.graph.node if node.op_type == "QuantizeLinear"}
    return sum(name in read for name in ("wide", "narrow", "last"))


def test_the_sums_of_a_1x1_layer_reach_prelu_in_float(tmp_path):
    """The twin has no 8-bit step there, and only there."""
    judged, _ = both(mobile(0), tmp_path)
    rounded = {n.input[0] for n in judged.graph.node if n.op_type == "QuantizeLinear"}
    assert "wide" not in rounded
    assert {"stem", "deep", "down"} <= rounded


def test_channels_last_is_entered_and_left_once(tmp_path):
    """A net of convolutions and PReLU alone is transposed at its two ends, nowhere else."""
    sketch = Sketch(1)
    x = sketch.prelu(sketch.conv("image", "one", (6, 6)), "p", 6)
    x = sketch.prelu(sketch.conv(x, "two", (6, 6), side=1), "q", 6)
    model = sketch.model(sketch.conv(x, "out", (6, 6), group=6), SIDES)
    judged, shipped = both(model, tmp_path)
    assert kinds(shipped)["Transpose"] == 2
    assert_alike(model, judged, shipped)


@pytest.mark.parametrize("side", [1, 3])
def test_a_convolution_that_gives_the_output_gives_it_channels_first(tmp_path, side):
    """Whoever runs the file finds the shape that the FP32 file has."""
    sketch = Sketch(2)
    x = sketch.prelu(sketch.conv("image", "one", (6, 6)), "p", 6)
    model = sketch.model(sketch.conv(x, "out", (4, 6), side=side), SIDES)
    judged, shipped = both(model, tmp_path)
    assert [o.name for o in shipped.graph.output] == ["out"]
    assert_alike(model, judged, shipped)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool", "GlobalAveragePool"])
def test_an_operator_of_channels_first_gets_them_so(tmp_path, pool):
    """Pooling has no channels-last form: transposed back before it, and on after it."""
    sketch = Sketch(3)
    x = sketch.prelu(sketch.conv("image", "one", (6, 6)), "p", 6)
    options = {} if pool == "GlobalAveragePool" else {"kernel_shape": [2, 2], "strides": [2, 2]}
    x = sketch.node(pool, [x], "pool", **options)
    model = sketch.model(sketch.conv(x, "out", (6, 6), side=1), SIDES)
    judged, shipped = both(model, tmp_path)
    assert kinds(shipped)[pool] == 1
    assert_alike(model, judged, shipped)


def test_a_sum_of_both_orders_is_put_in_one(tmp_path):
    """An Add of a convolution's result and of the picture itself."""
    sketch = Sketch(4)
    x = sketch.node("Add", [sketch.conv("image", "one", (6, 6), side=1), "image"], "sum")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    judged, shipped = both(model, tmp_path)
    assert_alike(model, judged, shipped)


def test_a_1x1_result_with_two_readers_stays_rounded_in_both(tmp_path):
    """Where integers and floats read one tensor, twin and integer form agree on its 8 bits."""
    sketch = Sketch(5)
    x = sketch.conv("image", "one", (6, 6), side=1)
    y = sketch.conv(x, "two", (6, 6), side=1)
    x = sketch.node("Add", [sketch.prelu(x, "p", 6), y], "sum")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    judged, shipped = both(model, tmp_path)
    assert_alike(model, judged, shipped)


def test_a_stride_or_padding_makes_no_matrix(tmp_path):
    """A strided or padded 1x1 layer stays a convolution."""
    for options in ({"stride": 2}, {"pad": 1}):
        sketch = Sketch(6)
        x = sketch.prelu(sketch.conv("image", "one", (6, 6), side=1, **options), "p", 6)
        model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
        judged, shipped = both(model, tmp_path)
        assert kinds(shipped)["MatMulIntegerToFloat"] == 0
        assert_alike(model, judged, shipped)


def test_layers_without_bias_and_layers_in_fp32_are_taken(tmp_path):
    """A float convolution in the middle gets channels first; no bias is no input."""
    sketch = Sketch(7)
    x = sketch.prelu(sketch.conv("image", "one", (6, 6), side=1, bias=False), "p", 6)
    x = sketch.prelu(sketch.conv(x, "float", (6, 6)), "q", 6)
    model = sketch.model(sketch.conv(x, "out", (6, 6), bias=False), SIDES)
    graph = as_max(with_slopes_below_one(model))
    recipe = recipe_of(graph)
    options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
    write_ranges(graph, noise(graph, 4), tmp_path / "r.json", **options)
    kept = Recipe(calibration="MinMax", reduce_range=True, exclude=("Conv_float", *recipe.exclude))
    made = assemble(graph, {}, Plan("nhwc", kept, {}), tmp_path / "r.json")
    assert kinds(made.shipped)["Conv"] == 1
    assert_alike(model, made.judged, made.shipped)


def test_unsigned_weights_have_no_integer_form(tmp_path):
    """Their zero point has no place in it: refused, with the layer's name."""
    model = mobile(0)
    with pytest.raises(ModelError, match=r"symmetric weights expected in .*wide"):
        both(model, tmp_path, weights="U8", activations="U8", per_channel=False)


def test_a_constant_for_each_pixel_has_no_integer_form(tmp_path):
    """Mul by a plane is not one value for each channel: refused, with the node's name."""
    sketch = Sketch(8)
    x = sketch.conv("image", "one", (6, 6))
    x = sketch.node("Mul", [x, sketch.const("plane", np.full((1, 1, 8, 8), 0.5))], "m")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    with pytest.raises(ModelError, match="one value for each channel expected in Mul_m"):
        both(model, tmp_path)


def test_a_constant_for_each_column_has_no_integer_form(tmp_path):
    """A row of eight values belongs to the eight columns of a picture, not to channels."""
    sketch = Sketch(8)
    x = sketch.conv("image", "one", (8, 6))
    x = sketch.node("Mul", [x, sketch.const("row", np.linspace(0, 1, 8))], "m")
    model = sketch.model(sketch.conv(x, "out", (6, 8)), SIDES)
    with pytest.raises(ModelError, match="one value for each channel expected in Mul_m"):
        both(model, tmp_path)


def test_the_graphs_given_are_left_as_they_were(tmp_path):
    """Both functions work on copies."""
    graph = as_max(mobile(0))
    recipe = recipe_of(graph)
    options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
    write_ranges(graph, noise(graph, 2), tmp_path / "r.json", **options)
    for change, form in ((with_float_sums, "QDQ"), (in_integers, "QOperator")):
        made = quantised(
            graph, Recipe(**{**recipe.document(), "format": form}), tmp_path / "r.json"
        )
        copy = onnx.ModelProto.FromString(made.SerializeToString())
        change(made)
        assert made == copy
