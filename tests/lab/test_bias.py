"""Bias correction takes back what quantisation moves on average, and adds exactly that."""

import numpy as np
import pytest

from kiosk.lab.bias import corrected, corrections
from kiosk.lab.calibrate import channel_means, write_ranges
from kiosk.lab.graph import Net
from kiosk.lab.prelu import as_max, with_slopes_below_one
from kiosk.lab.quantise import Recipe, quantised
from lab.nets import Sketch, mobile_sketch, noise

CONVOLUTIONS = ("stem", "wide", "deep", "narrow", "down", "last", "embedding")


def int8_of(model, inputs, tmp_path, **choices):
    """As QDQ, coarse on purpose: unsigned, per tensor, ranges clipped hard."""
    exclude = tuple(n.name for n in model.graph.node if n.name.startswith("prelu_"))
    choices = {"activations": "U8", "per_channel": False, "percentile": 98.0, **choices}
    recipe = Recipe(exclude=exclude, **choices)
    options = {"method": "Percentile", "percentile": 98.0, "op_types": recipe.op_types}
    write_ranges(model, inputs, tmp_path / "ranges.json", **options)
    return quantised(model, recipe, tmp_path / "ranges.json")


def graph_of(sketch):
    return as_max(with_slopes_below_one(sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64])))


def apart(model, int8, inputs, names):
    """The largest mean error of a channel of each layer."""
    one, two = (channel_means(graph, inputs, names) for graph in (model, int8))
    return {name: float(np.abs(one[name] - two[name]).max()) for name in names}


def test_corrections_reduce_the_mean_error_of_every_layer(tmp_path):
    """The graph with corrections, quantised again, is nearer to FP32 in each layer's means."""
    model = graph_of(mobile_sketch(0, biggest=30.0))
    inputs = noise(model, 6)
    names = CONVOLUTIONS[:-1]
    int8 = int8_of(model, inputs, tmp_path)
    moves = corrections(model, int8, inputs)
    assert set(names) <= set(moves)
    again = quantised(
        corrected(model, moves),
        Recipe(
            activations="U8",
            per_channel=False,
            percentile=98.0,
            exclude=tuple(n.name for n in model.graph.node if n.name.startswith("prelu_")),
        ),
        tmp_path / "ranges.json",
    )
    before, after = (apart(model, graph, inputs, names) for graph in (int8, again))
    assert sum(after.values()) < 0.3 * sum(before.values())
    assert all(after[name] <= before[name] for name in names)


def test_a_shifted_bias_is_found_and_taken_back(tmp_path):
    """A known error in one layer's bias comes out as its correction, whatever is left elsewhere."""
    model = graph_of(mobile_sketch(1))
    inputs = noise(model, 4)
    shifted = corrected(model, {"wide": [0.25] * 16})
    int8 = int8_of(shifted, inputs, tmp_path, activations="S8", per_channel=True, percentile=100.0)
    moves = corrections(model, int8, inputs)
    assert np.mean(moves["wide"]) == pytest.approx(-0.25, abs=0.02)


def test_the_last_layer_is_corrected_though_the_quantiser_renames_its_output(tmp_path):
    """A Gemm that gives the graph's own output is a layer like the others."""
    model = graph_of(mobile_sketch(2))
    inputs = noise(model, 3)
    moves = corrections(model, int8_of(model, inputs, tmp_path), inputs)
    assert "embedding" in moves


def test_a_layer_whose_relu_the_quantiser_swallowed_is_left(tmp_path):
    """Unsigned, Conv and Relu become one: the mean before the Relu is nowhere to be measured."""
    sketch = Sketch(3)
    x = sketch.node("Relu", [sketch.conv("image", "one", (6, 3))], "r")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), [1, 3, 8, 8])
    inputs = noise(model, 4)
    int8 = int8_of(model, inputs, tmp_path, op_types=("Conv", "Relu"))
    assert "Relu" not in {n.op_type for n in int8.graph.node}
    assert "r" not in corrections(model, int8, inputs)


def test_layers_in_fp32_have_no_correction(tmp_path):
    """Nothing moved there that would have to be taken back."""
    model = graph_of(mobile_sketch(4))
    inputs = noise(model, 2)
    exclude = [n.name for n in model.graph.node if n.name.startswith("prelu_")]
    write_ranges(
        model,
        inputs,
        tmp_path / "r.json",
        method="MinMax",
        percentile=100.0,
        op_types=Recipe().op_types,
    )
    recipe = Recipe(calibration="MinMax", exclude=("Conv_deep", *exclude))
    moves = corrections(model, quantised(model, recipe, tmp_path / "r.json"), inputs)
    assert "deep" not in moves
    assert "wide" in moves


def test_corrected_adds_exactly():
    """Each bias is the old one plus its correction, rounded once; nothing else is touched."""
    model = graph_of(mobile_sketch(5))
    moves = {"wide": list(np.linspace(-1, 1, 16)), "embedding": [0.5] * 64}
    before, after = Net(model), Net(corrected(model, moves))
    for tensor in model.graph.initializer:
        name = tensor.name
        wanted = before.value(name).astype(np.float64)
        layer = name.removesuffix("_bias")
        if name.endswith("_bias") and layer in moves:
            wanted = wanted + np.array(moves[layer])
        assert np.array_equal(after.value(name), wanted.astype(after.value(name).dtype))


def test_a_bias_of_two_layers_is_corrected_for_one():
    """Two layers with one bias between them: the other one keeps it."""
    sketch = Sketch(6)
    x = sketch.conv("image", "one", (6, 3))
    x = sketch.conv(x, "out", (6, 6))
    sketch.nodes[-1].input[2] = "one_bias"
    model = sketch.model(x, [1, 3, 8, 8])
    net = Net(corrected(model, {"one": [1.0] * 6}))
    first, second = (net.value(node.input[2]) for node in net.convolutions())
    old = Net(model).value("one_bias")
    assert np.array_equal(first, old + 1)
    assert np.array_equal(second, old)


def test_no_corrections_leave_the_graph():
    """An empty record of corrections is no change."""
    model = graph_of(mobile_sketch(5))
    assert list(corrected(model, {}).graph.initializer) == list(model.graph.initializer)
