"""`kiosk embed`, `compare`, `models` and the errors of the command line."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from command_line import run
from kiosk.vision.own_models import OwnModels


def test_embed_prints_a_line_for_each_image(capsys, people):
    """The JSON has what docs and programs rely on."""
    status, out, _ = run(capsys, "embed", people / "obama.jpg", people / "biden.jpg", "--json")
    assert status == 0
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["model"] == "mobilefacenet-fp32"
    assert first["space"] == "mobilefacenet-192-4pt"
    assert (first["width"], first["height"]) == (720, 900)
    (face,) = first["faces"]
    assert set(face) == {"box", "score", "landmarks", "quality", "embedding", "f2"}
    assert len(face["landmarks"]) == 4
    assert np.linalg.norm(face["embedding"]) == pytest.approx(1.0, abs=1e-5)
    assert face["f2"]["F2_DIM"] == 192
    assert len(second["faces"]) == 1


def test_embed_goes_on_after_a_bad_image(capsys, people, tmp_path):
    """One broken file is told on its line, the others are done, and the status is 1."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    status, out, _ = run(capsys, "embed", broken, people / "obama.jpg", "--json")
    assert status == 1
    first, second = (json.loads(line) for line in out.splitlines())
    assert set(first) == {"image", "error"}
    assert len(second["faces"]) == 1


def test_embed_of_an_aligned_crop(capsys, repository, tmp_path):
    """--aligned takes 112x112 as it is and refuses anything else."""
    crop = repository / "models" / "golden" / "obama.png"
    status, out, _ = run(capsys, "embed", "--aligned", "--json", crop)
    golden = json.loads((crop.parent / "mobilefacenet-192-4pt.json").read_text())["obama.png"]
    assert status == 0
    assert np.dot(json.loads(out)["faces"][0]["embedding"], golden) > 0.9999
    wrong = tmp_path / "wrong.png"
    cv2.imwrite(str(wrong), np.zeros((100, 100, 3), np.uint8))
    status, out, _ = run(capsys, "embed", "--aligned", "--json", wrong)
    assert status == 1
    assert "112x112" in json.loads(out)["error"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("obama", "obama3", True), ("obama", "biden", False), ("collins", "obama3", False)],
)
def test_compare_on_the_demonstration_photographs(capsys, people, one, other, same):
    """The same person is above the threshold, others are below."""
    status, out, _ = run(
        capsys, "compare", people / f"{one}.jpg", people / f"{other}.jpg", "--json"
    )
    answer = json.loads(out)
    assert status == 0
    assert answer["same"] is same
    assert (answer["cosine"] >= answer["threshold"]) is same


def test_compare_tells_what_makes_it_doubtful(capsys, people, tmp_path):
    """Several faces, one that is hardly usable: on stderr, and as figures for a program."""
    alone = people / "obama.jpg"
    status, out, err = run(capsys, "compare", alone, people / "obama3.jpg", "--json")
    clear = json.loads(out)
    assert (status, err, clear["faces"]) == (0, "", [1, 1])
    assert set(clear) == {"cosine", "threshold", "same", "model", "space", "faces", "quality"}
    left, right = (cv2.imread(str(people / f"{name}.jpg")) for name in ("obama", "biden"))
    small = cv2.resize(right, None, fx=0.5, fy=0.5)
    right = np.zeros((len(left), small.shape[1], 3), np.uint8)
    right[: len(small)] = small
    both, dim = tmp_path / "both.png", tmp_path / "dim.png"
    cv2.imwrite(str(both), np.hstack([left, right]))
    cv2.imwrite(str(dim), cv2.GaussianBlur(left, None, 9))
    status, out, err = run(capsys, "compare", both, dim, "--json")
    several, unclear = err.splitlines()
    assert several == f"kiosk: {both}: expected one face, got 2; the largest is compared"
    assert unclear.startswith(f"kiosk: {dim}: expected a face of quality 0.3 or more, got 0.")
    answer = json.loads(out)
    assert (status, answer["faces"]) == (0, [2, 1])
    assert answer["quality"][0] > 0.3 > answer["quality"][1]
    status, out, worded = run(capsys, "compare", both, dim)
    assert (status, len(out.splitlines()), worded) == (0, 1, err)


