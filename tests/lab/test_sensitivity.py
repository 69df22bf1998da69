"""Which layer costs how much: all of them, in the right order, on a graph that is FP32 at rest."""

import numpy as np
import pytest

from kiosk.lab.calibrate import write_ranges
from kiosk.lab.quantise import Recipe, in_int8, quantised
from kiosk.lab.runner import embeddings, session_of
from kiosk.lab.sensitivity import _SWITCHES, _with_switches, layer_errors
from lab.nets import Sketch, mobile, mobile_sketch, noise

LAYERS = {f"Conv_{n}" for n in ("stem", "wide", "deep", "narrow", "down", "last")}
LAYERS |= {"Gemm_embedding"}


def int8_of(model, inputs, tmp_path, **choices):
    recipe = Recipe(calibration="MinMax", **choices)
    options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
    write_ranges(model, inputs, tmp_path / "ranges.json", **options)
    return quantised(model, recipe, tmp_path / "ranges.json")


@pytest.mark.parametrize("kind", ["S8", "U8"])
def test_all_layers_are_measured(tmp_path, kind):
    """Each layer that is in 8 bits has its error, the one that gives the output too."""
    model = mobile(0)
    inputs = noise(model, 3)
    errors = layer_errors(model, int8_of(model, inputs, tmp_path, activations=kind), inputs)
    assert {error.name for error in errors} == LAYERS
    assert all(0 < error.error < 0.1 for error in errors)
    assert [e.error for e in errors] == sorted((e.error for e in errors), reverse=True)


def test_a_layer_in_fp32_is_not_among_them(tmp_path):
    """It costs nothing, and there is nothing to switch."""
    model = mobile(0)
    inputs = noise(model, 2)
    int8 = int8_of(model, inputs, tmp_path, exclude=("Conv_deep",))
    assert {error.name for error in layer_errors(model, int8, inputs)} == LAYERS - {"Conv_deep"}


def test_nothing_in_8_bits_is_nothing_to_measure(tmp_path):
    """An empty answer, no graph that cannot be built."""
    model = mobile(0)
    inputs = noise(model, 2)
    assert layer_errors(model, int8_of(model, inputs, tmp_path, exclude=(*LAYERS,)), inputs) == []


def test_the_layer_with_the_outlier_comes_first(tmp_path):
    """A weight 100 times the others, on a channel that is silent: nothing changes in FP32, and
    per tensor nothing is left of that layer's other weights."""
    sketch = mobile_sketch(0)
    for part in ("weight", "bias"):
        sketch.constants[f"down_{part}"][5] = 0
    sketch.constants["last_weight"][:, 5] = 100 * np.abs(sketch.constants["last_weight"]).max()
    model = sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64])
    inputs = noise(model, 3)
    errors = layer_errors(model, int8_of(model, inputs, tmp_path, per_channel=False), inputs)
    assert errors[0].name == "Conv_last"
    assert errors[0].error > 10 * errors[1].error


def joined(model, int8):
    graph, layers = _with_switches(model, int8)
    return session_of(graph, arithmetic="reference"), layers


def run(session, values, switches):
    fed = {"image": values, _SWITCHES: np.asarray(switches, dtype=np.float32)}
    return session.run(["embedding"], fed)[0]


def test_with_the_switches_off_the_graph_is_fp32(tmp_path):
    """To the last bit: y + 0 * (shadow - y) is y."""
    model = mobile(0)
    inputs = noise(model, 2)
    session, layers = joined(model, int8_of(model, inputs, tmp_path))
    plain = session_of(model, arithmetic="reference")
    for values in inputs:
        assert np.array_equal(
            run(session, values, np.zeros(len(layers))), plain.run(None, {"image": values})[0]
        )


def test_with_all_switches_on_it_is_the_8_bit_graph(tmp_path):
    """The shadows together are the quantised network, but for the rounding that the Add reads."""
    model = mobile(0)
    inputs = noise(model, 2)
    int8 = int8_of(model, inputs, tmp_path, op_types=("Conv", "Gemm"))
    session, layers = joined(model, int8)
    both = [run(session, values, np.ones(len(layers)))[0] for values in inputs]
    got = np.stack(both) / np.linalg.norm(both, axis=1, keepdims=True)
    expected = embeddings(session_of(int8, arithmetic="reference"), inputs)
    fp32 = embeddings(session_of(model), inputs)
    assert (got * expected).sum(axis=1).min() > 0.999
    apart = [1 - float((got * other).sum(axis=1).mean()) for other in (expected, fp32)]
    assert apart[0] < 0.6 * apart[1]


def test_a_switch_is_the_layer_alone_in_8_bits(tmp_path):
    """One quantisation with everything else excluded gives the same error."""
    model = mobile(0)
    inputs = noise(model, 3)
    errors = {
        e.name: e.error for e in layer_errors(model, int8_of(model, inputs, tmp_path), inputs)
    }
    rest = tuple(n.name for n in model.graph.node if n.name != "Conv_narrow")
    alone = int8_of(model, inputs, tmp_path, exclude=rest)
    assert in_int8(alone) == (1, 7)
    fp32, got = (embeddings(session_of(m, arithmetic="reference"), inputs) for m in (model, alone))
    cosine = float((fp32.astype(np.float64) * got).sum(axis=1).mean())
    assert errors["Conv_narrow"] == pytest.approx(1 - cosine, rel=0.05, abs=2e-7)


def test_a_matrix_product_is_a_layer_too(tmp_path):
    """MatMul with constant weights is quantised, so it is measured."""
    sketch = Sketch(1)
    x = sketch.node("Flatten", [sketch.conv("image", "one", (6, 3))], "flat", axis=1)
    sketch.const("matrix", sketch.random.normal(size=(6 * 64, 40)))
    model = sketch.model(sketch.node("MatMul", [x, "matrix"], "out"), [1, 3, 8, 8])
    inputs = noise(model, 2)
    errors = layer_errors(model, int8_of(model, inputs, tmp_path), inputs)
    assert {error.name for error in errors} == {"Conv_one", "MatMul_out"}
