"""Every method of the guide on ONNX Runtime's quantiser, and what is kept between its steps."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kiosk.errors import ModelError
from kiosk.lab.agreement import agreement
from kiosk.lab.calibrate import FaceReader, channel_means, channel_ranges, read_ranges, write_ranges
from kiosk.lab.quantise import (
    Recipe,
    check_weights,
    in_int8,
    preprocessed,
    quantised,
    recipe_from,
    recipe_ranges_name,
    to_bytes,
)
from kiosk.lab.runner import embeddings, session_of
from lab.nets import kinds, mobile, noise, values_of

METHODS = ("MinMax", "Entropy", "Percentile")
PRELU = ("stem_p", "wide_p", "deep_p", "down_p")
LAYERS = ("stem", "wide", "deep", "narrow", "down", "last", "embedding")


@pytest.fixture(scope="module")
def model():
    return mobile(0)


@pytest.fixture(scope="module")
def inputs(model):
    return noise(model, 6)


@pytest.fixture(scope="module")
def ranges(model, inputs, tmp_path_factory):
    """A file of ranges for each method of calibration."""
    folder = tmp_path_factory.mktemp("ranges")
    for method in METHODS:
        write_ranges(
            model,
            inputs,
            folder / f"{method}.json",
            method=method,
            percentile=99.9,
            op_types=Recipe().op_types,
        )
    return folder


def agreed(model, result, inputs):
    """How an INT8 graph agrees with FP32, in the reference arithmetic of QDQ or the native one."""
    arithmetic = "reference" if "DequantizeLinear" in kinds(result) else "native"
    got = embeddings(session_of(result, threads=1, arithmetic=arithmetic), inputs)
    return agreement(embeddings(session_of(model), inputs), got).mean_cosine


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["S8S8", "U8S8", "U8U8"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_every_static_method_loads_runs_and_agrees(
    model, inputs, ranges, form, per_channel, kind, method
):
    """QDQ and QOperator, per tensor and channel, three kinds of numbers, three calibrations."""
    recipe = Recipe(
        format=form,
        activations=kind[:2],
        weights=kind[2:],
        per_channel=per_channel,
        calibration=method,
        # 7-bit weights: x86 without VNNI would saturate, which is another test's matter.
        reduce_range=kind == "U8S8",
    )
    result = quantised(model, recipe, ranges / f"{method}.json")
    eight, layers = in_int8(result)
    assert (eight, layers) == (7, 7)
    assert ("QLinearConv" in kinds(result)) == (form == "QOperator")
    floor = 0.9 if kind == "U8S8" or not per_channel else 0.97
    assert agreed(model, result, inputs) > floor
    assert result.ByteSize() < 0.45 * model.ByteSize()


@pytest.mark.parametrize("weights", ["S8", "U8"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_dynamic_method_needs_no_face(model, inputs, weights, per_channel):
    """QInt8 and QUInt8 weights, activations measured as they come."""
    recipe = Recipe(method="dynamic", weights=weights, per_channel=per_channel)
    result = quantised(model, recipe, None)
    assert in_int8(result) == (7, 7)
    assert agreed(model, result, inputs) > 0.9


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_excluded_nodes_stay_in_fp32(model, ranges, method):
    """By the names of nodes, in either method."""
    names = ("Conv_stem", "Gemm_embedding")
    result = quantised(model, Recipe(method=method, exclude=names), ranges / "Percentile.json")
    assert in_int8(result) == (5, 7)
    assert values_of(result, "stem_weight").dtype == np.float32


@pytest.mark.parametrize("method", ["static", "dynamic"])
@pytest.mark.parametrize(
    ("types", "eight"), [(("Conv",), 6), (("Gemm",), 1), (("Add",), 0), (("Conv", "MatMul"), 6)]
)
def test_operator_types_are_kept_to(model, ranges, types, eight, method):
    """What is not asked for stays in FP32, though the dynamic method turns Gemm into MatMul."""
    recipe = Recipe(method=method, op_types=types)
    result = quantised(model, recipe, ranges / "Percentile.json")
    assert in_int8(result) == (eight, 7)


@pytest.mark.parametrize("ranges_file", [None, "missing.json"])
def test_static_without_ranges_is_refused(model, tmp_path, ranges_file):
    """In words of its own: nothing was wrong with the quantiser."""
    ranges = None if ranges_file is None else tmp_path / ranges_file
    with pytest.raises(ModelError, match=r"^calibrated ranges expected") as caught:
        quantised(model, Recipe(), ranges)
    assert str(ranges) in caught.value.message


def test_the_same_recipe_gives_the_same_bytes(model, ranges):
    """Nothing of time, place or order enters the file."""
    one, two = (to_bytes(quantised(model, Recipe(), ranges / "Percentile.json")) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_signed_weights_lie_within_127(model, ranges, method, per_channel):
    """Both methods keep to it, also with a weight that stands alone at the negative end."""
    odd = onnx.ModelProto.FromString(model.SerializeToString())
    weights = values_of(odd, "wide_weight").copy()
    weights[:, 0] = -5.0
    tensor = next(t for t in odd.graph.initializer if t.name == "wide_weight")
    tensor.CopyFrom(numpy_helper.from_array(weights, "wide_weight"))
    result = quantised(
        odd, Recipe(method=method, per_channel=per_channel), ranges / "Percentile.json"
    )
    stored = [numpy_helper.to_array(t) for t in result.graph.initializer if t.data_type == 3]
    least = min(int(values.min()) for values in stored if values.ndim > 1)
    assert least == -127


def test_a_weight_of_minus_128_is_refused_by_name(model, ranges):
    """Two products of it overflow the 16-bit sums of ARM's kernels."""
    result = quantised(model, Recipe(), ranges / "Percentile.json")
    check_weights(result)
    name = "wide_weight_quantized"
    tensor = next(t for t in result.graph.initializer if t.name == name)
    stored = numpy_helper.to_array(tensor).copy()
    stored[0, 0] = -128
    tensor.CopyFrom(numpy_helper.from_array(stored, name))
    with pytest.raises(ModelError, match=f"1 of {name} are -128"):
        check_weights(result)


