"""Equalisation changes ranges, never the result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiosk.lab.assemble import Plan, judged_graph
from kiosk.lab.calibrate import channel_ranges, write_ranges
from kiosk.lab.equalise import factors_of, streams, with_factors
from kiosk.lab.faces import read_folder
from kiosk.lab.fold import folded, with_pointwise_norms
from kiosk.lab.graph import Net
from kiosk.lab.prepare import base_of, float_graph
from kiosk.lab.quantise import Recipe
from kiosk.lab.runner import embeddings, inputs_of, session_of
from kiosk.lab.subject import read_subject
from lab.nets import Sketch, ires, mobile, noise, values_of
from lab.test_fold import assert_same

SIDES = [1, 3, 8, 8]


def grouped():
    """Layers of every grouping: depthwise, two groups, two outputs for each input."""
    sketch = Sketch(2)
    x = sketch.prelu(sketch.conv("image", "a", (6, 3)), "ap", 6)
    x = sketch.prelu(sketch.conv(x, "b", (6, 6), group=2), "bp", 6)
    x = sketch.prelu(sketch.conv(x, "c", (12, 6), group=6), "cp", 12)
    x = sketch.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    return sketch.model(sketch.conv(x, "out", (4, 12), group=4), SIDES)


NETS = {
    "mobile": lambda: mobile(1),
    "iresnet": lambda: folded(ires(1)),
    "iresnet, unfolded": lambda: ires(1),
    "iresnet, pointwise": lambda: with_pointwise_norms(folded(ires(1))),
    "grouped": grouped,
}
MADE = {name: make() for name, make in NETS.items()}


def channels_of(model, stream):
    return channel_ranges(model, noise(model), stream.tensors[:1])[stream.tensors[0]].size


def all_ranges(model, inputs):
    names = [name for stream in streams(Net(model)) for name in stream.tensors]
    return channel_ranges(model, inputs, names)


@pytest.mark.parametrize("net", MADE)
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0))
def test_any_positive_factors_change_nothing(net, seed, spread):
    """Three decades of random factors on every stream: the output is the same."""
    model, random = MADE[net], np.random.default_rng(seed)
    found = streams(Net(model))
    assert found
    factors = {
        stream.tensors[0]: np.exp(random.normal(0, spread, channels_of(model, stream))).tolist()
        for stream in found
    }
    changed = with_factors(model, factors)
    assert_same(model, changed, tolerance=3e-5)
    before, after = all_ranges(model, noise(model)), all_ranges(changed, noise(model))
    for stream in found:
        factor = np.array(factors[stream.tensors[0]])
        for name in stream.tensors:
            np.testing.assert_allclose(after[name] * factor, before[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("net", MADE)
def test_factors_bring_channels_to_like_ranges(net):
    """The ratio of the largest to the least range of a stream's channels falls."""
    model = MADE[net]
    inputs = noise(model, 4)
    before = all_ranges(model, inputs)
    changed = with_factors(model, factors_of(model, before))
    after = all_ranges(changed, inputs)
    for stream in streams(Net(model)):
        one, two = (np.max([r[name] for name in stream.tensors], axis=0) for r in (before, after))
        assert np.log(two).std() <= np.log(one).std()
    assert_same(model, changed)


def test_channels_far_apart_come_together():
    """Channels some 30 times apart are three times nearer to each other afterwards, or more."""
    model = mobile(1, biggest=30.0)
    inputs = noise(model, 4)
    before = all_ranges(model, inputs)
    after = all_ranges(with_factors(model, factors_of(model, before)), inputs)
    apart = [ranges["deep"].max() / ranges["deep"].min() for ranges in (before, after)]
    assert apart[0] > 10
    assert apart[1] < apart[0] / 3


def stream_with(model, tensor):
    return next((s for s in streams(Net(model)) if tensor in s.tensors), None)


def test_tensors_joined_by_an_add_share_one_factor():
    """All along the residual stream; its writers and readers are found on both sides."""
    stream = stream_with(MADE["mobile"], "sum")
    assert set(stream.tensors) == {"stem", "stem_p", "narrow", "sum"}
    assert {node.output[0] for node in stream.writers} == {"stem", "narrow"}
    assert {node.output[0] for node in stream.readers} == {"wide", "down"}


def test_a_normalisation_reads_and_writes():
    """A BN at either end takes the factor into its own constants."""
    stream = stream_with(MADE["iresnet, unfolded"], "first_n")
    assert [node.op_type for node in stream.writers] == ["BatchNormalization"]
    stream = stream_with(MADE["iresnet, unfolded"], "first")
    assert [node.op_type for node in stream.readers] == ["BatchNormalization"]


def test_a_normalisation_on_both_ends_of_one_stream_keeps_the_result():
    """x + BN(x): the BN reads and writes the very stream it stands in."""
    sketch = Sketch(6)
    x = sketch.prelu(sketch.conv("image", "a", (6, 3)), "p", 6)
    x = sketch.node("Add", [x, sketch.norm(x, "n", 6)], "sum")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    factor = np.geomspace(0.1, 10, 6).tolist()
    changed = with_factors(model, {streams(Net(model))[0].tensors[0]: factor})
    assert not np.array_equal(values_of(changed, "n_mean"), values_of(model, "n_mean"))
    assert_same(model, changed)


