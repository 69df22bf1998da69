"""Models of every age come in exactly or are refused by name."""

import numpy as np
import onnx
import pytest
from onnx import helper

from kiosk.errors import GivenModelError, ModelError
from kiosk.lab.graph import Net
from kiosk.lab.prepare import TOLERANCE, base_of, float_forms, ready, same_or_refuse
from kiosk.lab.quantise import Recipe, quantised
from kiosk.lab.runner import session_of
from lab.nets import Sketch, ires_sketch, kinds, mobile, mobile_sketch, noise, subject_of

IMAGE = [1, 3, 112, 112]


def older(opset, *, listed=False, ir_version=4):
    """A mobile net as an old exporter wrote it."""
    return mobile_sketch(0).model(
        "embedding", IMAGE, shape=[1, 64], opset=opset, listed=listed, ir_version=ir_version
    )


def run(model, values):
    return session_of(model, threads=1).run(None, {"image": values})[0]


def assert_converted(model, result):
    assert next(o.version for o in result.opset_import if not o.domain) >= 13
    for values in noise(model, 2):
        before, after = run(model, values), run(result, values)
        assert np.abs(after - before).max() <= TOLERANCE * np.linalg.norm(before)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("opset", [8, 11, 12])
def test_old_opsets_are_converted_exactly(tmp_path, opset, listed):
    """Opset 8 and 11, with weights listed as inputs (IR 3) and not: 13 or newer, the same."""
    model = older(opset, listed=listed, ir_version=3 if listed else 4)
    result = ready(subject_of(model, tmp_path / "old.onnx"))
    assert_converted(model, result)
    assert [value.name for value in result.graph.input] == ["image"]


def test_an_old_iresnet_with_dropout_goes_all_the_way(tmp_path):
    """Opset 8 with BatchNormalization, PReLU and Dropout: converted, folded, in every form."""
    sketch = ires_sketch(0, side=112)
    flat = next(n for n in sketch.nodes if n.op_type == "Flatten")
    last = next(n for n in sketch.nodes if n.output[0] == "last_n")
    sketch.nodes.insert(
        sketch.nodes.index(last) + 1,
        helper.make_node("Dropout", ["last_n"], ["dropped"], name="drop", ratio=0.4),
    )
    flat.input[0] = "dropped"
    model = sketch.model("embedding", IMAGE, shape=[1, 32], opset=8, listed=True, ir_version=3)
    subject = subject_of(model, tmp_path / "old.onnx")
    base = base_of(subject)
    assert_converted(model, base)
    assert not {"BatchNormalization", "Dropout"} & set(kinds(base))
    for form in float_forms(subject).values():
        assert_converted(model, form)


def test_what_no_converter_takes_is_refused_by_name(tmp_path):
    """An attribute that newer opsets have no word for: the file, the opset and a way out."""
    sketch = mobile_sketch(0)
    x = sketch.norm("embedding", "n", 64)
    sketch.nodes[-1].attribute.append(helper.make_attribute("spatial", 0))
    model = sketch.model(x, IMAGE, shape=[1, 64], opset=7, listed=True, ir_version=3)
    subject = subject_of(model, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match=r"old\.onnx: .*opset 7.* converted to 13") as caught:
        ready(subject)
    assert "export it" in caught.value.hint


def test_a_conversion_that_is_not_exact_is_refused_by_name(tmp_path, monkeypatch):
    """Converters have changed results before: what comes out is run beside what went in."""
    subject = subject_of(older(11), tmp_path / "old.onnx")
    other = mobile_sketch(1).model("embedding", IMAGE, shape=[1, 64], opset=13)
    monkeypatch.setattr("kiosk.lab.prepare.version_converter.convert_version", lambda *_: other)
    with pytest.raises(ModelError, match=r"old\.onnx: converting opset 11 to 13 moves its output"):
        ready(subject)


@pytest.mark.parametrize("times", [1.01, 0.99, float("nan"), 0.0])
def test_an_inexact_change_is_refused(tmp_path, times):
    """A hundredth in one bias is no exact change, and neither is what is no number."""
    subject = subject_of(mobile(0), tmp_path / "model.onnx")
    net = Net(subject.proto)
    net.replace("wide_bias", net.value("wide_bias") * times)
    with pytest.raises(ModelError, match=r"model\.onnx: the change moves its output"):
        same_or_refuse(subject, net.finish(), "the change")
    same_or_refuse(subject, Net(subject.proto).finish(), "no change")


