"""Folding leaves the function as it is, and does not fold what would not fold exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from kiosk.lab.fold import folded
from kiosk.lab.graph import Net
from kiosk.lab.prepare import base_of
from kiosk.lab.runner import session_of
from kiosk.lab.subject import read_subject
from lab.nets import Sketch, ires, kinds, noise, values_of


def output_of(model, values):
    return session_of(model, threads=1).run(None, {"image": values})[0]


def assert_same(model, changed, tolerance=1e-5):
    """Equal on random pictures to 1e-5 of the output's length."""
    for values in noise(model, 2):
        before, after = output_of(model, values), output_of(changed, values)
        assert before.shape == after.shape
        length = np.linalg.norm(before.astype(np.float64))
        assert np.abs(after - before).max() <= tolerance * length


def image(channels=6, side=7):
    return [1, channels, side, side]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("outputs", "group"), [(6, 1), (6, 2), (6, 6), (12, 6)])
def test_a_normalisation_goes_into_the_convolution_before(outputs, group, bias):
    """With and without bias, dense, grouped, depthwise and with two outputs for each input."""
    sketch = Sketch()
    x = sketch.conv("image", "conv", (outputs, 6), group=group, bias=bias)
    model = sketch.model(sketch.norm(x, "out", outputs), image())
    result = folded(model)
    assert kinds(result) == {"Conv": 1}
    assert [o.name for o in result.graph.output] == ["out"]
    assert_same(model, result)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_normalisation_goes_through_flatten_into_gemm(transposed, bias):
    """Each channel's scale reaches all of its pixels, whichever way the matrix lies."""
    sketch = Sketch(1)
    x = sketch.node("Flatten", [sketch.norm("image", "n", 6)], "flat", axis=1)
    model = sketch.model(
        sketch.gemm(x, "out", 10, 6 * 49, transposed=transposed, bias=bias), image()
    )
    result = folded(model)
    assert kinds(result) == {"Flatten": 1, "Gemm": 1}
    assert_same(model, result)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("bias", ["none", "row", "matrix", "one for all"])
def test_a_normalisation_goes_into_the_gemm_before(transposed, bias):
    """The features' own normalisation, with every shape of bias that Gemm takes."""
    sketch = Sketch(2)
    x = sketch.node("Flatten", ["image"], "flat", axis=1)
    x = sketch.gemm(x, "features", 10, 6 * 49, transposed=transposed, bias=bias != "none")
    shapes = {"matrix": (1, 10), "one for all": (1,)}
    if bias in shapes:
        sketch.const("features_bias", np.resize(sketch.constants["features_bias"], shapes[bias]))
    model = sketch.model(sketch.norm(x, "out", 10), image())
    result = folded(model)
    assert kinds(result) == {"Flatten": 1, "Gemm": 1}
    assert_same(model, result)


@pytest.mark.parametrize("factor", ["alpha", "beta"])
def test_a_gemm_with_a_factor_of_its_own_is_left(factor):
    """alpha and beta would have to be taken into account: the normalisation stays."""
    sketch = Sketch(2)
    x = sketch.node("Flatten", ["image"], "flat", axis=1)
    x = sketch.gemm(x, "features", 10, 6 * 49)
    sketch.nodes[-1].attribute.append(helper.make_attribute(factor, 0.5))
    model = sketch.model(sketch.norm(x, "out", 10), image())
    assert kinds(folded(model))["BatchNormalization"] == 1
    assert_same(model, folded(model))


def test_a_normalisation_goes_into_an_unpadded_convolution():
    """Without padding each of the convolution's inputs has been normalised."""
    sketch = Sketch(3)
    x = sketch.conv(sketch.norm("image", "n", 6), "out", (4, 6), pad=0)
    model = sketch.model(x, image())
    assert kinds(folded(model)) == {"Conv": 1}
    assert_same(model, folded(model))


