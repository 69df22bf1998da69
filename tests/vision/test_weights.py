"""The INT8 weights of a file are found without onnx, and -128 among them is refused."""

import hashlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kiosk.errors import ModelError
from kiosk.vision.manifest import load_manifest
from kiosk.vision.session import Session, runtime_session
from kiosk.vision.weights import check_file, int8_weights

DTYPES = (np.int8, np.uint8, np.float32, np.int32)


@st.composite
def tensors(draw):
    """A named tensor of any of several types, its values in raw_data or in the typed field."""
    dims = draw(st.lists(st.integers(0, 4), max_size=4))
    kind = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(-128, 128, dims).astype(kind)
    name = draw(st.text(min_size=1, max_size=5))
    if draw(st.booleans()):
        return numpy_helper.from_array(values, name)
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return helper.make_tensor(name, onnx_type, dims, values.reshape(-1).tolist())


@st.composite
def models(draw, depth=0):
    """A graph with initialisers, Constant nodes and subgraphs; not necessarily one that runs."""
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor)
        for tensor in draw(st.lists(tensors(), max_size=2))
    ]
    if depth < 2 and draw(st.booleans()):
        inner = draw(models(depth + 1)).graph
        nodes.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    initialisers = draw(st.lists(tensors(), max_size=3))
    graph = helper.make_graph(nodes, "g", [], [], initialisers)
    return helper.make_model(graph)


def by_onnx(graph):
    """The same by the onnx package."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                found.append(attribute.t)
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from by_onnx(attribute.g)
    for tensor in found:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) >= 2:
            yield tensor.name, numpy_helper.to_array(tensor).reshape(-1).tolist()


@given(models())
@settings(max_examples=150, deadline=None)
def test_it_finds_what_onnx_finds(model):
    """Names and values of every INT8 tensor of two or more dimensions, wherever it stands."""
    found = int8_weights(model.SerializeToString(), "x-int8")
    ours = sorted((weight.name, weight.values.tolist()) for weight in found)
    assert ours == sorted(by_onnx(model.graph))


def is_named_or_fine(data):
    """Whether the bytes pass or are refused by name; any other exception comes through."""
    try:
        check_file(data, "x-int8")
    except ModelError as error:
        return str(error).startswith("model x-int8: ")
    return True


@given(models(), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_a_named_error_or_none(model, data):
    """Cut or changed bytes raise nothing but ModelError with the model's name."""
    bad = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    bad = bad[: data.draw(st.integers(0, len(bad)))]
    assert is_named_or_fine(bytes(bad))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_named_error_or_none(data):
    """Bytes of no model at all raise nothing but ModelError either."""
    assert is_named_or_fine(data)


def one_weight(values, *, raw=True):
    """A file of one INT8 initialiser."""
    values = np.asarray(values, np.int8)
    tensor = numpy_helper.from_array(values, "conv_w")
    if not raw:
        flat = values.reshape(-1).tolist()
        tensor = helper.make_tensor("conv_w", TensorProto.INT8, values.shape, flat)
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()


@pytest.mark.parametrize("raw", [True, False])
def test_minus_128_is_refused_by_name(raw):
    """The weight, how often, and what to do about it; -127 and 127 pass."""
    with pytest.raises(ModelError, match=r"x-int8.*2 of conv_w are -128; NEON.*quantise it again"):
        check_file(one_weight([[-128, 5], [-128, 127]], raw=raw), "x-int8")
    check_file(one_weight([[-127, 5], [0, 127]], raw=raw), "x-int8")


def test_zero_points_may_be_minus_128():
    """A vector is no weight: per-channel zero points of activations reach down to -128."""
    check_file(one_weight([-128, 127]), "x-int8")


def test_large_packed_weights_are_read_in_pieces():
    """More than one piece of packed integers, negative ones of ten bytes among them."""
    values = np.random.default_rng(1).integers(-127, 128, (1000, 300)).astype(np.int8)
    (weight,) = int8_weights(one_weight(values, raw=False), "x-int8")
    assert np.array_equal(weight.values, values.reshape(-1))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x3a\x05\x2a", "a field of 5 bytes has only 1"),
        (b"\x3a\x80", "an integer does not end"),
        (b"\x3b", "wire type 3"),
        (b"\x02\x00", "number 0"),
        (b"\x38\x01", "bytes expected for GraphProto"),
    ],
)
def test_what_is_wrong_with_the_bytes_is_told(data, said):
    """Each way to be no protobuf message has its own words."""
    with pytest.raises(ModelError, match=said):
        check_file(data, "x-int8")