def test_a_model_that_does_not_run_is_refused_by_name(tmp_path):
    """A shape that fits no picture is found when it is run: a ModelError with the file."""
    sketch = mobile_sketch(0)
    sketch.nodes.append(helper.make_node("Reshape", ["embedding", "shape"], ["odd"], name="odd"))
    sketch.const("shape", np.array([1, 63]))
    subject = subject_of(sketch.model("odd", IMAGE, shape=[1, 63]), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        base_of(subject)


def test_a_graph_that_is_not_valid_is_refused_by_name(tmp_path):
    """An operator that no one knows: not the checker's own exception."""
    model = mobile(0)
    model.graph.node[0].op_type = "NoSuchOperator"
    subject = subject_of(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        base_of(subject)


@pytest.mark.parametrize("method", ["dynamic"])
def test_a_quantised_model_is_refused(tmp_path, method):
    """Nothing is made twice: the FP32 file is asked for."""
    int8 = quantised(mobile(0), Recipe(method=method), None)
    subject = subject_of(int8, tmp_path / "int8.onnx")
    assert subject.is_quantised
    with pytest.raises(ModelError, match=r"int8\.onnx: an FP32 model expected, it is quantised"):
        ready(subject)


def test_nodes_without_names_get_their_own(tmp_path):
    """The quantiser and the search tell layers apart by name: none, or one for all, is no name."""
    model = mobile(0)
    for number, node in enumerate(model.graph.node):
        node.name = "" if number % 2 else "same"
    result = ready(subject_of(model, tmp_path / "model.onnx"))
    names = [node.name for node in result.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_constants_with_names_of_the_quantisers_are_renamed(tmp_path):
    """`stem_scale` would be taken for the scale of the tensor `stem`."""
    sketch = mobile_sketch(0)
    for name in ("stem_weight", "wide_weight"):
        new = name.replace("_weight", "_scale")
        sketch.constants[new] = sketch.constants.pop(name)
        for node in sketch.nodes:
            node.input[:] = [new if n == name else n for n in node.input]
    model = sketch.model("embedding", IMAGE, shape=[1, 64], opset=17)
    result = ready(subject_of(model, tmp_path / "model.onnx"))
    assert not [t.name for t in result.graph.initializer if t.name.endswith("_scale")]
    assert_converted(model, result)


def test_a_channels_last_model_comes_through(tmp_path):
    """A model that takes NHWC is prepared as it is, and still takes it."""
    sketch = Sketch(0)
    sketch.nodes = [
        helper.make_node("Transpose", ["image"], ["first"], name="t", perm=[0, 3, 1, 2])
    ]
    inner = mobile_sketch(0)
    inner.nodes[0].input[0] = "first"
    sketch.nodes += inner.nodes
    sketch.constants = inner.constants
    model = sketch.model("embedding", [1, 112, 112, 3], shape=[1, 64])
    subject = subject_of(model, tmp_path / "model.onnx")
    assert subject.input.layout == "NHWC"
    assert_converted(model, base_of(subject))


def test_a_free_batch_stays_free(tmp_path):
    """The batch is checked with one face; the graph takes any number afterwards."""
    model = mobile(0)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    subject = subject_of(model, tmp_path / "model.onnx")
    base = base_of(subject)
    two = np.concatenate([noise(mobile(0))[0]] * 2)
    assert run(base, two).shape == (2, 64)


def test_the_subject_is_left_as_it_was(tmp_path):
    """What was read stays what it is compared with."""
    subject = subject_of(older(11, listed=True, ir_version=3), tmp_path / "old.onnx")
    before = subject.proto.SerializeToString(deterministic=True)
    base_of(subject)
    float_forms(subject)
    assert subject.proto.SerializeToString(deterministic=True) == before
    assert isinstance(subject.proto, onnx.ModelProto)


def older_net(opset, *, listed):
    """An IResNet's operators as exporters of that opset write them, with a normalised end."""
    sketch = Sketch(0)
    x = sketch.conv("image", "stem", (8, 3), stride=8, bias=False)
    x = first = sketch.prelu(sketch.norm(x, "stem_n", 8), "stem_p", 8)
    x = sketch.conv(sketch.norm(x, "in_n", 8), "body", (8, 8), stride=2, bias=False)
    y = sketch.conv(first, "short", (8, 8), side=1, stride=2, bias=False)
    x = sketch.node("Add", [sketch.norm(x, "body_n", 8), sketch.norm(y, "short_n", 8)], "sum")
    x = sketch.node("Dropout", [x], "drop", **({"ratio": 0.4} if opset < 12 else {}))
    x = sketch.gemm(sketch.node("Flatten", [x], "flat", axis=1), "features", 64, 8 * 49)
    x = sketch.norm(x, "features_n", 64)
    length = sketch.node("ReduceL2", [x], "length", axes=[1], keepdims=1)
    sketch.node("Div", [x, length], "embedding")
    version = 3 if listed else 6
    options = {"opset": opset, "shape": [1, 64], "listed": listed, "ir_version": version}
    return sketch.model("embedding", [1, 3, 112, 112], **options)


@pytest.mark.parametrize("opset", [8, 9, 10, 11, 12])
@pytest.mark.parametrize("listed", [False, True])
def test_older_face_networks_are_taken(tmp_path, opset, listed):
    """Conv, BatchNormalization, PRelu, Dropout, Flatten, Gemm, ReduceL2: converted and folded."""
    subject = subject_of(older_net(opset, listed=listed), tmp_path / "old.onnx")
    assert ready(subject).opset_import[0].version == 13
    assert base_of(subject).graph.node


def test_what_the_converter_cannot_do_is_named(tmp_path):
    """The operator that stands in the way, without the converter's own source lines."""
    sketch = mobile_sketch(0)
    sketch.node("Shape", ["embedding"], "shape_of")
    sketch.node("Expand", ["embedding", "shape_of"], "expanded")
    model = sketch.model("expanded", [1, 3, 112, 112], shape=[1, 64], opset=7, ir_version=6)
    with pytest.raises(GivenModelError, match=r"to 13: No Adapter From Version .7 for Expand"):
        ready(subject_of(model, tmp_path / "old.onnx"))
