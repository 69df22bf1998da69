"""`kiosk lab quantize` end to end: the file, what is told, and what is refused."""

import json

import onnx
import pytest

from kiosk.__main__ import main
from kiosk.lab.quantise import in_int8
from kiosk.vision.cpu import cpu_of
from lab.nets import ires_sketch, mobile, mobile_sketch, write_crops


@pytest.fixture
def fp32(tmp_path):
    onnx.save(mobile(0), tmp_path / "fp32.onnx")
    return tmp_path / "fp32.onnx"


NEW = cpu_of("model name : new\nflags : avx2 avx512_vnni", "x86_64")
OLD = cpu_of("model name : old\nflags : avx2", "x86_64")
PI4 = cpu_of("Features : fp asimd\nCPU part : 0xd08", "aarch64")


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    """A function that sets the processor; one that has nothing to be told of until then."""

    def put(found):
        monkeypatch.setattr("kiosk.lab.plain.read_cpu", lambda: found)

    put(NEW)
    return put


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
    assert "warning: 8 calibration faces. Ranges from few faces" in said
    assert "Take 100 to 1,000 faces" in said
    assert "8 of 9 pictures in " in said
    assert "left out " in said
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
    advice = {each["key"]: each for each in document["advice"]}
    assert set(advice) == {"few-faces", "few-people", "prelu-nodes", "steep-slopes"}
    assert advice["few-faces"]["weight"] == "warning"
    assert advice["few-people"]["seen"] == "Calibration knows 4 people."
    assert set(advice["prelu-nodes"]) == {"key", "weight", "seen", "why", "do"}


def advised(fp32, out, capsys, *options):
    """What is seen, by the advice's key."""
    assert quantize(fp32, out, "--json", *options) == 0
    told = json.loads(capsys.readouterr().out)["advice"]
    return {each["key"]: each["seen"] for each in told}


def test_slopes_above_one_are_counted_where_they_are_left(faces, tmp_path, capsys):
    """Between convolutions they are turned, with --as-it-is they are not; the nodes stay."""
    sketch = mobile_sketch(0)
    for name in ("wide_p", "deep_p"):
        sketch.constants[f"{name}_slope"][:3] = 1.5
    sketch.constants["stem_p_slope"][:] = sketch.constants["down_p_slope"][:] = 0.5
    steep = sum(int((v > 1).sum()) for n, v in sketch.constants.items() if n.endswith("_slope"))
    onnx.save(sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64]), tmp_path / "fp32.onnx")
    out, given = tmp_path / "int8.onnx", ("--calib", faces, "--aligned")
    as_it_is = advised(tmp_path / "fp32.onnx", out, capsys, *given, "--as-it-is")
    assert as_it_is["steep-slopes"] == f"{steep} of 56 PReLU slopes are above 1."
    assert as_it_is["prelu-nodes"] == "4 PRelu nodes left in the graph."
    turned = advised(tmp_path / "fp32.onnx", out, capsys, *given)
    assert "steep-slopes" not in turned
    assert "prelu-nodes" in turned


def test_one_scale_over_unlike_channels_is_told_with_the_worst(faces, tmp_path, capsys):
    """Channels spread 1:1000 leave one of them a step or none; alike ones, or per channel: none."""
    given = ("--calib", faces, "--aligned", "--as-it-is")
    onnx.save(mobile(0, biggest=100.0), tmp_path / "spread.onnx")
    out = tmp_path / "int8.onnx"
    told = advised(tmp_path / "spread.onnx", out, capsys, *given, "--per-tensor")
    assert "the smallest channel of " in told["per-tensor"]
    assert told["per-tensor"].endswith(" of 127 steps.")
    assert "per-tensor" not in advised(tmp_path / "spread.onnx", out, capsys, *given)
    onnx.save(mobile(0), tmp_path / "alike.onnx")
    assert "per-tensor" not in advised(tmp_path / "alike.onnx", out, capsys, *given, "--per-tensor")


