"""`kiosk lab validate`: what it prints, refuses and ends with."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from kiosk.__main__ import main
from kiosk.lab.calibrate import write_ranges
from kiosk.lab.faces import read_folder
from kiosk.lab.quantise import Recipe, quantised
from kiosk.lab.runner import inputs_of
from kiosk.lab.subject import read_subject
from kiosk.vision.manifest import load_manifest
from lab.nets import mobile_sketch, subject_of, write_crops


def validate(*arguments):
    return main(["lab", "validate", *map(str, arguments), "--aligned", "--threads", "1"])


def test_a_model_against_itself_passes_with_ones(tiny_embedder, crops, capsys):
    """The same file twice: all ones, no drop, exit status 0, and every line judged."""
    model, folder = tiny_embedder(), crops()
    assert validate(model, model, "--images", folder, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["mean_cosine"] == document["min_cosine"] == 1.0
    assert document["mean_mae"] == 0.0
    assert document["drop"]["auc"] == document["drop"]["tar@1e-3"] == 0.0
    assert document["tar@1e-3"] == document["int8"]["tar@1e-3"] == document["fp32"]["tar@1e-3"]
    assert document["tar@1e-4"] is None
    assert document["passed"]
    assert [line["passed"] for line in document["gate"]] == [True] * 5 + [None] * 2


def test_a_pair_without_int8_is_told(tiny_embedder, crops, capsys):
    """FP32 against itself passes every line, and says nothing of anything quantised."""
    model, folder = tiny_embedder(), crops()
    assert validate(model, model, "--images", folder) == 0
    assert "the same file twice: neither is INT8" in capsys.readouterr().out
    assert validate(model, tiny_embedder("other.onnx"), "--images", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["quantised"] is False


def test_a_worse_model_fails_and_its_lines_are_named(tiny_embedder, crops, capsys):
    """Noise on the weights: exit status 1, each failing line on standard error with its limit."""
    status = validate(tiny_embedder(), tiny_embedder("worse.onnx", noise=2), "--images", crops())
    said = capsys.readouterr()
    assert status == 1
    assert "the gate is NOT passed" in said.out
    assert "mean cosine" in said.err
    assert "(> 0.995 expected)" in said.err
    assert "min cosine" in said.err


def flat_of(folder, tmp_path):
    """The pictures of all people in one folder."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        shutil.copy(path, flat / f"{number}.png")
    return flat


def test_a_flat_folder_does_not_pass(tiny_embedder, crops, tmp_path, capsys):
    """AUC and TAR that could not be judged are named, with why; exit status 1, passed false."""
    flat, model = flat_of(crops(people=3), tmp_path), tiny_embedder()
    assert validate(model, model, "--images", flat) == 1
    said = capsys.readouterr()
    assert "the gate is NOT passed; not judged: AUC drop, TAR@1e-3 drop" in said.out
    assert "50 faces or more" in said.out
    assert "AUC drop, TAR@1e-3 drop: not judged (no identities: " in said.err
    assert "a folder for each of two people or more expected" in said.err
    assert "--no-identities" in said.err
    assert validate(model, model, "--images", flat, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    assert [each["line"] for each in document["not_judged"]] == ["AUC drop", "TAR@1e-3 drop"]
    assert document["auc"] is document["tar@1e-3"] is document["tar@1e-4"] is None


def test_cosine_and_mae_alone_are_judged_by_word_only(tiny_embedder, crops, tmp_path, capsys):
    """--no-identities: exit status 0, and what was left out is in text and JSON."""
    flat, model = flat_of(crops(people=3), tmp_path), tiny_embedder()
    assert validate(model, model, "--images", flat, "--no-identities") == 0
    said = capsys.readouterr().out
    assert "the gate is passed by cosine and MAE alone" in said
    assert "not judged: AUC drop, TAR@1e-3 drop" in said
    assert validate(model, model, "--images", flat, "--no-identities", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["passed"], document["identities"]) == (True, False)
    assert {each["why"] for each in document["not_judged"]} == {"left out, --no-identities"}


def test_a_picture_of_two_people_is_left_out_and_the_rest_is_judged(tiny_embedder, crops, capsys):
    """It was one picture that switched AUC and TAR off: it is named, and they are judged."""
    folder, fp32 = crops(), tiny_embedder()
    shutil.copy(folder / "p00" / "0.png", folder / "p01" / "again.png")
    assert validate(fp32, fp32, "--images", folder, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["genuine"], document["impostors"]) == (116, 1595)
    assert document["not_judged"] == []
    left = [item["reason"] for item in document["skipped_in_curves"]]
    assert len(left) == 2
    assert all("two people's, the same file as" in reason for reason in left)


def test_an_overlap_with_the_calibration_folder_is_refused(tiny_embedder, crops, tmp_path, capsys):
    """One common picture under another name: exit status 2, the file named."""
    folder, model = crops(people=2), tiny_embedder()
    calibration = crops("calibration", people=1, seed=9)
    shutil.copy(calibration / "p00" / "2.png", folder / "p01" / "again.png")
    assert validate(model, model, "--images", folder, "--calibration", calibration) == 2
    assert "1 of 11 are in" in (complaint := capsys.readouterr().err)
    assert "again.png" in complaint


def calibrated_with(hashes):
    digest = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    return {"calibration": {"files": hashes, "digest": digest}}


def record_of(*models):
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in models]
    return {"files": [{"file": "x.onnx", "sha256": sha256} for sha256 in hashes]}


