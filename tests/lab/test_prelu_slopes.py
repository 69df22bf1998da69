"""Slopes above one turned below, the maximum, and every form of PReLU in FP32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.lab.graph import Net
from kiosk.lab.prelu import as_max, slope_of, with_slopes_below_one
from kiosk.lab.prepare import FLOAT_FORMS, float_forms
from lab.nets import Sketch, ires, kinds, mobile, mobile_sketch, subject_of
from lab.test_fold import assert_same

SIDES = [1, 3, 8, 8]
STEEP = [1.5, -0.3, 8.9, 1.0, 0.0, 2.0]


def chain(slopes, *, group=1):
    """Convolution, PReLU with these slopes, convolution."""
    sketch = Sketch(1)
    x = sketch.prelu(sketch.conv("image", "one", (6, 3)), "p", 6, slopes)
    return sketch.model(sketch.conv(x, "out", (6, 6), group=group), SIDES)


def residual(slopes):
    """A PReLU that a convolution and an Add read."""
    sketch = Sketch(2)
    x = sketch.prelu(sketch.conv("image", "one", (6, 3)), "p", 6, slopes)
    sketch.node("Add", [x, sketch.conv(x, "two", (6, 6))], "out")
    return sketch.model("out", SIDES)


def slopes_in(model):
    net = Net(model)
    return [slope_of(net, node) for node in net.nodes if node.op_type == "PRelu"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-9, 9, width=32), min_size=6, max_size=6), st.sampled_from([1, 2, 6]))
def test_turned_slopes_are_at_most_one_and_exact(slopes, group):
    """Whatever the slopes: none exceeds 1 afterwards, and the output is the same."""
    model = chain(slopes, group=group)
    turned = with_slopes_below_one(model)
    assert slopes_in(turned)[0].max() <= 1.0
    assert_same(model, turned)
    assert_same(model, as_max(turned))
    assert kinds(as_max(turned)) == {"Conv": 2, "Mul": 1, "Max": 1}


def test_max_of_steep_slopes_takes_four_operators():
    """max(x, a*x) is another function above slope 1: the form falls back by itself."""
    model = chain(STEEP)
    assert kinds(as_max(model)) == {"Conv": 2, "Mul": 2, "Relu": 1, "Add": 1}
    assert_same(model, as_max(model))


def test_a_prelu_into_an_add_is_not_turned():
    """The Add could not take the sign back: slopes stay, and the maximum falls back to four."""
    model = residual(STEEP)
    turned = with_slopes_below_one(model)
    assert np.array_equal(slopes_in(turned)[0], slopes_in(model)[0])
    assert kinds(as_max(turned)) == {"Conv": 2, "Mul": 2, "Relu": 1, "Add": 2}
    assert_same(model, as_max(turned))


@pytest.mark.parametrize("slope", [0.25, 2.5])
@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
def test_one_slope_for_all_is_spread_over_the_channels(slope, shape):
    """A shared slope becomes one for each channel, so that each can be turned."""
    model = chain(np.full(6, slope))
    sketch = Sketch(1)
    x = sketch.conv("image", "one", (6, 3))
    sketch.const("p_slope", np.full(shape, slope))
    x = sketch.conv(sketch.node("PRelu", [x, "p_slope"], "p"), "out", (6, 6))
    shared = sketch.model(x, SIDES)
    turned = with_slopes_below_one(shared)
    assert slopes_in(turned)[0].shape == (6,)
    assert slopes_in(turned)[0].max() <= 1.0
    assert_same(shared, turned)
    assert_same(model, turned)


def test_slopes_that_two_prelus_share_are_not_turned():
    """Turning the constant of one would turn the other's."""
    sketch = Sketch(3)
    x = sketch.prelu(sketch.conv("image", "one", (6, 3)), "p", 6, STEEP)
    x = sketch.conv(x, "two", (6, 6))
    x = sketch.conv(sketch.node("PRelu", [x, "p_slope"], "q"), "out", (6, 6))
    model = sketch.model(x, SIDES)
    assert_same(model, with_slopes_below_one(model))
    assert np.array_equal(slopes_in(with_slopes_below_one(model))[1], np.float32(STEEP))


def test_one_slope_shared_by_two_prelus_is_spread_for_each():
    """A single constant for the whole network, as some exports have it."""
    sketch = Sketch(3)
    sketch.const("slope", np.full((1, 1, 1), 3.0))
    x = sketch.node("PRelu", [sketch.conv("image", "one", (6, 3)), "slope"], "p")
    x = sketch.node("PRelu", [sketch.conv(x, "two", (6, 6)), "slope"], "q")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    turned = with_slopes_below_one(model)
    assert max(slope.max() for slope in slopes_in(turned)) <= 1.0
    assert_same(model, turned)


@pytest.mark.parametrize("name", FLOAT_FORMS)
def test_a_model_without_prelu_is_untouched(name):
    """There is nothing to rewrite: the same nodes and weights come out."""
    sketch = Sketch(4)
    x = sketch.node("Relu", [sketch.conv("image", "one", (6, 3))], "r")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    result = FLOAT_FORMS[name](model)
    assert list(result.graph.node) == list(model.graph.node)
    assert list(result.graph.initializer) == list(model.graph.initializer)


NETS = {
    "mobile": lambda: mobile(3),
    "iresnet": lambda: ires(4),
    "steep": lambda: chain(STEEP),
    "residual": lambda: residual(STEEP),
    "near one": lambda: chain([1.0, 1 + 1e-7, 1 - 1e-5, 0.999, 1.001, 1.0]),
    "depthwise after": lambda: chain(STEEP, group=6),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", FLOAT_FORMS)
def test_every_form_of_every_net_is_exact(name, net):
    """All forms that are measured against each other are the same function."""
    model = NETS[net]()
    result = FLOAT_FORMS[name](model)
    assert_same(model, result)
    assert "PRelu" not in kinds(result) or name == "PRelu nodes"


def test_a_prelu_after_a_gemm_takes_a_form_for_rows(tmp_path):
    """PReLU on the features themselves, (N, C) with a slope for each, in every form."""
    sketch = mobile_sketch(5)
    sketch.const("rows", np.linspace(-1, 3, 64))
    x = sketch.node("PRelu", ["embedding", "rows"], "out")
    model = sketch.model(x, [1, 3, 112, 112], shape=[1, 64])
    for form in float_forms(subject_of(model, tmp_path / "model.onnx")).values():
        assert_same(model, form)
