"""The PReLU rewrites are exact, whatever the slopes and wherever the PReLU stands."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kiosk.errors import ModelError
from kiosk.lab.prelu import as_blocked, as_four

CHANNELS = 6
SLOPES = {
    "below zero": [-9.4, -1.0, -0.25, -1e-3, -3.0, -0.5],
    "from zero to one": [0.0, 0.25, 0.5, 0.75, 0.9, 0.1],
    "above one": [1.5, 2.0, 8.9, 1.1, 3.0, 4.0],
    "on both sides of one": [0.5, 2.0, -1.0, 1.2, 0.0, 8.9],
    "one itself": [1.0, 0.25, 2.0, -1.0, 1.0, 0.5],
    "all ones": [1.0] * CHANNELS,
    "a hair from one": [1.0 - 6e-8, 1.0 + 1.2e-7, 1.0 - 1e-5, 1.0 + 1e-5, 0.999, 1.001],
    "near one": [0.99, 1.01, 0.9985, 1.0015, 0.95, 1.05],
}


def weight(name, values):
    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def model_of(nodes, weights, output_channels, channels_in=3):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels_in, 9, 9])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, output_channels, 9, 9])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def conv(name, source, target, rng, channels, group=1):
    """A biased convolution of (outputs, inputs) channels: the node and its weights."""
    outputs, inputs = channels
    size = 3 if group > 1 or inputs == 3 else 1
    weights = [
        weight(f"{name}_w", rng.normal(size=(outputs, inputs // group, size, size))),
        weight(f"{name}_b", rng.normal(size=outputs)),
    ]
    node = helper.make_node(
        "Conv",
        [source, f"{name}_w", f"{name}_b"],
        [target],
        kernel_shape=[size, size],
        pads=[size // 2] * 4,
        group=group,
    )
    return node, weights


def sandwich(slope, group=1):
    """Convolution, PRelu, convolution (`group` groups)."""
    rng = np.random.default_rng(7)
    first, first_weights = conv("first", "image", "x", rng, (CHANNELS, 3))
    last, last_weights = conv("last", "y", "out", rng, (CHANNELS, CHANNELS), group)
    prelu = helper.make_node("PRelu", ["x", "slope"], ["y"])
    weights = [*first_weights, weight("slope", slope), *last_weights]
    return model_of([first, prelu, last], weights, CHANNELS)


def column(values):
    return np.reshape(values, (-1, 1, 1))


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def assert_same(run_onnx, model, rewritten):
    """Equal to 1e-5 of the largest value, on values of both signs."""
    values = np.random.default_rng(3).normal(size=(1, 3, 9, 9)).astype(np.float32)
    expected = run_onnx(model.SerializeToString(), values)["out"]
    got = run_onnx(rewritten.SerializeToString(), values)["out"]
    assert np.abs(got - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("group", [1, 2, CHANNELS])
@pytest.mark.parametrize("case", SLOPES)
@pytest.mark.parametrize("rewrite", [as_blocked, as_four])
def test_a_rewrite_changes_no_result(run_onnx, rewrite, case, group):
    """Both forms equal PRelu for every slope, before dense, grouped and depthwise layers."""
    model = sandwich(column(SLOPES[case]), group)
    rewritten = rewrite(model)
    assert "PRelu" not in operators(rewritten)
    assert_same(run_onnx, model, rewritten)


def test_max_would_not_be_exact(run_onnx):
    """max(x, a*x) is another function above slope 1: the comparison used here can fail."""
    model = sandwich(column(SLOPES["on both sides of one"]))
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    nodes = list(wrong.graph.node)
    nodes[1:2] = [
        helper.make_node("Mul", ["x", "slope"], ["scaled"]),
        helper.make_node("Max", ["x", "scaled"], ["y"]),
    ]
    del wrong.graph.node[:]
    wrong.graph.node.extend(nodes)
    with pytest.raises(AssertionError):
        assert_same(run_onnx, model, wrong)


def test_the_blocked_form_is_convolution_relu_and_add_only():
    """Away from slope 1 nothing is left that would break the blocked layout."""
    rewritten = as_blocked(sandwich(column(SLOPES["on both sides of one"])))
    assert operators(rewritten) == {"Conv": 3, "Relu": 1, "Add": 1}


def test_a_slope_at_one_takes_the_form_without_k():
    """k = a/(1-a) does not exist at a = 1."""
    rewritten = as_blocked(sandwich(column(SLOPES["one itself"])))
    assert operators(rewritten) == {"Conv": 2, "Mul": 2, "Relu": 1, "Add": 1}


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (CHANNELS, 1, 1), (1, CHANNELS, 1, 1)])
def test_every_shape_that_broadcasts_is_taken(run_onnx, shape):
    """A slope for all channels at once, or one for each, with and without the batch axis."""
    slope = np.resize(SLOPES["on both sides of one"], np.prod(shape)).reshape(shape)
    model = sandwich(slope)
    assert_same(run_onnx, model, as_blocked(model))
    assert_same(run_onnx, model, as_four(model))


def test_a_residual_reader_keeps_its_input(run_onnx):
    """An Add after the PReLU could not take a sign back: that PReLU takes the other form."""
    rng = np.random.default_rng(5)
    first, first_weights = conv("first", "image", "x", rng, (CHANNELS, 3))
    middle, middle_weights = conv("middle", "y", "z", rng, (CHANNELS, CHANNELS))
    nodes = [
        first,
        helper.make_node("PRelu", ["x", "slope"], ["y"]),
        middle,
        helper.make_node("Add", ["y", "z"], ["out"]),
    ]
    slope = weight("slope", column(SLOPES["above one"]))
    model = model_of(nodes, [*first_weights, slope, *middle_weights], CHANNELS)
    assert_same(run_onnx, model, as_blocked(model))


def test_a_convolution_read_twice_keeps_its_scale(run_onnx):
    """A factor folded before the PReLU would reach the other reader too."""
    rng = np.random.default_rng(5)
    first, first_weights = conv("first", "image", "x", rng, (CHANNELS, 3))
    middle, middle_weights = conv("middle", "y", "z", rng, (CHANNELS, CHANNELS))
    nodes = [
        first,
        helper.make_node("PRelu", ["x", "slope"], ["y"]),
        middle,
        helper.make_node("Add", ["x", "z"], ["out"]),
    ]
    slope = weight("slope", column(SLOPES["from zero to one"]))
    model = model_of(nodes, [*first_weights, slope, *middle_weights], CHANNELS)
    assert_same(run_onnx, model, as_blocked(model))


def test_weights_of_two_convolutions_keep_their_scale(run_onnx):
    """A factor folded into shared weights would reach the other convolution too."""
    rng = np.random.default_rng(5)
    first, first_weights = conv("first", "image", "x", rng, (CHANNELS, 3))
    twin = helper.make_node("Conv", ["image", *first.input[1:]], ["w"], pads=[1] * 4)
    middle, middle_weights = conv("middle", "y", "z", rng, (CHANNELS, CHANNELS))
    nodes = [
        first,
        helper.make_node("PRelu", ["x", "slope"], ["y"]),
        middle,
        twin,
        helper.make_node("Add", ["w", "z"], ["out"]),
    ]
    slope = weight("slope", column(SLOPES["below zero"]))
    model = model_of(nodes, [*first_weights, slope, *middle_weights], CHANNELS)
    assert_same(run_onnx, model, as_blocked(model))


def test_a_prelu_that_is_the_output_keeps_its_sign(run_onnx):
    """Nobody after the last PReLU could take a sign back."""
    rng = np.random.default_rng(5)
    first, weights = conv("first", "image", "x", rng, (CHANNELS, 3))
    prelu = helper.make_node("PRelu", ["x", "slope"], ["out"])
    slope = weight("slope", column(SLOPES["above one"]))
    model = model_of([first, prelu], [*weights, slope], CHANNELS)
    assert_same(run_onnx, model, as_blocked(model))


def test_a_computed_slope_is_refused():
    """A slope that is no constant cannot be rewritten, and is named."""
    nodes = [
        helper.make_node("Relu", ["image"], ["positive"]),
        helper.make_node("PRelu", ["image", "positive"], ["out"]),
    ]
    with pytest.raises(ModelError, match="constant expected for positive"):
        as_blocked(model_of(nodes, [], 3))


def test_the_model_given_is_left_as_it_was():
    """A rewrite returns a new model: the plain form stays usable beside it."""
    model = sandwich(column(SLOPES["above one"]))
    before = model.SerializeToString(deterministic=True)
    as_blocked(model)
    as_four(model)
    assert model.SerializeToString(deterministic=True) == before
