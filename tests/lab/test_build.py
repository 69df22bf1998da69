"""A build leaves files, record, ranges and report, and its record remakes the files."""

import json
from types import SimpleNamespace

import pytest
import yaml

from kiosk.__main__ import main
from kiosk.errors import ModelError
from kiosk.lab.build import Built
from kiosk.lab.files import claimed
from kiosk.lab.quantise import in_int8
from kiosk.lab.rebuild import rebuild
from kiosk.lab.subject import read_subject
from lab.nets import mobile, subject_of, write_crops


@pytest.fixture
def sets(tmp_path):
    """A source and two folders of people who are not in both."""
    subject_of(mobile(0), tmp_path / "small-fp32.onnx")
    write_crops(tmp_path / "calibration", people=4, each=6)
    write_crops(tmp_path / "holdout", people=7, each=8, seed=9)
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
    assert record["validation"]["test_samples"] == 56
    assert record["validation"]["passed"]
    assert record["validation"]["not_judged"] == []
    told_of = {each["file"]: each for each in record["judged"]}
    assert len(told_of) == 5
    assert all(each["passed"] == (not each["failing"]) for each in told_of.values())
    speed = record["performance"]
    ratio = float(speed["speedup"].removesuffix("x"))
    assert ratio <= float(speed["speedup_over_file_given"].removesuffix("x"))
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


@pytest.mark.parametrize(("given", "rewritten"), [(2.0, 1.5), (1.5, 2.0)])
def test_a_speedup_is_over_the_fastest_fp32(given, rewritten):
    """Whichever of the two FP32 files is faster here is what INT8 must beat."""
    built = SimpleNamespace(source_ms=lambda: given, best_ms=lambda _: rewritten, fp32=None)
    assert Built.fastest_fp32_ms(built) == 1.5


def test_pictures_in_both_folders_are_refused(sets, capsys):
    """Nothing is judged on a picture that calibration has seen, whatever it is called."""
    first = next((sets / "calibration").rglob("*.png"))
    (sets / "holdout" / "copy.png").write_bytes(first.read_bytes())
    assert build(sets) == 2
    assert "1 are in both" in capsys.readouterr().err
    assert not (sets / "out").exists()


def test_a_second_build_into_the_folder_is_refused(sets, capsys):
    """Two would mix their files under one record; nor may a build replace its own source."""
    with claimed(sets / "out"):
        assert build(sets) == 2
    assert "no other build writes to" in capsys.readouterr().err
    assert build(sets, "--out", str(sets)) == 2
    assert "is not the source itself expected" in capsys.readouterr().err


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
    for form in ("qdq-s8", "nhwc-s8", "qdq-u8", "nhwc-u8"):
        assert f"small-int8-{form}.onnx fails: mean cosine 0.999" in said.out
    page = (sets / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("(&gt; 0.999999 expected)") >= 4
    names = {path.name for path in (sets / "out").iterdir()}
    assert names == {"report.html", "report_data.json"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_earlier_builds_files_are_not_taken_for_those_of_one_that_fails(
    sets, capsys, monkeypatch
):
    """Nothing passes: models, record and report of the build before lie whole in a folder of their
    own, which is named; the record still remakes them. A search without a find moves nothing."""
    assert build(sets) == 0
    out, before = sets / "out", contents(sets / "out")
    with monkeypatch.context() as patched:
        patched.setattr("kiosk.lab.build.Search.run", fail_to_find)
        capsys.readouterr()
        assert build(sets) == 1
    said = capsys.readouterr().err
    assert f"{out}: nothing was written; of an earlier build, as they were: small-fp32" in said
    assert contents(out) == before
    monkeypatch.setattr("kiosk.lab.gate.LEAST_MEAN_COSINE", 0.999999)
    assert build(sets, "--json") == 1
    said = capsys.readouterr()
    assert "mean cosine > 0.999999 expected" in said.err
    assert f"of an earlier build, now in {out / 'earlier-1'}: quantization_config.yaml" in said.err
    told = json.loads(said.out)["set_aside"]
    assert told[0] == str(out / "earlier-1")
    assert set(told[1:]) == set(before)
    assert set(contents(out)) == {"report.html", "report_data.json"}
    assert contents(out / "earlier-1") == before
    kept = rebuild(out / "earlier-1" / "quantization_config.yaml", sets / "small-fp32.onnx", None)
    assert all(each.same for each in kept)


def fail_to_find(_):
    raise ModelError("nothing found")


def test_faces_that_name_nobody_are_refused_before_the_search(sets, capsys):
    """Flat, or of too few people: AUC and TAR could not be judged, so nothing is built."""
    write_crops(sets / "few", people=2, each=3, seed=5)
    flat = sets / "flat"
    flat.mkdir()
    for path in (sets / "few").rglob("*.png"):
        (flat / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    for folder, why in (("flat", "no identities"), ("few", "got 6 and 9")):
        assert build(sets, "--holdout", str(sets / folder)) == 2
        said = capsys.readouterr().err
        assert "AUC drop and TAR@1e-3 drop" in said
        assert why in said
        assert "--no-identities" in said
        assert not (sets / "out").exists()


def test_cosine_and_mae_alone_are_recorded_as_such(sets, capsys):
    """--no-identities: text, record and report name what was not judged."""
    assert build(sets, "--no-identities") == 0
    said = capsys.readouterr().out
    assert "not judged: AUC drop, TAR@1e-3 drop" in said
    assert "times as fast as the fastest FP32 file" in said
    assert "times as fast as the file given" in said
    text = (sets / "out" / "quantization_config.yaml").read_text(encoding="utf-8")
    told = yaml.safe_load(text)["validation"]
    assert told["passed"]
    assert [each["line"] for each in told["not_judged"]] == ["AUC drop", "TAR@1e-3 drop"]
    assert "auc_fp32" not in told
    page = (sets / "out" / "report.html").read_text(encoding="utf-8")
    assert "Passes the gate by cosine and MAE alone" in page
    assert "Not judged: <b>AUC drop</b> (left out, --no-identities)" in page