def test_the_word_for_explicit_padding_is_no_padding():
    """auto_pad NOTSET, as PyTorch writes it, means that `pads` counts: none there."""
    sketch = Sketch(3)
    x = sketch.conv(sketch.norm("image", "n", 6), "out", (4, 6), pad=0)
    sketch.nodes[-1].attribute.append(helper.make_attribute("auto_pad", "NOTSET"))
    model = sketch.model(x, image())
    assert kinds(folded(model)) == {"Conv": 1}
    assert_same(model, folded(model))


def test_a_normalisation_before_a_padded_convolution_stays():
    """Zeros of the border are not normalised: folding as if unpadded gives another function."""
    sketch = Sketch(4)
    x = sketch.conv(sketch.norm("image", "n", 6), "out", (4, 6))
    model = sketch.model(x, image())
    assert kinds(folded(model)) == {"BatchNormalization": 1, "Conv": 1}
    assert_same(model, folded(model))
    unpadded = Sketch(4)
    x = unpadded.conv(unpadded.norm("image", "n", 6), "out", (4, 6), pad=0)
    wrong = folded(unpadded.model(x, image()))
    assert kinds(wrong) == {"Conv": 1}
    next(a for a in wrong.graph.node[0].attribute if a.name == "pads").ints[:] = [1] * 4
    wrong.graph.output[0].CopyFrom(model.graph.output[0])
    with pytest.raises(AssertionError):
        assert_same(model, wrong, tolerance=1e-2)


def test_same_padding_is_padding():
    """auto_pad SAME_UPPER pads as well: the normalisation stays."""
    sketch = Sketch(4)
    x = sketch.conv(sketch.norm("image", "n", 6), "out", (4, 6))
    kept = [a for a in sketch.nodes[-1].attribute if a.name != "pads"]
    del sketch.nodes[-1].attribute[:]
    sketch.nodes[-1].attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_UPPER")])
    model = sketch.model(x, image())
    assert kinds(folded(model))["BatchNormalization"] == 1
    assert_same(model, folded(model))


def test_a_tensor_with_another_reader_keeps_its_normalisation_apart():
    """Folding into what two nodes read would change the other one's input."""
    sketch = Sketch(5)
    x = sketch.conv("image", "conv", (6, 6))
    sketch.node("Add", [sketch.norm(x, "n", 6), x], "out")
    model = sketch.model("out", image())
    assert kinds(folded(model)) == {"Conv": 1, "BatchNormalization": 1, "Add": 1}
    assert_same(model, folded(model))


def test_a_convolution_that_is_an_output_keeps_its_values():
    """What leaves the graph before the normalisation must leave it as before."""
    sketch = Sketch(5)
    x = sketch.conv("image", "conv", (6, 6))
    model = sketch.model(sketch.norm(x, "out", 6), image())
    model.graph.output.append(helper.make_tensor_value_info("conv", 1, image()))
    result = folded(model)
    assert [o.name for o in result.graph.output] == ["out", "conv"]
    assert kinds(result)["BatchNormalization"] == 1


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_weights_of_two_convolutions_are_not_touched(part):
    """Folding into a shared weight, or a shared bias alone, would change the other layer."""
    sketch = Sketch(6)
    one = sketch.norm(sketch.conv("image", "one", (6, 6)), "n", 6)
    two = sketch.conv("image", "two", (6, 6))
    index = 1 if part == "weight" else 2
    sketch.nodes[-1].input[index] = f"one_{part}"
    sketch.node("Add", [one, two], "out")
    model = sketch.model("out", image())
    assert kinds(folded(model))["BatchNormalization"] == 1
    assert_same(model, folded(model))


def test_a_normalisation_shared_by_two_places_folds_in_both():
    """Its constants are only read: that two nodes read them does not matter."""
    sketch = Sketch(6)
    one = sketch.norm(sketch.conv("image", "one", (6, 6)), "n", 6)
    two = sketch.conv("image", "two", (6, 6))
    sketch.node("BatchNormalization", [two, *sketch.nodes[1].input[1:]], "m", epsilon=1e-3)
    sketch.node("Add", [one, "m"], "out")
    model = sketch.model("out", image())
    assert kinds(folded(model)) == {"Conv": 2, "Add": 1}
    assert_same(model, folded(model))


