"""The shipped INT8 files are what their record says, and what the README tells of them is true."""

import hashlib
import json

import onnx
import pytest
import yaml

from kiosk.lab.quantise import check_weights, in_int8
from kiosk.lab.rebuild import rebuild
from kiosk.lab.ties import LEAST_MARGIN
from kiosk.vision.canary import check_entry
from kiosk.vision.manifest import load_manifest, shipped_models_dir
from lab.sums import sums_of

LEAST_LAYERS = 49
RESIDUAL_SUMS = 12


@pytest.fixture(scope="module")
def record():
    path = shipped_models_dir() / "quantization_config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def entries():
    return [e for e in load_manifest().entries if e.shipped and "int8" in e.id]


def test_record_and_manifest_name_the_same_files(record, entries):
    """Each shipped INT8 file stands in the record with its hash, and no other does."""
    pinned = {entry.path.name: entry.sha256 for entry in entries}
    assert len(pinned) == 4
    assert {f["file"]: f["sha256"] for f in record["files"][1:]} == pinned
    fp32 = next(e for e in load_manifest().entries if e.id == "mobilefacenet-fp32")
    assert record["files"][0]["sha256"] == fp32.sha256


def test_a_rebuild_without_a_face_gives_the_same_bytes():
    """From the plain FP32 file, the record and its ranges alone."""
    made = rebuild(shipped_models_dir() / "quantization_config.yaml", None, None)
    assert len(made) == 5
    assert [each.file for each in made if not each.same] == []


def test_golden_faces_agree(entries):
    """Every file loads on this machine and knows the golden faces."""
    for entry in entries:
        assert "golden faces at cosine" in check_entry(entry)


def test_all_but_the_first_layer_are_in_8_bits(entries):
    """At least 49 convolutions of each file are, with weights that no ARM kernel overflows on."""
    for entry in entries:
        model = onnx.load(entry.path)
        eight, layers = in_int8(model)
        assert eight >= LEAST_LAYERS
        assert layers - eight <= 1
        check_weights(model)


def test_every_processor_rounds_the_residual_sums_alike(entries):
    """No pair of 8-bit values whose sum is not clipped lies near a tie, in any file."""
    for entry in entries:
        sums = sums_of(onnx.load(entry.path))
        assert len(sums) == RESIDUAL_SUMS
        for one in sums:
            assert one.margin() >= LEAST_MARGIN
            assert (one.in_float32() == one.in_fixed_point()).all()


def test_every_file_passed_the_gate(record):
    """With the search's margins to spare, on faces whose files calibration did not see."""
    for each in record["files"][1:]:
        told = each["validation"]
        assert told["passed"]
        assert told["mean_similarity"] > 0.9955
        assert told["min_similarity"] > 0.985
        assert told["auc_difference"] < 0.01
        assert told["tar_fp32@1e-3"] - told["tar_int8@1e-3"] < 0.01


def test_the_readme_tells_the_record_s_figures(record, repository):
    """The table of the README is the record's and the report's, digit for digit."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    for each in record["files"][1:]:
        told = each["validation"]
        mean, least = told["mean_similarity"], told["min_similarity"]
        name = each["file"].removesuffix(".onnx")
        assert f"| `{name}` | {mean:.4f} | {least:.4f} | passes |" in text
    figures = json.loads(
        (shipped_models_dir() / "reports" / "mobilefacenet-int8.json").read_text(encoding="utf-8")
    )
    naive = next(t for t in figures["tries"] if t["name"].startswith("the guide"))
    assert naive["passed"] is False
    row = f"| {naive['cosine_mean']:.4f} | {naive['cosine_min']:.4f} | fails |"
    assert row in text


def test_no_picture_is_in_the_record(record):
    """The calibration set is named by hashes: none of its files lies in the project."""
    listed = set(record["calibration"]["files"])
    assert len(listed) == record["calibration"]["num_samples"]
    for path in shipped_models_dir().rglob("*"):
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() not in listed