def test_ranges_survive_their_file(model, inputs, ranges):
    """Least and greatest value of every tensor, as a run over the same inputs gives them."""
    read = read_ranges(ranges / "MinMax.json")
    low, high = (float(np.squeeze(v)) for v in read.data["wide"].range_value)
    magnitude = channel_ranges(model, inputs, ["wide"])["wide"].max()
    assert max(-low, high) == pytest.approx(float(magnitude), rel=1e-5)
    assert {"image", "sum", *LAYERS, *PRELU} - set(read.data) <= {"stem_p"} | set(PRELU)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"data": 3}', "no json", '{"a": [1]}'])
def test_a_file_that_holds_no_ranges_is_refused_by_name(tmp_path, content):
    """Not a traceback of somebody else's reader."""
    path = tmp_path / "odd.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"odd\.json: calibrated ranges expected"):
        read_ranges(path)


def test_percentile_clips_what_minmax_takes(ranges):
    """The ranges of 99.9 % lie within those of everything."""
    all_of_it, most = (read_ranges(ranges / f"{m}.json").data for m in ("MinMax", "Percentile"))
    spans = [[float(np.ptp(d[n].range_value)) for n in LAYERS] for d in (all_of_it, most)]
    assert all(two <= one * 1.01 for one, two in zip(*spans, strict=True))
    assert sum(spans[1]) < sum(spans[0])


def test_the_number_of_faces_held_at_once_does_not_matter(model, inputs, tmp_path, monkeypatch):
    """Six inputs in one go, by four or one by one: the same ranges (Entropy's bins may move)."""
    options = {"percentile": 99.9, "op_types": ("Conv",)}
    for method in ("MinMax", "Percentile"):
        files = []
        for at_once in (6, 4, 1):
            monkeypatch.setattr("kiosk.lab.calibrate._AT_ONCE", at_once)
            files.append(tmp_path / f"{method}-{at_once}.json")
            write_ranges(model, inputs, files[-1], method=method, **options)
        spans = [read_ranges(file).data["wide"].range_value for file in files]
        # Histograms are widened by what comes later: to a bin or two the same.
        apart = np.abs(np.array(spans, dtype=np.float64) - np.array(spans[0])).max()
        assert apart <= (1e-6 if method == "MinMax" else 0.05 * np.ptp(spans[0]))


def test_calibration_that_fails_is_a_model_error(model, tmp_path):
    """No input, or one that makes no numbers: said, not thrown by a calibrator."""
    options = {"method": "Entropy", "percentile": 99.9, "op_types": ("Conv",)}
    for inputs in ([], [np.full((1, 3, 112, 112), np.nan, dtype=np.float32)]):
        with pytest.raises(ModelError, match="calibrat"):
            write_ranges(model, inputs, tmp_path / "r.json", **options)
        assert not (tmp_path / "r.json").exists()


def test_the_reader_keeps_the_calibrators_protocol():
    """One input at a time by name, None at the end and ever after, and any part again."""
    values = [np.full((1,), i, dtype=np.float32) for i in range(5)]
    reader = FaceReader("image", values)
    assert len(reader) == 5
    got = [int(fed["image"][0]) for fed in iter(reader.get_next, None)]
    assert got == [0, 1, 2, 3, 4]
    assert reader.get_next() is None
    reader.set_range(3, 9)
    assert [int(fed["image"][0]) for fed in iter(reader.get_next, None)] == [3, 4]


def test_means_and_ranges_of_no_tensor_are_empty(model, inputs):
    """A network without a stream has none; nothing is run for it."""
    assert channel_ranges(model, inputs, []) == {}
    assert channel_means(model, inputs, []) == {}


def test_a_recipe_survives_its_document():
    """What the record holds is what is asked of the quantiser again."""
    recipe = Recipe(activations="U8", calibration="MinMax", exclude=("a", "b"), percentile=99.5)
    assert recipe_from(recipe.document()) == recipe


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"activations": "S16"}, r"\$\.activations"),
        ({"percentile": "much"}, r"\$\.percentile"),
        ({"op_types": "Conv"}, r"\$\.op_types"),
        ({"exclude": ["a", 3]}, r"\$\.exclude\[1\]"),
        ({"method": None}, r"\$\.method"),
        ({"activation": "S8"}, r"\$\.activation"),
    ],
)
def test_a_malformed_recipe_is_refused_with_its_place(change, path):
    """The key at fault is named, also one that no recipe has."""
    with pytest.raises(ModelError, match=path):
        recipe_from({**Recipe().document(), **change})


def test_ranges_are_called_by_what_they_are():
    """Recipes that differ in anything else share the file."""
    assert recipe_ranges_name(Recipe(percentile=99.99)) == "percentile-99.99"
    assert recipe_ranges_name(Recipe(calibration="MinMax", percentile=99.9)) == "minmax"
    assert recipe_ranges_name(Recipe(weights="U8")) == recipe_ranges_name(Recipe())


def test_preparation_changes_no_result(model, inputs):
    """quant_pre_process infers shapes and optimises: the embeddings stay."""
    ready = preprocessed(model)
    assert len(ready.graph.value_info) > 0
    apart = embeddings(session_of(ready), inputs) - embeddings(session_of(model), inputs)
    assert np.abs(apart).max() < 1e-5
