"""Models as the workshop's commands name them: files, ids, and what is the caller's mistake."""

import json

import onnx
import pytest

from command_line import run
from lab.nets import mobile, write_crops


@pytest.mark.parametrize("content", [None, b"", b"not a model" * 100])
def test_a_file_that_is_no_model_is_the_callers_mistake(tmp_path, capsys, content):
    """Missing, empty or something else: status 2 and its path, by every command that takes one."""
    bad, good = tmp_path / "bad.onnx", tmp_path / "good.onnx"
    if content is not None:
        bad.write_bytes(content)
    onnx.save(mobile(0), good)
    faces = write_crops(tmp_path / "faces", people=2, each=2)
    for arguments in (
        ("build", bad, "--calib", faces, "--holdout", faces, "--out", tmp_path / "o", "--aligned"),
        ("quantize", bad, "--out", tmp_path / "q.onnx", "--calib", faces, "--aligned"),
        ("validate", bad, good, "--images", faces, "--aligned"),
        ("roc", bad, "--folders", faces, "--aligned"),
        ("profile", good, "--against", bad),
    ):
        status, _, err = run(capsys, "lab", *arguments)
        assert (status, str(bad) in err) == (2, True), (arguments, err)
    state = ("--state-dir", tmp_path / "state")
    status, _, err = run(capsys, "models", "add", bad, "--id", "own-fp32", *state)
    assert (status, str(bad) in err) == (2, True)


def test_an_id_that_nobody_knows_is_said_to_be_one(tmp_path, capsys):
    """Not a file that is missing: the ids there are, status 2."""
    faces = write_crops(tmp_path / "faces", people=2, each=2)
    for arguments in (("roc", "nope-fp32", "--folders", faces), ("profile", "nope-fp32")):
        status, _, err = run(capsys, "lab", *arguments)
        assert status == 2
        assert "a file or the id of a model expected, got nope-fp32; known are mobilefac" in err
        assert "blazeface" not in err


def test_profile_takes_ids(tmp_path, capsys):
    """Shipped ones, and those of a state folder, for --against and --entry too."""
    onnx.save(mobile(0), tmp_path / "own.onnx")
    state = ("--state-dir", tmp_path / "state")
    assert run(capsys, "models", "add", tmp_path / "own.onnx", "--id", "own-fp32", *state)[0] == 0
    short = ("--rounds", 2, "--starts", 1, "--json", *state)
    entry = ("--entry", "own-fp32:session.set_denormal_as_zero=1")
    status, out, err = run(
        capsys, "lab", "profile", "own-fp32", "--against", "mobilefacenet-fp32", *entry, *short
    )
    assert status == 0, err
    assert [model["name"] for model in json.loads(out)["models"]] == [
        "mobilefacenet-fp32.onnx",
        "own-fp32.onnx",
    ]


def test_profile_refuses_a_model_that_is_named_twice(tmp_path, capsys):
    """By path and by another way to it: one row would stand for both."""
    onnx.save(mobile(0), tmp_path / "own.onnx")
    (tmp_path / "other.onnx").symlink_to(tmp_path / "own.onnx")
    for other in ("own.onnx", "other.onnx"):
        models = (tmp_path / "own.onnx", tmp_path / other)
        status, out, err = run(capsys, "lab", "profile", *models)
        assert (status, out) == (2, "")
        assert "each model once expected" in err
