"""What advice stands on: facts of a graph, of a profile, of a pair that fails the gate."""

import json

import numpy as np
import onnx
import pytest

from kiosk.__main__ import main
from kiosk.lab.calibrate import channel_ranges, write_ranges
from kiosk.lab.equalise import factors_of, streams
from kiosk.lab.graph import Net
from kiosk.lab.grounds import graph_facts, layers_of, profile_advice
from kiosk.lab.prepare import base_of, float_graph
from kiosk.lab.quantise import Recipe, preprocessed, quantised, size_of
from kiosk.lab.timing import Cold, ModelProfile, Operator, Profile, Timing, warm_of
from kiosk.vision.cpu import cpu_of
from lab.nets import mobile, mobile_sketch, noise, subject_of

OLD = cpu_of("model name : old\nflags : avx2", "x86_64")
NEW = cpu_of("model name : new\nflags : avx2 avx_vnni", "x86_64")


def int8_of(model, folder, **choices):
    recipe = Recipe(calibration="MinMax", **choices)
    if recipe.method == "dynamic":
        return quantised(model, recipe, None)
    options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
    write_ranges(model, noise(model, 2), folder / "ranges.json", **options)
    return quantised(model, recipe, folder / "ranges.json")


@pytest.mark.parametrize(
    ("choices", "method", "form"),
    [
        ({}, "static", "QDQ"),
        ({"format": "QOperator"}, "static", "QOperator"),
        ({"method": "dynamic"}, "dynamic", None),
    ],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_graph_tells_how_it_was_quantised(tmp_path, choices, method, form, per_channel):
    """Method, format, and one scale or many; dynamic convolutions have one, whatever is asked."""
    facts = graph_facts(int8_of(mobile(0), tmp_path, per_channel=per_channel, **choices))
    many = per_channel and method == "static"
    assert (facts.method, facts.format, facts.per_channel) == (method, form, many)
    assert (facts.fewest_steps is None) == many


def test_a_plain_graph_has_only_its_prelus_to_tell(tmp_path):
    """No method, no scale, and no processor that would matter."""
    sketch = mobile_sketch(0)
    for name in ("stem_p", "wide_p", "deep_p", "down_p"):
        sketch.constants[f"{name}_slope"][:] = 0.5
    sketch.constants["wide_p_slope"][:2] = 2.0
    facts = graph_facts(sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64]), OLD)
    assert (facts.prelu_nodes, facts.slopes, facts.slopes_above_one) == (4, 8 + 16 + 16 + 16, 2)
    for unknown in (facts.method, facts.format, facts.per_channel, facts.saturates):
        assert unknown is None
    assert facts.dot_product is None


def test_the_smallest_channel_is_found_in_steps(tmp_path):
    """A channel of a hundredth of the largest has one step of 127; a silent one is none."""
    sketch = mobile_sketch(0)
    weights = sketch.constants["deep_weight"]
    weights /= np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    weights[3] *= 3 / 127
    weights[5] = 0
    sketch.constants["deep_bias"][5] = 0
    model = sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64])
    facts = graph_facts(int8_of(model, tmp_path, per_channel=False))
    assert facts.fewest_steps == ("deep_weight", 3)


@pytest.mark.parametrize(
    ("choices", "saturates"),
    [
        ({}, False),
        ({"activations": "U8"}, True),
        ({"method": "dynamic"}, True),
        ({"reduce_range": True}, False),
        ({"activations": "U8", "weights": "U8"}, False),
        ({"format": "QOperator"}, False),
        ({"format": "QOperator", "activations": "U8"}, True),
    ],
)
def test_which_files_saturate_where_there_is_no_vnni(tmp_path, choices, saturates):
    """Signed weights of 8 bits do, but for S8S8; with VNNI none does."""
    model = int8_of(mobile(0), tmp_path, **choices)
    assert graph_facts(model, OLD).saturates is saturates
    assert graph_facts(model, OLD).dot_product is False
    assert graph_facts(model, NEW).saturates is False
    assert graph_facts(model, NEW).dot_product is True


def test_layers_are_told_of_a_file_quantised_as_it_is_or_prepared(tmp_path):
    """Both are graphs of which every layer is known by name and by its weights."""
    subject = subject_of(mobile(0), tmp_path / "fp32.onnx")
    inputs = noise(subject.proto, 2)
    for graph in (subject.proto, preprocessed(base_of(subject))):
        errors = layers_of(subject, int8_of(graph, tmp_path), inputs)
        assert len(errors) == 7
        assert all(each.error > 0 for each in errors)


def test_layers_of_other_weights_are_not_told(tmp_path):
    """An equalised file has the same names, other weights: its errors would be nonsense."""
    subject = subject_of(mobile(0, biggest=8.0), tmp_path / "fp32.onnx")
    inputs = noise(subject.proto, 2)
    base = base_of(subject)
    names = [name for stream in streams(Net(base)) for name in stream.tensors]
    graph = float_graph(base, factors_of(base, channel_ranges(base, inputs, names)))
    assert layers_of(subject, int8_of(graph, tmp_path), inputs) == ()


@pytest.mark.parametrize("choices", [{"method": "dynamic"}, {"format": "QOperator"}])
def test_layers_of_a_file_without_roundings_are_not_told(tmp_path, choices):
    """Integer operators have no float layer inside to compare with."""
    subject = subject_of(mobile(0), tmp_path / "fp32.onnx")
    int8 = int8_of(subject.proto, tmp_path, **choices)
    assert layers_of(subject, int8, noise(subject.proto, 1)) == ()