def test_embed_names_a_picture_once(capsys, people, tmp_path):
    """The line of a picture that fails has its name, whoever raised the error, and once."""
    missing = tmp_path / "nope.jpg"
    status, out, err = run(capsys, "embed", missing)
    assert (status, out) == (1, "")
    assert err.startswith(f"kiosk: {missing}: a picture expected, No such file")
    assert err.count("nope.jpg") == 1
    status, _, err = run(capsys, "embed", "--aligned", people / "obama.jpg")
    assert (status, err.count("obama.jpg")) == (1, 1)
    assert err.startswith(f"kiosk: {people / 'obama.jpg'}: ")


def test_compare_without_a_face(capsys, people, tmp_path):
    """A picture without a face is the user's mistake: status 2, one line."""
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((300, 300, 3), 128, np.uint8))
    status, _, err = run(capsys, "compare", empty, people / "obama.jpg")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "a face expected, none found" in err


def test_models_check_proves_hashes_and_golden_faces(capsys):
    """Every shipped file has its pinned hash and gives its golden embeddings."""
    status, out, _ = run(capsys, "models", "check")
    assert status == 0
    assert out.count("golden faces at cosine") == 6
    status, out, _ = run(capsys, "models", "check", "--json")
    found = json.loads(out)
    assert status == 0
    assert {"id", "ok", "found"} == set(found[0])
    assert [each["ok"] for each in found] == [True] * len(found)


def test_models_check_can_leave_out_what_no_daemon_loads(capsys, tmp_path):
    """A Pi with one file configured checks that one, its detector, and none that it never loads."""
    config = tmp_path / "kiosk.toml"
    base = f'[server]\nurl = "http://127.0.0.1:1"\n[paths]\nstate_dir = "{tmp_path}"\n'
    for prefer, found in (
        ('"exact"', ["blazeface-short-fp32", "mobilefacenet-int8-nhwc-u8"]),
        ('"fp32"', ["blazeface-short-fp32", "mobilefacenet-fp32", "mobilefacenet-prelu-fp32"]),
    ):
        embedder = 'embedder = "mobilefacenet-int8-nhwc-u8"'
        config.write_text(f"{base}[models]\nprefer = {prefer}\n{embedder}\n")
        status, out, _ = run(capsys, "models", "check", "--used", "--json", "--config", config)
        assert status == 0
        assert [each["id"] for each in json.loads(out)] == found


def test_models_list_names_what_users_may_bring(capsys):
    """The table of models, their licences and whether their files are here."""
    status, out, _ = run(capsys, "models", "list", "--json")
    listed = {entry["id"]: entry for entry in json.loads(out)}
    assert status == 0
    assert listed["w600k-r50-fp32"]["licence"] == "non-commercial research"
    assert not listed["w600k-r50-fp32"]["present"]
    assert {entry["dim"] for entry in listed.values()} >= {128, 192, 512}


def test_a_model_that_is_not_there(capsys, people):
    """The manifest knows it, the file is missing: its path and its source are told."""
    status, _, err = run(
        capsys, "compare", "--model", "w600k-r50-fp32", *[people / "obama.jpg"] * 2
    )
    assert status == 1
    assert "w600k_r50.onnx" in err
    assert "get it from" in err


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["embed"], ["compare", "a"], ["check-config", "/none.toml"]]
)
def test_mistakes_have_status_2(capsys, arguments):
    """Usage and missing files: one line, status 2, no trace."""
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert len(err.strip().splitlines()) == 1


def test_check_config_tells_all(capsys, tmp_path):
    """Each mistake is a line of its own."""
    file = tmp_path / "k.toml"
    file.write_text('[server]\nurl = 1\nx = 2\n[camera]\nsource = "x"\n')
    status, _, err = run(capsys, "check-config", file)
    assert status == 2
    assert len(err.strip().splitlines()) == 3


