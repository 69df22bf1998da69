"""What users bring, from the command line to the file: it is taken exactly, or refused by name."""

import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper

from kiosk.__main__ import main
from kiosk.lab.quantise import in_int8
from kiosk.lab.runner import session_of
from lab.nets import kinds, mobile, mobile_sketch, noise, write_crops

IMAGE = [1, 3, 112, 112]


@pytest.fixture
def faces(tmp_path):
    return write_crops(tmp_path / "crops", people=2, each=3)


@pytest.fixture
def small_disk(mounted_disk):
    """A filesystem that FP32's quarter does not fit on."""
    return mounted_disk("32k")


def quantize(model, folder, *arguments):
    onnx.save(model, folder / "fp32.onnx")
    out = folder / "out" / "int8.onnx"
    out.parent.mkdir(exist_ok=True)
    return main(
        ["lab", "quantize", str(folder / "fp32.onnx"), "--out", str(out), *map(str, arguments)]
    )


def written(folder):
    return onnx.load(folder / "out" / "int8.onnx")


@pytest.mark.parametrize("command", ["quantize", "build"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "a folder of pictures expected, there is none"),
        ([], "the folder has none"),
        (["torn.png", "text.jpg"], "faces expected, none in 2 pictures, the first: "),
    ],
)
def test_a_calibration_set_without_a_face_is_refused(tmp_path, capsys, command, content, told):
    """Missing, empty, all broken: status 2, the folder named, and nothing written."""
    onnx.save(mobile(0), tmp_path / "fp32.onnx")
    folder = tmp_path / "bad"
    if content is not None:
        folder.mkdir()
    for name in content or []:
        (folder / name).write_bytes(b"torn")
    arguments = ["lab", command, str(tmp_path / "fp32.onnx"), "--calib", str(folder)]
    arguments += ["--out", str(tmp_path / "out"), "--aligned"]
    arguments += ["--holdout", str(folder)] if command == "build" else []
    assert main(arguments) == 2
    assert f"{folder}: " in (said := capsys.readouterr().err)
    assert told in said
    assert not list(tmp_path.glob("out/*"))


def test_photographs_that_show_nobody_are_refused(tmp_path, capsys):
    """The detector finds no face on a wall: status 2, and what crops would have wanted."""
    (tmp_path / "walls").mkdir()
    cv2.imwrite(str(tmp_path / "walls" / "wall.png"), np.full((300, 400, 3), 127, np.uint8))
    assert quantize(mobile(0), tmp_path, "--calib", tmp_path / "walls") == 2
    said = capsys.readouterr().err
    assert "a face expected, none found" in said
    assert "--aligned" in said
    assert not list(tmp_path.glob("out/*"))