def pair(inner, inputs, outputs, *, bias=True, **second):
    sketch = Sketch(7)
    x = sketch.conv("image", "one", (inner, inputs), side=1, bias=bias)
    x = sketch.conv(x, "out", (outputs, inner), side=1, **second)
    return sketch.model(x, image(inputs))


@settings(max_examples=20, deadline=None)
@given(
    inner=st.integers(1, 9),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    bias=st.booleans(),
)
def test_a_linear_pair_is_one_layer_unless_that_costs_more(inner, inputs, outputs, bias):
    """One matrix of inputs x outputs, if it has no more weights than the two have together."""
    model = pair(inner, inputs, outputs, bias=bias)
    costlier = inputs * outputs > inner * (inputs + outputs)
    assert kinds(folded(model)) == {"Conv": 2 if costlier else 1}
    assert_same(model, folded(model))


@pytest.mark.parametrize("second", [{"pad": 1}, {"stride": 2}, {"group": 2}])
def test_a_pair_that_is_no_pair_of_matrices_stays(second):
    """Padding between the two sees the first one's bias; strides and groups are not its case."""
    model = pair(6, 6, 6, **second)
    assert kinds(folded(model)) == {"Conv": 2}
    assert_same(model, folded(model))


@pytest.mark.parametrize("idle", ["Identity", "Dropout"])
def test_what_does_nothing_is_dropped_and_hides_no_normalisation(idle):
    """Identity and Dropout go, also between a convolution or a Gemm and its normalisation."""
    sketch = Sketch(8)
    x = sketch.node(idle, [sketch.conv("image", "conv", (6, 6))], "a")
    x = sketch.node(idle, [sketch.norm(x, "n", 6)], "b")
    x = sketch.node("Flatten", [sketch.norm(x, "m", 6)], "flat", axis=1)
    x = sketch.gemm(sketch.node(idle, [x], "c"), "features", 10, 6 * 49)
    model = sketch.model(sketch.norm(x, "out", 10), image())
    assert kinds(folded(model)) == {"Conv": 1, "Flatten": 1, "Gemm": 1}
    assert_same(model, folded(model))


def test_a_mask_that_nobody_reads_keeps_no_dropout():
    """Older exports name Dropout's second output and never use it."""
    sketch = Sketch(8)
    x = sketch.node("Dropout", [sketch.conv("image", "conv", (6, 6))], "a")
    sketch.nodes[-1].output.append("mask")
    model = sketch.model(sketch.norm(x, "out", 6), image())
    assert kinds(folded(model)) == {"Conv": 1}
    assert_same(model, folded(model))


def test_constants_behind_an_identity_are_constants():
    """PyTorch hands one of two equal weights on by Identity: shared, and so not touched."""
    sketch = Sketch(9)
    one = sketch.norm(sketch.conv("image", "one", (6, 6)), "n", 6)
    sketch.node("Identity", ["one_weight"], "again")
    two = sketch.norm(sketch.conv("image", "two", (6, 6), weights="again"), "m", 6)
    sketch.node("Add", [one, two], "out")
    model = sketch.model("out", image())
    assert kinds(folded(model))["BatchNormalization"] == 2
    assert_same(model, folded(model))


def test_computed_weights_are_left_alone():
    """Half-precision weights behind a Cast are no constants: nothing folds, nothing breaks."""
    sketch = Sketch(9)
    sketch.const("half", np.ones((6, 6, 1, 1)))
    sketch.node("Relu", ["half"], "weights")
    x = sketch.conv("image", "one", (6, 6), side=1, weights="weights", bias=False)
    x = sketch.conv(sketch.norm(x, "n", 6), "two", (6, 6), side=1, weights="weights", bias=False)
    model = sketch.model(sketch.norm(x, "out", 6), image())
    assert kinds(folded(model)) == {"Relu": 1, "Conv": 2, "BatchNormalization": 2}
    assert_same(model, folded(model))