def test_missing_values_do_not_pass():
    """A weight whose values lie in another file, or are too few, is refused: nobody saw them."""
    tensor = TensorProto(name="conv_w", data_type=TensorProto.INT8, dims=[3, 3])
    data = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    with pytest.raises(ModelError, match=r"conv_w of shape \[3, 3\] holds 0 values"):
        check_file(data, "x-int8")


def test_graphs_without_end_are_refused():
    """A file of graphs within graphs ends in an error, not in a full stack."""
    data = b""
    for _ in range(200):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            data = tag + length_of(data) + data
    with pytest.raises(ModelError, match="nested more than"):
        check_file(b"\x3a" + length_of(data) + data, "x-int8")


def length_of(data):
    """A length as a varint."""
    length, size = len(data), []
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*size, length])


def test_a_session_refuses_the_file(put_int8, tmp_path):
    """The rule holds where models are loaded; onnxruntime itself takes the file."""
    path, entry = put_int8(spoil=lambda weights: weights.__setitem__((0, 0), -128))
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match=r"model tiny-int8: INT8 weights in -127\.\.127 expected"):
        Session(entry, 1)


def test_the_runtimes_own_quantiser_keeps_to_it(put_int8):
    """What onnxruntime.quantization writes passes, and has INT8 weights to look at."""
    path, entry = put_int8()
    assert int8_weights(path.read_bytes(), entry.id)
    Session(entry, 1)


