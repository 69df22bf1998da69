"""A build leaves files, record, ranges and report, and its record remakes the files."""

import json

import pytest
import yaml

from kiosk.__main__ import main
from kiosk.lab.quantise import in_int8
from kiosk.lab.rebuild import rebuild
from kiosk.lab.subject import read_subject
from lab.nets import mobile, subject_of, write_crops


@pytest.fixture
def sets(tmp_path):
    """A source and two folders of people who are not in both."""
    subject_of(mobile(0), tmp_path / "small-fp32.onnx")
    write_crops(tmp_path / "calibration", people=4, each=6)
    write_crops(tmp_path / "holdout", people=6, each=8, seed=9)
    return tmp_path


def build(folder, *more):
    arguments = ["lab", "build", str(folder / "small-fp32.onnx"), "--aligned"]
    arguments += ["--calib", str(folder / "calibration"), "--holdout", str(folder / "holdout")]
    arguments += ["--out", str(folder / "out"), "--threads", "1", "--percentile", "100", *more]
    return main(arguments)


def test_a_build_leaves_all_that_remakes_it(sets, capsys):
    """Every file of the record is there with its hash, in 8 bits, and remade to the last bit."""
    assert build(sets, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    out = sets / "out"
    record = yaml.safe_load((out / "quantization_config.yaml").read_text(encoding="utf-8"))
    assert told == record
    assert record["model"] == "small-fp32.onnx"
    assert record["calibration"]["num_samples"] == 24
    assert len(record["calibration"]["files"]) == 24
    assert record["validation"]["test_samples"] == 48
    assert record["validation"]["passed"]
    assert record["quantized_model"] in {each["file"] for each in record["files"]}
    for each in record["files"][1:]:
        eight, layers = in_int8(read_subject(out / each["file"]).proto)
        assert (eight, layers) == (each["layers_int8"], each["layers"])
        assert eight >= layers - 2
    names = [tried["name"] for tried in record["tries"]]
    shown = [tried["name"] for tried in json.loads((out / "report_data.json").read_text())["tries"]]
    assert len(set(shown)) == len(shown)
    assert shown[-len(names) :] == names
    assert len(set(names)) == len(names)
    made = rebuild(out / "quantization_config.yaml", sets / "small-fp32.onnx", None)
    assert [each.file for each in made] == [each["file"] for each in record["files"]]
    assert all(each.same for each in made)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert record["quantized_model"] in page
    assert "<svg" in page
    assert "the guide" in page


def test_pictures_in_both_folders_are_refused(sets, capsys):
    """Nothing is judged on a picture that calibration has seen, whatever it is called."""
    first = next((sets / "calibration").rglob("*.png"))
    (sets / "holdout" / "copy.png").write_bytes(first.read_bytes())
    assert build(sets) == 2
    assert "1 are in both" in capsys.readouterr().err
    assert not (sets / "out").exists()


def test_nothing_that_fails_the_gate_gets_a_name(sets, capsys, monkeypatch):
    """Without a variant that passes: status 1, the failing lines, a report, and no model file; the
    advice of the report, and pictures that gave nothing, are told."""
    monkeypatch.setattr("kiosk.lab.gate.LEAST_MEAN_COSINE", 0.999999)
    (sets / "calibration" / "torn.png").write_bytes(b"torn")
    assert build(sets) == 1
    said = capsys.readouterr()
    assert "mean cosine > 0.999999 expected" in said.err
    assert "24 of 25 pictures in " in said.out
    assert "torn.png" in said.out
    assert "warning: 24 calibration faces." in said.out
    assert "asked for > 0.999999. The gate fails." in said.out
    names = {path.name for path in (sets / "out").iterdir()}
    assert names == {"report.html", "report_data.json"}