def test_another_files_record_proves_nothing(tiny_embedder, crops, tmp_path, capsys):
    """A record without its files, or without this INT8 file, is refused by name."""
    folder, model = crops(people=2), tiny_embedder()
    path, other = tmp_path / "quantization_config.yaml", tiny_embedder("other.onnx", noise=1)
    for record, complaint in (
        ({}, "files expected, the name and SHA-256 of each model; it has none"),
        (record_of(other), f"the record of {model} (SHA-256"),
    ):
        path.write_text(yaml.safe_dump(record | calibrated_with(["0a" * 32])))
        assert validate(model, model, "--images", folder, "--record", path) == 2
        assert complaint in capsys.readouterr().err


def test_an_overlap_with_the_record_is_refused(tiny_embedder, crops, tmp_path, capsys):
    """The hashes of a record serve as well as the pictures; without overlap it is judged."""
    folder, model = crops(people=2), tiny_embedder()
    path = tmp_path / "quantization_config.yaml"
    hashes = [hashlib.sha256((folder / "p00" / "1.png").read_bytes()).hexdigest()]
    record = record_of(model)
    path.write_text(yaml.safe_dump(record | calibrated_with(hashes)))
    assert validate(model, model, "--images", folder, "--record", path) == 2
    assert "p00/1.png" in capsys.readouterr().err
    path.write_text(yaml.safe_dump(record | calibrated_with(["0a" * 32])))
    assert validate(model, model, "--images", folder, "--record", path, "--no-identities") == 0
    assert "not checked" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "section", "method"),
    [
        ({"recipe": {"calibration": "MinMax"}}, {"method": "Percentile"}, "MinMax"),
        ({}, {"method": "MinMax"}, "MinMax"),
        ({"recipe": {"calibration": "Percentile"}}, {"method": "MinMax"}, "Percentile"),
    ],
)
def test_people_and_method_of_the_record_are_in_the_advice(
    pair, tmp_path, capsys, files, section, method
):
    """Few people are told, and MinMax where the file's own recipe, not only another's, says so."""
    fp32, int8 = pair()
    record = record_of(fp32, int8)
    record["files"][-1] |= files
    known = calibrated_with(["0a" * 32])
    known["calibration"] |= {"people": 3, **section}
    path = tmp_path / "quantization_config.yaml"
    path.write_text(yaml.safe_dump(record | known))
    images = write_crops(tmp_path / "held", people=2, each=5)
    arguments = (fp32, int8, "--images", images, "--record", path, "--no-identities")
    assert validate(*arguments, "--json") == 1
    told = {e["key"]: e for e in json.loads(capsys.readouterr().out)["advice"]}
    assert told["few-people"]["seen"] == "Calibration knows 3 people."
    assert ("min-max" in told) == (method == "MinMax")


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"people": "ten"}, "calibration.people: a whole number of 1 or more expected, got 'ten'"),
        ({"people": 0}, "calibration.people: a whole number of 1 or more expected, got 0"),
        ({"method": "Odd"}, "calibration.method: one of MinMax, Entropy, Percentile expected"),
    ],
)
def test_a_record_whose_calibration_is_none_is_named(
    tiny_embedder, crops, tmp_path, capsys, section, complaint
):
    """No advice is drawn from a number that is none."""
    model, path = tiny_embedder(), tmp_path / "quantization_config.yaml"
    known = calibrated_with(["0a" * 32])
    known["calibration"] |= section
    path.write_text(yaml.safe_dump(record_of(model) | known))
    assert validate(model, model, "--images", crops(people=2), "--record", path) == 2
    assert complaint in capsys.readouterr().err