def test_nothing_is_written_below_the_home_folder(tmp_path):
    """onnxruntime keeps a device id and a usage database there unless it is told not to."""
    # The library stays silent where it believes to be in somebody's build.
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["HOME"] = str(tmp_path)

    def written(code):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    assert written("import sys, kiosk.__main__ as k; sys.exit(k.main(['models', 'check']))") == []
    assert written("import onnxruntime") != []


def test_a_fault_of_its_own_is_one_line(capsys, monkeypatch, tmp_path):
    """What nobody foresaw: what it was, where, and how to see the trace; status 1."""
    monkeypatch.setattr("kiosk.commands.checks.load", lambda *_, **__: {}["nobody"])
    status, out, err = run(capsys, "check-config", tmp_path)
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("kiosk: a fault of its own, KeyError: 'nobody' (test_")
    status, _, err = run(capsys, "--debug", "check-config", tmp_path)
    assert status == 1
    assert "Traceback" in err


def test_nested_brackets_are_one_line(capsys, tmp_path):
    """A configuration that would exhaust the reader is a mistake like any other."""
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 20_000 + "]" * 20_000)
    status, out, err = run(capsys, "check-config", path)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("both", [False, True])
def test_output_that_nobody_reads_ends_it_silently(unbuffered, both):
    """`kiosk ... | head`: status 141 as of any other program, and no trace."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kiosk", "models", "list"],
            stdout=write_end,
            stderr=write_end if both else subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
            timeout=60,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr or b"") == (141, b"")


def test_a_broken_pipe_elsewhere_is_told(capsys, monkeypatch, tmp_path):
    """Only standard output's reader may end a command without a word."""

    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("kiosk.commands.checks.load", broken)
    status, _, err = run(capsys, "check-config", tmp_path)
    assert (status, "BrokenPipeError" in err) == (1, True)


@pytest.mark.parametrize("command", ["embed", "compare"])
def test_a_model_that_nobody_knows_is_the_callers_mistake(capsys, people, command):
    """One line that names the option, status 2; a picture that fails keeps its status 1."""
    pictures = [people / "obama.jpg"] * 2
    status, out, err = run(capsys, command, "--model", "nix", *pictures)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("kiosk: --model: embedder model 'nix' is in no manifest")


def test_compare_and_embed_use_the_configured_embedder(kiosk, foreign, config, people, tmp_path):
    """As the daemon does, at its threshold; --model takes another file all the same."""
    assert kiosk("models", "add", foreign(), "--id", "own-fp32", "--config", config())[0] == 0
    path = config('embedder = "own-fp32"\n')
    pictures = [people / "obama.jpg", people / "biden.jpg"]
    status, out, err = kiosk("compare", *pictures, "--config", path)
    assert (status, out) == (1, "")
    assert "kiosk lab roc own-fp32 --folders DIR" in err
    status, out, _ = kiosk("embed", pictures[0], "--config", path, "--json")
    assert (status, json.loads(out)["model"]) == (0, "own-fp32")
    OwnModels(tmp_path / "state").set_threshold("own-fp32", 0.25, "by hand")
    status, out, _ = kiosk("compare", *pictures, "--config", path, "--json")
    said = json.loads(out)
    assert (status, said["model"], said["threshold"]) == (0, "own-fp32", 0.25)
    other = ("--model", "mobilefacenet-fp32")
    _, out, _ = kiosk("compare", *pictures, "--config", path, "--json", *other)
    assert json.loads(out)["model"] == "mobilefacenet-fp32"
    stricter = config('embedder = "own-fp32"\n[recognition]\nthreshold = 0.5\n')
    _, out, _ = kiosk("compare", *pictures, "--config", stricter, "--json")
    assert json.loads(out)["threshold"] == 0.5
    _, out, _ = kiosk("compare", *pictures, "--config", stricter, "--json", *other)
    assert json.loads(out)["threshold"] == 0.6


def test_a_configured_embedder_that_nobody_knows(kiosk, config, people):
    """The key of the configuration is named, status 2."""
    status, _, err = kiosk("embed", people / "obama.jpg", "--config", config('embedder = "nix"\n'))
    assert status == 2
    assert "kiosk.toml: models.embedder: embedder model 'nix' is in no manifest" in err
