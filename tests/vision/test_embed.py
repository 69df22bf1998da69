"""One preprocessing for every model: what the manifest says is what is computed."""

import hashlib
from itertools import product

import numpy as np
import pytest
from onnx import TensorProto, helper

from kiosk.errors import EmbeddingError, ModelError, PictureError
from kiosk.types import Embedding
from kiosk.vision.embed import Embedder, open_embedder, preprocess
from kiosk.vision.manifest import load_manifest
from kiosk.vision.session import Session

SCALES = [(127.5, 1 / 127.5), (0.0, 1.0), (127.5, 1 / 128)]


@pytest.mark.parametrize(("layout", "channels"), list(product(["NCHW", "NHWC"], ["RGB", "BGR"])))
@pytest.mark.parametrize(("mean", "scale"), SCALES)
def test_layout_channels_mean_and_scale_are_as_listed(
    put_model, tiny, crop, layout, channels, mean, scale
):
    """Every combination gives what plain arithmetic gives."""
    model = tiny(layout=layout, channels=channels, mean=mean, scale=scale)
    embedding = open_embedder(put_model(model), "tiny-fp32", 1).embed(crop)
    np.testing.assert_allclose(embedding.vector, model.expected(crop), atol=1e-5)


@pytest.mark.parametrize("dim", [128, 192, 512])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_dimension_and_batch_are_as_listed(put_model, tiny, crop, dim, batch):
    """128, 192 or 512 values; a free batch, a batch of one, and a file fixed at two."""
    model = tiny(dim=dim, batch=batch)
    embedder = open_embedder(put_model(model), "tiny-fp32", 1)
    embedding = embedder.embed(crop)
    assert (embedding.space, embedding.vector.shape) == ("tiny", (dim,))
    assert (embedder.id, embedder.dim, embedder.threshold) == ("tiny-fp32", dim, 0.5)
    np.testing.assert_allclose(embedding.vector, model.expected(crop), atol=1e-5)


def test_swapped_channels_give_another_embedding(put_model, tiny, crop):
    """RGB listed as BGR is another vector: the tests above would see the mistake."""
    right = open_embedder(put_model(tiny(channels="RGB")), "tiny-fp32", 1).embed(crop)
    wrong = open_embedder(put_model(tiny(channels="BGR")), "tiny-fp32", 1).embed(crop)
    assert right.similarity(wrong) < 0.9


def test_a_wrong_mean_gives_another_embedding(put_model, tiny, crop):
    """A mean that is left out is another vector: the tests above would see the mistake."""
    right = open_embedder(put_model(tiny()), "tiny-fp32", 1).embed(crop)
    wrong = open_embedder(put_model(tiny(mean=0.0)), "tiny-fp32", 1).embed(crop)
    assert right.similarity(wrong) < 0.99


def test_an_empty_output_name_means_the_first(put_model, tiny, crop):
    """Files whose output has a number for a name are listed without one."""
    model = tiny(output="", extra_outputs=["negated"])
    embedding = open_embedder(put_model(model), "tiny-fp32", 1).embed(crop)
    np.testing.assert_allclose(embedding.vector, -model.expected(crop), atol=1e-5)


def test_an_output_is_found_by_its_name(put_model, tiny, crop):
    """Of several outputs the listed one is taken, wherever it stands."""
    model = tiny(output="embedding", extra_outputs=["negated"])
    embedding = open_embedder(put_model(model), "tiny-fp32", 1).embed(crop)
    np.testing.assert_allclose(embedding.vector, model.expected(crop), atol=1e-5)


def test_an_output_that_is_not_there_is_named(put_model, tiny):
    """The listed name and those of the file are told when it is opened."""
    with pytest.raises(ModelError, match=r"output 'fc1' expected .* the file has embedding"):
        open_embedder(put_model(tiny(output="fc1")), "tiny-fp32", 1)


def test_another_dimension_than_listed_is_refused(put_model, tiny):
    """A file of another dimension is refused when it is opened, with both numbers."""
    with pytest.raises(ModelError, match="512 values expected by the manifest, the file gives 192"):
        open_embedder(put_model(tiny(), dim=512), "tiny-fp32", 1)


IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 112, 112])
ODD = {
    "scalar": (
        helper.make_node("ReduceMean", ["image"], ["y"], keepdims=0),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, []),
    ),
    "sequence": (
        helper.make_node("SequenceConstruct", ["image"], ["y"]),
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None),
    ),
    "text": (
        helper.make_node("Cast", ["image"], ["y"], to=TensorProto.STRING),
        helper.make_tensor_value_info("y", TensorProto.STRING, [1, 3, 112, 112]),
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_output_that_is_no_embedding_is_refused(pin, kind):
    """A single number, a sequence or texts are refused by name when the file is opened."""
    node, output = ODD[kind]
    graph = helper.make_graph([node], "g", [IMAGE], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entry = pin(model.SerializeToString(), output="y")
    with pytest.raises(ModelError, match="model tiny-int8: one embedding a picture expected"):
        Embedder(entry, Session(entry, 1))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((112, 111, 3), dtype=np.uint8),
        np.zeros((112, 112), dtype=np.uint8),
        np.zeros((112, 112, 4), dtype=np.uint8),
        np.zeros((112, 112, 3), dtype=np.float32),
    ],
)
def test_what_is_no_aligned_crop_is_refused(put_model, tiny, bad):
    """Another size, grey, alpha or floats: refused with what was expected."""
    embedder = open_embedder(put_model(tiny()), "tiny-fp32", 1)
    with pytest.raises(PictureError, match="aligned crop of 112x112 8-bit colour"):
        embedder.embed(bad)


def test_a_picture_that_gives_nothing_is_no_embedding(put_model, tiny):
    """An output of length 0 is refused: it would be as near to everybody."""
    embedder = open_embedder(put_model(tiny(mean=0.0)), "tiny-fp32", 1)
    with pytest.raises(EmbeddingError, match="cannot be normalised"):
        embedder.embed(np.zeros((112, 112, 3), dtype=np.uint8))


def test_the_input_is_not_changed(put_model, tiny, crop):
    """A crop that is read-only can be embedded, and is as before."""
    crop.flags.writeable = False
    before = hashlib.sha256(crop.tobytes()).hexdigest()
    open_embedder(put_model(tiny()), "tiny-fp32", 1).embed(crop)
    assert hashlib.sha256(crop.tobytes()).hexdigest() == before


def test_the_shipped_embedder_maps_pixels_to_one():
    """0 and 255 become -1 and 1, red first, channels before rows."""
    spec = load_manifest().get("mobilefacenet-fp32", "embedder").input
    crop = np.zeros((112, 112, 3), dtype=np.uint8)
    crop[:, :, 2] = 255
    values = preprocess(crop, spec)
    assert (values.shape, values.dtype) == ((3, 112, 112), np.float32)
    assert [float(values[i].mean()) for i in range(3)] == pytest.approx([1.0, -1.0, -1.0])


def test_both_shipped_embedders_are_one_space(shared):
    """The rewritten file and the plain one may serve one gallery: cosine 1 on other faces."""
    from kiosk.vision.picture import load_picture

    manifest = load_manifest()
    pair = [open_embedder(manifest, f"mobilefacenet-{n}", 1) for n in ("fp32", "prelu-fp32")]
    for path in sorted((shared / "data" / "faces112").glob("*/*"))[::50]:
        one, other = (embedder.embed(load_picture(path)) for embedder in pair)
        assert isinstance(one, Embedding)
        assert one.similarity(other) > 0.999999