def test_an_unchecked_overlap_is_said(tiny_embedder, crops, capsys):
    """Without --calibration and --record the verdict says what was not checked."""
    model = tiny_embedder()
    assert validate(model, model, "--images", crops(people=2), "--no-identities") == 0
    assert "overlap with the calibration pictures not checked" in capsys.readouterr().out


@pytest.fixture
def pair(tmp_path):
    """A function that writes FP32 and an INT8 of it whose `down` layer is far too coarse."""

    def write(*, coarse=True):
        sketch = mobile_sketch(0)
        if coarse:
            for part in ("weight", "bias"):
                sketch.constants[f"down_{part}"][5] = 0
            last = sketch.constants["last_weight"]
            last[:, 5] = 100 * np.abs(last).max()
        model = sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64])
        subject = subject_of(model, tmp_path / "fp32.onnx")
        faces = read_folder(write_crops(tmp_path / "seen", people=2, each=4, seed=7), aligned=True)
        inputs = inputs_of(faces.faces, subject.input)
        options = {"method": "MinMax", "percentile": 100.0, "op_types": Recipe().op_types}
        write_ranges(model, inputs, tmp_path / "ranges.json", **options)
        recipe = Recipe(calibration="MinMax", per_channel=not coarse)
        onnx.save(quantised(model, recipe, tmp_path / "ranges.json"), tmp_path / "int8.onnx")
        return tmp_path / "fp32.onnx", tmp_path / "int8.onnx"

    return write


def test_a_gate_that_fails_is_told_with_the_layers_that_hurt(pair, tmp_path, capsys):
    """The worst line, the layer that costs most, and the way out: on the page and in JSON."""
    fp32, int8 = pair()
    arguments = (fp32, int8, "--images", write_crops(tmp_path / "held", people=2, each=5))
    arguments += ("--calibration", tmp_path / "seen", "--arithmetic", "reference")
    assert validate(*arguments) == 1
    said = capsys.readouterr().out
    assert "The gate fails." in said
    assert "Local error against a median of" in said
    assert validate(*arguments, "--json") == 1
    told = {e["key"]: e for e in json.loads(capsys.readouterr().out)["advice"]}
    assert told["layers-that-hurt"]["seen"].split(": ")[1].startswith("Conv_last (")
    assert "asked for" in told["gate-failed"]["seen"]
    assert "--exclude NODE" in told["gate-failed"]["do"]
    assert told["few-faces"]["seen"] == "8 calibration faces."
    assert told["few-held-out"]["seen"] == "10 held-out faces."
    assert "the smallest channel of " in told["per-tensor"]["seen"]
    assert "overlap-unchecked" not in told


def test_a_gate_that_is_passed_costs_no_look_at_the_layers(pair, tmp_path, capsys, monkeypatch):
    """Nothing hurts, nothing is measured layer by layer; what else is seen is still said."""
    monkeypatch.setattr("kiosk.lab.grounds.layer_errors", lambda *_: pytest.fail("was asked"))
    fp32, int8 = pair(coarse=False)
    images = write_crops(tmp_path / "held", people=2, each=5)
    assert (
        validate(
            fp32, int8, "--images", images, "--no-identities", "--arithmetic", "reference", "--json"
        )
        == 0
    )
    told = {e["key"]: e for e in json.loads(capsys.readouterr().out)["advice"]}
    assert not {"gate-failed", "layers-that-hurt", "few-faces", "per-tensor"} & set(told)
    assert {"overlap-unchecked", "few-held-out", "prelu-nodes"} <= set(told)