def test_broken_pictures_are_left_out_by_name_and_number(faces, tmp_path, capsys):
    """Each of them stands in JSON with its reason; the faces are the others."""
    for name in ("a.png", "b.png"):
        (faces / name).write_bytes(b"torn")
    assert quantize(mobile(0), tmp_path, "--calib", faces, "--aligned", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faces"] == 6
    assert [each["file"].rsplit("/", 1)[-1] for each in told["skipped"]] == ["a.png", "b.png"]
    assert all(each["reason"] for each in told["skipped"])


def test_a_free_batch_is_still_free_in_8_bits(faces, tmp_path):
    """Calibrated with one face at a time, run with as many as one likes."""
    model = mobile(0)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    assert quantize(model, tmp_path, "--calib", faces, "--aligned") == 0
    three = np.concatenate(noise(mobile(0), 3))
    assert session_of(written(tmp_path)).run(None, {"image": three})[0].shape == (3, 64)


@pytest.mark.parametrize("options", [(), ("--as-it-is",)])
@pytest.mark.parametrize("opset", [8, 11])
def test_an_old_opset_ends_as_13_in_8_bits(faces, tmp_path, opset, options):
    """Scales for each channel need it: every layer is in 8 bits, and the file runs."""
    model = mobile_sketch(0).model("embedding", IMAGE, shape=[1, 64], opset=opset, listed=True)
    assert quantize(model, tmp_path, "--calib", faces, "--aligned", *options) == 0
    result = written(tmp_path)
    assert next(o.version for o in result.opset_import if not o.domain) >= 13
    assert in_int8(result) == (7, 7)


def test_a_conversion_that_is_not_exact_leaves_no_file(faces, tmp_path, capsys, monkeypatch):
    """Status 1, the file and both opsets named."""
    model = mobile_sketch(0).model("embedding", IMAGE, shape=[1, 64], opset=11)
    other = mobile_sketch(1).model("embedding", IMAGE, shape=[1, 64], opset=13)
    monkeypatch.setattr("kiosk.lab.prepare.version_converter.convert_version", lambda *_: other)
    assert quantize(model, tmp_path, "--calib", faces, "--aligned") == 1
    assert "fp32.onnx: converting opset 11 to 13 moves its output" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_weights_in_another_file_are_refused(faces, tmp_path, capsys):
    """Status 1, how many, and how to make one file of it."""
    path = tmp_path / "model.onnx"
    onnx.save(mobile(0), path, save_as_external_data=True, location="weights.bin", size_threshold=9)
    out = tmp_path / "out" / "int8.onnx"
    out.parent.mkdir()
    options = ["--out", str(out), "--calib", str(faces), "--aligned"]
    assert main(["lab", "quantize", str(path), *options]) == 2
    assert "model.onnx: one self-contained file expected" in (said := capsys.readouterr().err)
    assert "onnx.save(onnx.load(FILE), OUT)" in said
    assert not out.exists()


@pytest.mark.parametrize("slope", [0.25, 2.5])
def test_one_slope_for_all_channels_is_taken(faces, tmp_path, slope):
    """One for the whole network: spread, turned below one where it is steep, and still there."""
    sketch = mobile_sketch(0)
    sketch.const("shared", np.full((1,), slope))
    for node in sketch.nodes:
        if node.op_type == "PRelu":
            node.input[1] = "shared"
    model = sketch.model("embedding", IMAGE, shape=[1, 64])
    assert quantize(model, tmp_path, "--calib", faces, "--aligned") == 0
    assert kinds(written(tmp_path))["PRelu"] == 4


def test_a_model_without_prelu_is_taken_and_told_nothing_of_it(faces, tmp_path, capsys):
    """Relu instead: all in 8 bits, and no advice about a node that is not there."""
    sketch = mobile_sketch(0)
    for number, node in enumerate(sketch.nodes):
        if node.op_type == "PRelu":
            relu = helper.make_node("Relu", node.input[:1], node.output, name=f"Relu_{number}")
            node.CopyFrom(relu)
    model = sketch.model("embedding", IMAGE, shape=[1, 64])
    assert quantize(model, tmp_path, "--calib", faces, "--aligned", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["int8"] == told["layers"] == 7
    assert not {"prelu-nodes", "steep-slopes"} & {each["key"] for each in told["advice"]}


@pytest.mark.parametrize("command", ["quantize", "build"])
def test_a_quantised_model_is_refused_by_every_maker(faces, tmp_path, capsys, command):
    """The FP32 file is asked for; nothing is written."""
    assert quantize(mobile(0), tmp_path, "--method", "dynamic") == 0
    arguments = ["lab", command, str(tmp_path / "out" / "int8.onnx"), "--aligned"]
    arguments += ["--calib", str(faces), "--out", str(tmp_path / "twice")]
    held = write_crops(tmp_path / "held", people=2, each=2, seed=9)
    arguments += ["--holdout", str(held), "--no-identities"] if command == "build" else []
    assert main(arguments) == 2
    assert "int8.onnx: an FP32 model expected, it is quantised already" in capsys.readouterr().err
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize("last", ["wide", "two"])
def test_an_output_that_is_not_one_embedding_is_refused(faces, tmp_path, capsys, last):
    """A map of features, or two outputs: status 1, the file named."""
    model = mobile(0)
    if last == "wide":
        del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("wide", 1, [1, 16, 14, 14]))
    assert quantize(model, tmp_path, "--calib", faces, "--aligned") == 2
    assert "fp32.onnx: one embedding" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_a_full_disk_leaves_nothing_under_the_name(faces, tmp_path, capsys, small_disk):
    """A real one: status 1, the file and the reason, and neither it nor a part of it is there."""
    onnx.save(mobile(0), tmp_path / "fp32.onnx")
    arguments = ["lab", "quantize", str(tmp_path / "fp32.onnx"), "--calib", str(faces)]
    arguments += ["--aligned", "--out", str(small_disk / "int8.onnx")]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "int8.onnx: " in said
    assert "No space left" in said
    assert list(small_disk.iterdir()) == []