def test_no_layer_is_told_of_a_source_that_is_quantised_itself(tmp_path):
    """A file against itself: advice is no reason to fail."""
    int8 = int8_of(mobile(0), tmp_path)
    subject = subject_of(int8, tmp_path / "int8.onnx")
    assert layers_of(subject, int8, noise(int8, 1)) == ()


def measured(models, *, against=None, threads=(1,)):
    """A profile with these medians, and PRelu and Conv as three quarters and one of the time."""
    rows = (Operator("PRelu", 4, 3.0, 0.75), Operator("Conv", 6, 1.0, 0.25))
    cold = Cold(1.0, 1.0, 1, 2)
    profiles = tuple(
        ModelProfile(
            name,
            1,
            {},
            tuple(
                Timing(n, warm_of([ms]), cold, rows) for n, ms in zip(threads, each, strict=True)
            ),
        )
        for name, each in models.items()
    )
    return Profile("a machine", "onnxruntime", 1, against, profiles)


def spoken(found, graphs, cpu=NEW):
    return [
        (told.model, told.threads, told.advice.key, told.advice.seen)
        for told in profile_advice(found, graphs, cpu)
        if told.advice.key not in {"steep-slopes", "prelu-nodes"}
    ]


def test_dynamic_that_is_slower_is_told_with_both_medians(tmp_path):
    """At the number of threads where it is, and with what takes the time."""
    plain = mobile(0)
    graphs = {"fp32": plain, "dynamic": int8_of(plain, tmp_path, method="dynamic")}
    found = measured({"fp32": (4.0, 4.0), "dynamic": (10.0, 3.0)}, threads=(1, 2))
    seen = "10.00 ms in INT8, 4.00 ms in FP32 (medians): 2.50 times as long. PRelu takes 75% of it."
    assert spoken(found, graphs) == [("dynamic", 1, "dynamic-slower", seen)]
    assert spoken(measured({"fp32": (4.0,), "dynamic": (4.0,)}), graphs) == []


@pytest.mark.parametrize(("against", "slow"), [("b", False), (None, True)])
def test_int8_is_held_against_the_fp32_that_was_named_or_the_fastest(tmp_path, against, slow):
    """5 ms are slower than 4 ms, and faster than the 6 ms that were asked for."""
    plain = mobile(0)
    graphs = {"a": plain, "b": plain, "int8": int8_of(plain, tmp_path)}
    found = measured({"a": (4.0,), "b": (6.0,), "int8": (5.0,)}, against=against)
    keys = [key for _, _, key, _ in spoken(found, graphs)]
    assert keys == (["int8-slower"] if slow else [])


def test_int8_alone_is_not_called_slow(tmp_path):
    """Nothing to compare with, or INT8 against INT8: no word about time or bytes."""
    int8 = int8_of(mobile(0), tmp_path)
    found = measured({"one": (4.0,), "other": (5.0,)}, against="one")
    assert spoken(found, {"one": int8, "other": int8}) == []


def test_a_profile_tells_the_share_of_prelu_and_what_the_processor_lacks(tmp_path):
    """The share as it was measured; no word of saturation, which the daemon's sessions avoid."""
    plain = mobile(0)
    int8 = int8_of(plain, tmp_path)
    told = profile_advice(
        measured({"fp32": (4.0,), "int8": (1.0,)}), {"fp32": plain, "int8": int8}, OLD
    )
    by_model = {(each.model, each.advice.key): each.advice.seen for each in told}
    assert by_model["fp32", "prelu-nodes"] == "4 PRelu nodes left in the graph, 75% of the time."
    assert by_model["int8", "no-dot-product"] == "This CPU (x86_64) has no dot product (VNNI)."
    assert not {"saturates", "hardly-smaller"} & {key for _, key in by_model}
    assert ("fp32", "no-dot-product") not in by_model


def test_a_file_that_is_hardly_smaller_is_told_by_its_bytes(tmp_path):
    """With nearly every layer in FP32 hardly a byte is saved."""
    plain = mobile(0)
    int8 = int8_of(plain, tmp_path, op_types=("Add",))
    ((_, _, key, seen),) = spoken(
        measured({"fp32": (4.0,), "int8": (1.0,)}), {"fp32": plain, "int8": int8}
    )
    assert key == "hardly-smaller"
    assert f"{size_of(int8):,} bytes" in seen


def test_the_command_tells_it_on_the_page_and_in_json(tmp_path, capsys):
    """`kiosk lab profile`: the model and the advice's own words; the same by keys."""
    plain = mobile(0)
    onnx.save(plain, tmp_path / "fp32.onnx")
    onnx.save(int8_of(plain, tmp_path, op_types=("Add",)), tmp_path / "int8.onnx")
    files = [str(tmp_path / name) for name in ("fp32.onnx", "int8.onnx")]
    arguments = ["lab", "profile", *files, "--rounds", "1", "--starts", "1"]
    assert main(arguments) == 0
    assert "hint: int8.onnx: " in (said := capsys.readouterr().out)
    assert "% of FP32's" in said
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["advice"]
    assert {"model", "threads", "key", "weight", "seen", "why", "do"} == set(told[0])
    assert ("int8.onnx", "hardly-smaller") in {(each["model"], each["key"]) for each in told}