def test_left_out_pictures_are_named(tiny_embedder, crops, capsys):
    """A torn picture is counted and named, for a person and for a program."""
    folder, model = crops(people=2), tiny_embedder()
    (folder / "p00" / "0.png").write_bytes(b"torn")
    assert validate(model, model, "--images", folder, "--no-identities") == 0
    said = capsys.readouterr().out
    assert "9 of 10 pictures" in said
    assert "left out" in said
    assert validate(model, model, "--images", folder, "--no-identities", "--json") == 0
    assert json.loads(capsys.readouterr().out)["skipped"][0]["file"].endswith("p00/0.png")


def test_a_copy_counts_once_in_the_curves(tiny_embedder, crops, capsys):
    """A second copy of a person's picture makes no pair, and is named."""
    folder, model = crops(), tiny_embedder()
    shutil.copy(folder / "p00" / "0.png", folder / "p00" / "copy.png")
    assert validate(model, model, "--images", folder) == 0
    said = capsys.readouterr().out
    assert "120 genuine, 1650 impostor pairs" in said
    assert "not in the curves:" in said
    assert validate(model, model, "--images", folder, "--json") == 0
    (skipped,) = json.loads(capsys.readouterr().out)["skipped_in_curves"]
    assert skipped["file"].endswith("copy.png")


def test_embeddings_that_are_not_numbers_are_a_failure(tiny_embedder, crops, capsys):
    """A model that gives NaN is named as such: exit status 1, no figures."""
    model, broken = tiny_embedder(), tiny_embedder("nan.onnx", nan=True)
    assert validate(model, broken, "--images", crops(people=2)) == 1
    said = capsys.readouterr()
    assert "embeddings of finite length expected" in said.err
    assert "cosine" not in said.out


def test_a_weight_of_minus_128_is_refused_by_every_command(tiny_embedder, crops, tmp_path, capsys):
    """The daemon would not load the file: a line of the gate fails, other figures are not given."""
    fp32, int8, folder = tiny_embedder(), tmp_path / "int8.onnx", crops()
    model = onnx.load(fp32)
    weights = np.array([[-128, 1], [2, 3]], dtype=np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weights, "eight"))
    onnx.save(model, int8)
    assert validate(fp32, int8, "--images", folder, "--json") == 1
    said = capsys.readouterr()
    assert "the gate fails: INT8 weights of -128 1.000000 (< 1 expected)" in said.err
    document = json.loads(said.out)
    assert not document["passed"]
    assert [e["name"] for e in document["gate"] if e["passed"] is False] == ["INT8 weights of -128"]
    for command in (("roc", int8, "--folders"), ("profile", int8, "--images")):
        assert main(["lab", *map(str, command), str(folder), "--aligned"]) == 1
        said = capsys.readouterr()
        assert "int8.onnx: INT8 weights in -127..127 expected, 1 of eight are -128" in said.err
        assert not said.out


class Reader(CalibrationDataReader):
    """Feeds onnxruntime's own quantiser."""

    def __init__(self, subject, faces):
        self._inputs = ({subject.input_name: v} for v in inputs_of(faces, subject.input))

    def get_next(self):
        return next(self._inputs, None)


def test_the_naive_recipe_fails_on_real_faces(shared, tmp_path, capsys):
    """The guide's static recipe on the shipped weights: status 1, in ARM's arithmetic too."""
    fp32 = load_manifest().get("mobilefacenet-fp32", "embedder").path
    subject = read_subject(fp32)
    faces = shared / "data" / "faces112"
    calibration = read_folder(faces / "id00", aligned=True)
    naive = tmp_path / "naive-int8.onnx"
    quantize_static(
        fp32,
        naive,
        Reader(subject, calibration.faces),
        quant_format=QuantFormat.QDQ,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8,
    )
    held_out = tmp_path / "held-out"
    for name in ("id01", "id02", "id03", "id04", "id05", "id06"):
        shutil.copytree(faces / name, held_out / name)
    arguments = (fp32, naive, "--images", held_out, "--calibration", faces / "id00")
    assert validate(*arguments, "--arithmetic", "reference", "--json") == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["mean_cosine"] < 0.99
    assert not document["passed"]
    assert document["arithmetic"] == "reference"
    for name in ("mean cosine", "min cosine", "mean MAE", "TAR@1e-3 drop"):
        assert name in said.err