@pytest.mark.parametrize(
    ("found", "options", "key", "seen"),
    [
        (OLD, (), "no-dot-product", "(x86_64) has no dot product (VNNI)"),
        (OLD, ("--activations", "U8"), "saturates", "This CPU (x86_64) has no VNNI"),
        (OLD, ("--reduce-range",), "no-dot-product", "(x86_64) has no dot product (VNNI)"),
        (OLD, ("--activations", "U8", "--weights", "U8"), "no-dot-product", "VNNI"),
        (OLD, ("--format", "QOperator"), "no-dot-product", "VNNI"),
        (OLD, ("--format", "QOperator", "--activations", "U8"), "saturates", "no VNNI"),
        (PI4, (), "no-dot-product", "This CPU (aarch64) has no dot product (asimddp)"),
        (NEW, (), None, ""),
    ],
)
def test_the_processor_is_told_of_by_the_chosen_format(
    fp32, faces, tmp_path, capsys, cpu, found, options, key, seen
):
    """U8S8 with full 8-bit weights saturates without VNNI; others are only no faster there."""
    cpu(found)
    given = ("--calib", faces, "--aligned", *options)
    told = advised(fp32, tmp_path / "int8.onnx", capsys, *given)
    assert {"saturates", "no-dot-product"} & set(told) == ({key} if key else set())
    assert key is None or seen in told[key]


def test_a_quantiser_that_fails_says_what_can_be_left_out(
    fp32, faces, tmp_path, capsys, monkeypatch
):
    """An operator that onnxruntime cannot quantise: the way round it, and no file."""

    def fail(*_, **__):
        raise ValueError("Quantization failed for node Conv_stem")

    monkeypatch.setattr("kiosk.lab.quantise.quantize_static", fail)
    assert quantize(fp32, tmp_path / "int8.onnx", "--calib", faces, "--aligned") == 1
    said = capsys.readouterr().err
    assert "Quantization failed for node Conv_stem" in said
    assert "--op-types" in said
    assert "--exclude" in said
    assert not (tmp_path / "int8.onnx").exists()


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
        (
            ("--calib", ".", "--calibration", "Percentile", "--percentile", "50"),
            "--percentile: more than 50",
        ),
        (("--calib", ".", "--percentile", "99.9"), "--calibration Percentile and the static"),
        (
            ("--method", "dynamic", "--percentile", "99.9"),
            "--calibration Percentile and the static",
        ),
        (("--method", "dynamic", "--op-types", "Konv"), "--op-types"),
        (("--method", "dynamic", "--op-types", ","), "--op-types"),
    ],
)
def test_a_wrong_option_is_refused_by_name(fp32, tmp_path, capsys, options, what):
    """Exit status 2, the option named, no file."""
    assert quantize(fp32, tmp_path / "int8.onnx", *options) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "int8.onnx").exists()


def test_a_folder_that_is_not_there_is_not_made(fp32, tmp_path, capsys):
    """A slip of the pen is no wish for a folder."""
    assert quantize(fp32, tmp_path / "nosuch" / "q.onnx", "--method", "dynamic") == 2
    assert f"--out: a folder expected at {tmp_path / 'nosuch'}" in capsys.readouterr().err
    assert not (tmp_path / "nosuch").exists()


def test_the_source_is_not_written_over(fp32, capsys):
    """The FP32 file is what everything is made of: the same path as output is refused."""
    before = fp32.read_bytes()
    assert quantize(fp32, fp32, "--method", "dynamic") == 2
    assert "--out" in capsys.readouterr().err
    assert fp32.read_bytes() == before


def test_a_quantised_model_is_refused(fp32, tmp_path, capsys):
    """Twice makes nothing better: exit status 2 and the FP32 file asked for."""
    assert quantize(fp32, tmp_path / "int8.onnx", "--method", "dynamic") == 0
    assert quantize(tmp_path / "int8.onnx", tmp_path / "twice.onnx", "--method", "dynamic") == 2
    assert "quantised already" in capsys.readouterr().err
    assert not (tmp_path / "twice.onnx").exists()
