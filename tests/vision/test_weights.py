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
from kiosk.vision.session import Session
from kiosk.vision.weights import check_int8_weights, int8_weights

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
        check_int8_weights(data, "x-int8")
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
        check_int8_weights(one_weight([[-128, 5], [-128, 127]], raw=raw), "x-int8")
    check_int8_weights(one_weight([[-127, 5], [0, 127]], raw=raw), "x-int8")


def test_zero_points_may_be_minus_128():
    """A vector is no weight: per-channel zero points of activations reach down to -128."""
    check_int8_weights(one_weight([-128, 127]), "x-int8")


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
        check_int8_weights(data, "x-int8")


def test_missing_values_do_not_pass():
    """A weight whose values lie in another file, or are too few, is refused: nobody saw them."""
    tensor = TensorProto(name="conv_w", data_type=TensorProto.INT8, dims=[3, 3])
    data = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    with pytest.raises(ModelError, match=r"conv_w of shape \[3, 3\] holds 0 values"):
        check_int8_weights(data, "x-int8")


def test_graphs_without_end_are_refused():
    """A file of graphs within graphs ends in an error, not in a full stack."""
    data = b""
    for _ in range(200):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            data = tag + length_of(data) + data
    with pytest.raises(ModelError, match="nested more than"):
        check_int8_weights(b"\x3a" + length_of(data) + data, "x-int8")


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


def test_the_shipped_files_pass():
    """Nothing in models/ has a weight that overflows."""
    for entry in load_manifest().entries:
        if entry.path.is_file():
            check_int8_weights(entry.path.read_bytes(), entry.id)