@pytest.mark.parametrize("last", ["Identity", "Conv", "BatchNormalization"])
def test_the_output_keeps_its_name(last):
    """Whoever runs the file asks for the output by its name."""
    sketch = Sketch(10)
    x = sketch.conv("image", "one", (6, 6), side=1)
    if last == "Identity":
        sketch.node("Identity", [x], "out")
    elif last == "Conv":
        sketch.conv(x, "out", (6, 6), side=1)
    else:
        sketch.norm(x, "out", 6)
    result = folded(sketch.model("out", image()))
    assert [o.name for o in result.graph.output] == ["out"]
    assert "out" in Net(result).made


def test_an_iresnet_block_folds_but_for_what_padding_forbids():
    """Of seven normalisations the one before the padded 3x3 stays; the output is the same."""
    model = ires()
    result = folded(model)
    assert kinds(model)["BatchNormalization"] == 7
    assert kinds(result)["BatchNormalization"] == 1
    assert_same(model, result)


def test_a_batch_of_two_folds_as_one():
    """A batch in the file changes nothing about channels."""
    sketch = Sketch(11)
    x = sketch.node("Flatten", [sketch.norm("image", "n", 6)], "flat", axis=1)
    x = sketch.gemm(x, "features", 10, 6 * 49)
    model = sketch.model(sketch.norm(x, "out", 10), [2, 6, 7, 7])
    assert kinds(folded(model)) == {"Flatten": 1, "Gemm": 1}
    assert_same(model, folded(model))


@pytest.mark.parametrize(
    ("shape", "folds"),
    [([1, -1], True), ([0, 294], True), ([-1, 294], True), ([49, 6], False), ([-1, 42], False)],
)
def test_a_reshape_folds_like_flatten_if_it_is_one(shape, folds):
    """A Reshape to rows that are no whole picture does not keep a channel's pixels together."""
    sketch = Sketch(12)
    sketch.const("shape", np.array(shape))
    x = sketch.node("Reshape", [sketch.norm("image", "n", 6), "shape"], "flat")
    width = 294 if folds else max(shape[1], 6)
    model = sketch.model(sketch.gemm(x, "out", 10, width), image())
    assert kinds(folded(model))["BatchNormalization"] == (0 if folds else 1)
    assert_same(model, folded(model))


def test_a_flatten_along_another_axis_stops_the_normalisation():
    """Flatten at axis 2 makes a row of each channel, and one scale fits no column of them."""
    sketch = Sketch(12)
    x = sketch.node("Flatten", [sketch.norm("image", "n", 6)], "flat", axis=2)
    model = sketch.model(sketch.gemm(x, "out", 10, 49), image())
    assert kinds(folded(model))["BatchNormalization"] == 1
    assert_same(model, folded(model))


def test_the_shipped_model_folds_to_fifty_convolutions(repository):
    """Two linear pairs are one layer each: 50 of 52 convolutions, a megabyte less, exact."""
    subject = read_subject(repository / "models" / "mobilefacenet-prelu-fp32.onnx")
    result = folded(subject.proto)
    assert kinds(subject.proto)["Conv"] == 52
    assert kinds(result)["Conv"] == 50
    assert subject.proto.ByteSize() - result.ByteSize() > 1_000_000
    assert_same(subject.proto, result)
    assert kinds(base_of(subject))["Conv"] == 50


def test_the_model_given_is_left_as_it_was():
    """Folding works on a copy."""
    model = ires()
    before = model.SerializeToString(deterministic=True)
    folded(model)
    assert model.SerializeToString(deterministic=True) == before
    assert values_of(model, "stem_weight").shape == (6, 3, 3, 3)