def test_the_ends_of_the_graph_are_left_out():
    """Input and output have a meaning outside; what a Flatten or Reshape reads has no channels."""
    for net in ("mobile", "iresnet, unfolded"):
        named = {name for s in streams(Net(MADE[net])) for name in s.tensors}
        assert not named & {"image", "embedding", "flat", "last", "last_n", "features"}


def test_an_output_in_the_middle_is_left_out():
    """A stream that is looked at from outside keeps its values."""
    sketch = Sketch(6)
    x = sketch.prelu(sketch.conv("image", "a", (6, 3)), "p", 6)
    sketch.conv(x, "out", (6, 6))
    model = sketch.model("out", SIDES)
    assert stream_with(model, "p") is not None
    model.graph.output.append(type(model.graph.output[0])(name="p"))
    assert stream_with(model, "p") is None


@pytest.mark.parametrize("layer", ["a", "out"])
def test_shared_weights_are_left_out(layer):
    """A factor in weights that two nodes read would reach the other one."""
    sketch = Sketch(6)
    x = sketch.prelu(sketch.conv("image", "a", (3, 3)), "p", 3)
    sketch.node("Add", [sketch.conv(x, "out", (3, 3)), "other"], "sum")
    weights = [f"{layer}_weight", f"{layer}_bias"]
    sketch.nodes.insert(0, type(sketch.nodes[0])())
    sketch.nodes[0].CopyFrom(next(n for n in sketch.nodes if n.output and n.output[0] == layer))
    sketch.nodes[0].input[:] = ["image", *weights]
    sketch.nodes[0].output[:] = ["other"]
    sketch.nodes[0].name = "other"
    model = sketch.model("sum", SIDES)
    assert stream_with(model, "p") is None
    assert factors_of(model, all_ranges(model, noise(model))) == {}


def test_an_add_of_a_constant_is_left_out():
    """x + c scaled is not s*x + c."""
    sketch = Sketch(6)
    x = sketch.conv("image", "a", (6, 3))
    x = sketch.node("Add", [x, sketch.const("c", np.ones((6, 1, 1)))], "sum")
    model = sketch.model(sketch.conv(x, "out", (6, 6)), SIDES)
    assert streams(Net(model)) == []


def test_silent_channels_keep_factor_one():
    """A channel that is never on has no range to be brought to others'."""
    sketch = Sketch(7)
    x = sketch.node("Relu", [sketch.conv("image", "a", (6, 3))], "r")
    model_out = sketch.conv(x, "out", (6, 6))
    for part in ("weight", "bias"):
        sketch.constants[f"a_{part}"][[1, 4]] = 0
    model = sketch.model(model_out, SIDES)
    factors = factors_of(model, all_ranges(model, noise(model)))["a"]
    assert factors[1] == factors[4] == 1.0
    assert all(np.isfinite(factors))
    assert len(set(factors)) > 2
    assert_same(model, with_factors(model, factors_of(model, all_ranges(model, noise(model)))))


def test_a_layer_without_any_range_keeps_all_ones():
    """No channel on at all: no division by nothing."""
    sketch = Sketch(7)
    x = sketch.node("Relu", [sketch.conv("image", "a", (6, 3))], "r")
    out = sketch.conv(x, "out", (6, 6))
    for part in ("weight", "bias"):
        sketch.constants[f"a_{part}"][:] = 0
    model = sketch.model(out, SIDES)
    assert factors_of(model, all_ranges(model, noise(model)))["a"] == [1.0] * 6


def test_the_shipped_model_is_nearer_to_itself_in_int8(repository, shared, tmp_path):
    """MinMax, every layer in 8 bits: equalised, the cosine to FP32 rises by 0.02 or more."""
    subject = read_subject(repository / "models" / "mobilefacenet-prelu-fp32.onnx")
    faces = read_folder(shared / "data" / "faces112", aligned=True, samples=12).faces
    inputs = inputs_of(faces, subject.input)
    base = base_of(subject)
    factors = factors_of(base, all_ranges(base, inputs[::2]))
    expected = embeddings(session_of(base), inputs[1::2])
    cosines = []
    for number, graph in enumerate((float_graph(base, {}), float_graph(base, factors))):
        exclude = tuple(n.name for n in graph.graph.node if n.name.startswith("prelu_"))
        recipe = Recipe(calibration="MinMax", exclude=exclude)
        ranges = tmp_path / f"{number}.json"
        options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
        write_ranges(graph, inputs[::2], ranges, **options)
        judged = judged_graph(graph, Plan("qdq", recipe, {}), ranges)
        got = embeddings(session_of(judged, arithmetic="reference"), inputs[1::2])
        cosines.append(float((expected * got).sum(axis=1).mean()))
    assert cosines[1] > cosines[0] + 0.02
    assert cosines[1] > 0.97