def a_graph(nodes, initialisers, **more):
    """A file with one picture in and one embedding out."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 112, 112])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
    graph = helper.make_graph(nodes, "g", [image], [output], initialisers, **more)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


WEIGHTS = np.zeros((64, 3, 112, 112), np.int8)
WEIGHTS[0, 0, 0, 0] = -128
SCALE = numpy_helper.from_array(np.float32(0.01), "scale")
ZERO = numpy_helper.from_array(np.int8(0), "zero")
CONV = [
    helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["weights"]),
    helper.make_node("Conv", ["image", "weights"], ["c"]),
    helper.make_node("Flatten", ["c"], ["y"]),
]


def sparse(weights, kind, values):
    """One value of many as a sparse tensor."""
    return helper.make_sparse_tensor(
        helper.make_tensor("w", kind, [1], values),
        helper.make_tensor("", TensorProto.INT64, [1], [0]),
        list(weights.shape),
    )


def branches(weights):
    """The weights from a subgraph."""
    inner = [
        helper.make_graph(
            [helper.make_node("Cast", ["f"], [name], to=TensorProto.INT8)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.INT8, weights.shape)],
        )
        for name in ("one", "other")
    ]
    return helper.make_node("If", ["yes"], ["w"], then_branch=inner[0], else_branch=inner[1])


SHAPE = numpy_helper.from_array(np.array(WEIGHTS.shape), "shape")
FLOATS = numpy_helper.from_array(WEIGHTS.astype(np.float32), "f")
FLAT = numpy_helper.from_array(WEIGHTS.reshape(-1), "flat")
YES = numpy_helper.from_array(np.array(True), "yes")
RESHAPE = helper.make_node("Reshape", ["flat", "shape"], ["w"])
CHANGED = {
    "flat": ([RESHAPE], [FLAT, SHAPE], "1 of flat are -128"),
    "flat constant": (
        [helper.make_node("Constant", [], ["flat"], value=FLAT), RESHAPE],
        [SHAPE],
        "1 of flat are -128",
    ),
    "floats": (
        [helper.make_node("QuantizeLinear", ["f", "scale", "zero"], ["w"])],
        [FLOATS],
        "QuantizeLinear takes f, which is computed",
    ),
    "cast": (
        [helper.make_node("Cast", ["f"], ["w"], to=TensorProto.INT8)],
        [FLOATS],
        "DequantizeLinear takes w, which is computed",
    ),
    "subgraph": ([branches(WEIGHTS)], [FLOATS, YES], "it has subgraphs"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_minus_128_does_not_slip_past_in_another_form(kind):
    """Flat, computed at load or behind a branch: onnxruntime runs it, so it is refused here."""
    nodes, tensors_, said = CHANGED[kind]
    data = a_graph([*nodes, *CONV], [*tensors_, SCALE, ZERO])
    runtime_session(data, 1)
    with pytest.raises(ModelError, match=said):
        check_file(data, "x-int8")


def test_sparse_weights_are_refused_in_an_int8_file():
    """Nobody here looks into them; in FP32 they may be."""
    hidden = sparse(WEIGHTS, TensorProto.INT8, [-128])
    with pytest.raises(ModelError, match="it has sparse weights"):
        check_file(a_graph(CONV, [SCALE, ZERO], sparse_initializer=[hidden]), "x-int8")
    floats = sparse(WEIGHTS, TensorProto.FLOAT, [0.5])
    nodes = [helper.make_node("Conv", ["image", "w"], ["c"]), CONV[-1]]
    check_file(a_graph(nodes, [], sparse_initializer=[floats]), "x-fp32")


def test_a_flat_weight_within_its_range_passes():
    """The form is no fault: reshaped weights without -128 are as good as any."""
    good = numpy_helper.from_array(np.maximum(WEIGHTS.reshape(-1), -127), "flat")
    check_file(a_graph([RESHAPE, *CONV], [good, SHAPE, SCALE, ZERO]), "x-int8")


def test_a_circle_of_nodes_ends():
    """A damaged file in which two nodes feed each other is an error, not a loop."""
    nodes = [
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "scale", "zero"], ["y"]),
    ]
    with pytest.raises(ModelError, match="which is computed"):
        check_file(a_graph(nodes, [SCALE, ZERO]), "x-int8")


def outside(tmp_path):
    """A tensor whose values lie in w.bin."""
    np.ones(WEIGHTS.shape, np.float32).tofile(tmp_path / "w.bin")
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    return tensor


def in_branch(tensor):
    """An If whose branches both give that tensor."""
    given = [helper.make_tensor_value_info("out", TensorProto.FLOAT, WEIGHTS.shape)]
    identity = [helper.make_node("Identity", ["far"], ["out"])]
    inner = helper.make_graph(identity, "b", [], given, [tensor])
    return helper.make_node("If", ["yes"], ["w"], then_branch=inner, else_branch=inner)


def from_outside(tmp_path, place):
    """A file that takes the weights of its one layer from w.bin, named in that place."""
    tensor = outside(tmp_path)
    conv = [helper.make_node("Conv", ["image", "w"], ["c"]), CONV[-1]]
    match place:
        case "initialiser":
            return a_graph([helper.make_node("Identity", ["far"], ["w"]), *conv], [tensor])
        case "constant":
            return a_graph([helper.make_node("Constant", [], ["w"], value=tensor), *conv], [])
        case "branch":
            return a_graph([in_branch(tensor), *conv], [YES])
    places = helper.make_tensor("", TensorProto.INT64, [1], [0])
    hidden = onnx.SparseTensorProto(values=tensor, indices=places, dims=WEIGHTS.shape)
    return a_graph(conv, [], sparse_initializer=[hidden])


@pytest.mark.parametrize("place", ["initialiser", "constant", "branch", "sparse"])
def test_weights_in_another_file_are_refused_wherever_they_are_named(tmp_path, place):
    """No pinned hash covers them: the other file may be any, in whatever folder it is run."""
    data = from_outside(tmp_path, place)
    with pytest.raises(ModelError, match=r"model x-fp32: all weights in the file itself expected"):
        check_file(data, "x-fp32")


def test_a_session_refuses_weights_in_another_file(tmp_path, monkeypatch, pin):
    """Under its right hash, where onnxruntime would find them: it loads such a file by itself."""
    monkeypatch.chdir(tmp_path)
    data = from_outside(tmp_path, "branch")
    runtime_session(data, 1)
    with pytest.raises(ModelError, match="in the file itself expected, 2 lie in another"):
        Session(pin(data, id_="tiny-fp32"), 1)


def test_a_message_that_is_there_twice_is_refused():
    """Protobuf would merge a graph from two, which neither part shows."""
    data = one_weight([[1, 2]])
    with pytest.raises(ModelError, match="two of what there is one of: GraphProto"):
        check_file(data + data, "x-int8")


def test_the_shipped_files_pass():
    """Nothing in models/ has a weight that overflows."""
    for entry in load_manifest().entries:
        if entry.path.is_file():
            check_file(entry.path.read_bytes(), entry.id)
