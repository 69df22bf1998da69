"""What an ONNX file is found to be, and what is refused by name."""

import hashlib

import onnx
import pytest
from onnx import TensorProto, helper

from kiosk.errors import ModelError
from kiosk.lab.subject import Feeding, read_subject
from lab.nets import mobile, mobile_sketch, subject_of


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def with_ends(*, image=None, output=None):
    """A mobile net whose input or output says something else."""
    model = mobile(0)
    if image is not None:
        model.graph.input[0].CopyFrom(image)
    if output is not None:
        model.graph.output[0].CopyFrom(output)
    return model


def test_a_file_is_told_by_its_hash_and_its_ends(tmp_path):
    """Input, output, dimension, opset and layout as they stand in the file."""
    subject = subject_of(mobile(0), tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    assert subject.sha256 == hashlib.sha256(data).hexdigest()
    assert (subject.input_name, subject.output_name, subject.dim) == ("image", "embedding", 64)
    assert (subject.input.layout, subject.input.batch, subject.opset) == ("NCHW", 1, 17)
    assert subject.space is None


def test_a_file_of_the_manifest_is_fed_as_that_says(repository):
    """Whatever the command line says of normalisation."""
    path = repository / "models" / "mobilefacenet-prelu-fp32.onnx"
    subject = read_subject(path, Feeding("BGR", 0.0, 1.0))
    assert (subject.input.channels, subject.input.mean) == ("RGB", 127.5)
    assert subject.space == "mobilefacenet-192-4pt"


def test_any_other_file_is_fed_as_told(tmp_path):
    """Order of colours, mean and scale are not in an ONNX file."""
    onnx.save(mobile(0), tmp_path / "model.onnx")
    subject = read_subject(tmp_path / "model.onnx", Feeding("BGR", 0.0, 1.0))
    assert (subject.input.channels, subject.input.mean, subject.input.scale) == ("BGR", 0.0, 1.0)


@pytest.mark.parametrize(
    ("image", "layout", "batch"),
    [
        (["N", 3, 112, 112], "NCHW", 0),
        ([None, 3, None, None], "NCHW", 0),
        ([2, 3, 112, 112], "NCHW", 2),
        ([1, 112, 112, 3], "NHWC", 1),
        (["N", "H", "W", 3], "NHWC", 0),
    ],
)
def test_free_axes_and_both_layouts_are_read(tmp_path, image, layout, batch):
    """A free axis is 112 where it is a side, and any number where it is the batch."""
    output = value("embedding", [image[0], 64])
    model = with_ends(image=value("image", image), output=output)
    subject = subject_of(model, tmp_path / "model.onnx")
    assert (subject.input.layout, subject.input.batch) == (layout, batch)
    assert (subject.input.width, subject.input.height) == (112, 112)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (value("image", [1, 3, 160, 160]), "112x112 expected, the file takes 160x160"),
        (value("image", [1, 1, 112, 112]), "three colours"),
        (value("image", [1, 3 * 112 * 112]), "four dimensions"),
        (
            value("image", [1, 3, 112, 112], TensorProto.UINT8),
            "picture in float32 expected, image is uint8",
        ),
        (value("image", [None, 3, 112, 112], TensorProto.FLOAT16), "float32 .* image is float16"),
    ],
)
def test_what_is_no_picture_of_112_is_refused(tmp_path, image, what):
    """The daemon aligns to 112x112 in three colours, and nothing else goes in."""
    with pytest.raises(ModelError, match=f"model.onnx: .*{what}"):
        subject_of(with_ends(image=image), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("image", "output"),
    [
        ([1, 3, 112, 112], [1, 7]),
        ([1, 3, 112, 112], [1, 4096]),
        ([1, 3, 112, 112], [1, 64, 7, 7]),
        ([1, 3, 112, 112], [1, 49, 64]),
        ([1, 3, 112, 112], [1, None]),
        ([1, 3, 112, 112], None),
        ([1, 3, 112, 112], [64]),
        ([1, 3, 112, 112], [5, 64]),
        ([2, 3, 112, 112], [1, 64]),
    ],
)
def test_what_is_not_one_embedding_is_refused(tmp_path, image, output):
    """Classes, maps, lists of boxes, no batch or one of another size: one row a face expected."""
    model = with_ends(image=value("image", image), output=value("embedding", output))
    with pytest.raises(ModelError, match=r"model\.onnx: one embedding"):
        subject_of(model, tmp_path / "model.onnx")


def test_an_embedding_of_whole_numbers_is_refused(tmp_path):
    """An output of classes' numbers is no vector."""
    model = with_ends(output=value("embedding", [1, 64], TensorProto.INT64))
    with pytest.raises(ModelError, match=r"model\.onnx: one embedding in float32 .* is int64"):
        subject_of(model, tmp_path / "model.onnx")


def test_several_inputs_or_outputs_are_refused_with_their_names(tmp_path):
    """Which of them would be the picture, or the embedding, nobody says."""
    model = mobile(0)
    model.graph.input.append(value("mask", [1, 1]))
    with pytest.raises(ModelError, match=r"one input expected, got 2 \(image, mask\)"):
        subject_of(model, tmp_path / "model.onnx")
    model = mobile(0)
    model.graph.output.append(value("flat", [1, 784]))
    with pytest.raises(ModelError, match=r"got 2 \(embedding, flat\)"):
        subject_of(model, tmp_path / "model.onnx")


def test_weights_among_the_inputs_are_no_inputs(tmp_path):
    """As IR 3 lists them."""
    model = mobile_sketch(0).model(
        "embedding", [1, 3, 112, 112], shape=[1, 64], opset=11, listed=True, ir_version=3
    )
    assert subject_of(model, tmp_path / "model.onnx").input_name == "image"


def test_external_weights_are_refused_with_a_way_out(tmp_path):
    """The hash of one file does not tell the weights in another."""
    path = tmp_path / "model.onnx"
    onnx.save(mobile(0), path, save_as_external_data=True, location="weights.bin", size_threshold=9)
    with pytest.raises(ModelError, match=r"model\.onnx: one self-contained file") as caught:
        read_subject(path)
    assert "onnx.save" in caught.value.hint
    onnx.save(onnx.load(path), tmp_path / "whole.onnx")
    assert read_subject(tmp_path / "whole.onnx").dim == 64


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"not a model", bytes(64)])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    """An empty file, a picture, a text, zeros: in words, with the file's name."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: an ONNX"):
        read_subject(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """Missing, or a folder."""
    with pytest.raises(ModelError, match=r"none\.onnx: an ONNX file expected, No such file"):
        read_subject(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="an ONNX file expected, Is a directory"):
        read_subject(tmp_path)


def test_half_a_file_is_refused(tmp_path):
    """A download that broke off."""
    data = mobile(0).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        read_subject(tmp_path / "model.onnx")
