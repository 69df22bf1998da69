"""`kiosk lab quantize` end to end: the file, what is told, and what is refused."""

import json

import onnx
import pytest

from kiosk.__main__ import main
from kiosk.lab.quantise import in_int8
from lab.nets import ires_sketch, mobile, write_crops


@pytest.fixture
def fp32(tmp_path):
    onnx.save(mobile(0), tmp_path / "fp32.onnx")
    return tmp_path / "fp32.onnx"


@pytest.fixture
def faces(tmp_path):
    return write_crops(tmp_path / "crops", people=4, each=2)


def quantize(model, out, *arguments):
    return main(["lab", "quantize", str(model), "--out", str(out), *map(str, arguments)])


def test_a_tiny_model_is_quantised_and_told(fp32, faces, tmp_path, capsys):
    """The file loads, the line names layers and size, and eight faces are warned of."""
    out = tmp_path / "int8.onnx"
    (faces / "broken.png").write_text("no picture")
    assert quantize(fp32, out, "--calib", faces, "--aligned") == 0
    said = capsys.readouterr().out
    assert "int8.onnx: 7 of 7 layers in INT8" in said
    assert "warning: 8 faces to calibrate with, at least 50" in said
    assert "broken.png" in said
    assert in_int8(onnx.load(out)) == (7, 7)


def test_json_tells_the_same(fp32, faces, tmp_path, capsys):
    """One document: layers, bytes of both files, faces, files skipped, advice."""
    out = tmp_path / "int8.onnx"
    options = ("--calib", faces, "--aligned", "--samples", 5, "--exclude", "Conv_stem", "--json")
    assert quantize(fp32, out, *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["int8"], document["layers"], document["faces"]) == (6, 7, 5)
    assert document["bytes"] == out.stat().st_size
    assert document["source_bytes"] == fp32.stat().st_size
    assert document["skipped"] == []


def test_fifty_faces_are_not_warned_of(fp32, tmp_path, capsys):
    """The guide's least number."""
    folder = write_crops(tmp_path / "crops", people=10, each=5)
    assert quantize(fp32, tmp_path / "int8.onnx", "--calib", folder, "--aligned") == 0
    assert "warning" not in capsys.readouterr().out


def test_an_iresnet_goes_the_plain_path(faces, tmp_path, capsys):
    """BatchNormalization, residual blocks, Gemm: folded, quantised, run."""
    model = ires_sketch(0, side=112).model("embedding", [1, 3, 112, 112], shape=[1, 32])
    onnx.save(model, tmp_path / "fp32.onnx")
    options = ("--calib", faces, "--aligned", "--json")
    assert quantize(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["int8"] == document["layers"] >= 5


def test_the_dynamic_method_wants_no_faces(fp32, tmp_path, capsys):
    """And no warning about their number."""
    assert quantize(fp32, tmp_path / "int8.onnx", "--method", "dynamic") == 0
    assert "7 of 7 layers" in (said := capsys.readouterr().out)
    assert "warning" not in said


def test_as_it_is_leaves_folding_out(faces, tmp_path):
    """Every batch normalisation is still there."""
    model = ires_sketch(0, side=112).model("embedding", [1, 3, 112, 112], shape=[1, 32])
    onnx.save(model, tmp_path / "fp32.onnx")
    out = tmp_path / "int8.onnx"
    options = ("--calib", faces, "--aligned", "--as-it-is")
    assert quantize(tmp_path / "fp32.onnx", out, *options) == 0
    assert "BatchNormalization" in {node.op_type for node in onnx.load(out).graph.node}


def test_the_shipped_model_goes_the_plain_path(repository, faces, tmp_path, capsys):
    """Eight crops: all of its 50 layers, a quarter of its bytes and some."""
    model = repository / "models" / "mobilefacenet-prelu-fp32.onnx"
    options = ("--calib", faces, "--aligned", "--json")
    assert quantize(model, tmp_path / "int8.onnx", *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["int8"], document["layers"]) == (50, 50)
    assert document["bytes"] < 0.3 * document["source_bytes"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "--calib: a folder of pictures expected"),
        (("--calib", "nowhere"), "nowhere: a folder of pictures expected"),
        (("--method", "dynamic", "--exclude", "Conv_nothing"), "'Conv_nothing' is none"),
        (("--calib", ".", "--samples", "0"), "--samples: a number from 1 on expected"),
        (("--calib", ".", "--percentile", "50"), "--percentile: more than 50"),
        (("--method", "dynamic", "--op-types", "Konv"), "--op-types"),
        (("--method", "dynamic", "--op-types", ","), "--op-types"),
    ],
)
def test_a_wrong_option_is_refused_by_name(fp32, tmp_path, capsys, options, what):
    """Exit status 2, the option named, no file."""
    assert quantize(fp32, tmp_path / "int8.onnx", *options) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "int8.onnx").exists()


def test_the_source_is_not_written_over(fp32, capsys):
    """The FP32 file is what everything is made of: the same path as output is refused."""
    before = fp32.read_bytes()
    assert quantize(fp32, fp32, "--method", "dynamic") == 2
    assert "--out" in capsys.readouterr().err
    assert fp32.read_bytes() == before


def test_a_quantised_model_is_refused(fp32, tmp_path, capsys):
    """Twice makes nothing better: exit status 1 and the FP32 file asked for."""
    assert quantize(fp32, tmp_path / "int8.onnx", "--method", "dynamic") == 0
    assert quantize(tmp_path / "int8.onnx", tmp_path / "twice.onnx", "--method", "dynamic") == 1
    assert "quantised already" in capsys.readouterr().err
    assert not (tmp_path / "twice.onnx").exists()
