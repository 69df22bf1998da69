"""`kiosk models profile`, and what `models list` and `doctor` say of the choice."""

import json
import re

import pytest

from command_line import run
from kiosk.clock import SystemClock
from kiosk.config import load
from kiosk.vision.choice_file import CHOICE_FILE
from kiosk.vision.manifest import load_manifest
from kiosk.vision.selection import select


def own_space(folder, repository):
    """A manifest of one's own: the shipped plain model under another id and space."""
    folder.mkdir()
    data = (repository / "models" / "mobilefacenet-prelu-fp32.onnx").read_bytes()
    (folder / "own.onnx").write_bytes(data)
    text = (repository / "models" / "manifest.toml").read_text()
    entry = text[text.index('[[model]]\nid = "mobilefacenet-prelu-fp32"') :]
    entry = entry[: entry.index("[[model]]", 5)]
    # No golden faces lie beside it.
    entry = re.sub(r"golden = .*\n", "", entry)
    for old, new in (
        ('"mobilefacenet-prelu-fp32"', '"own-fp32"'),
        ("mobilefacenet-prelu-fp32.onnx", "own.onnx"),
        ('"mobilefacenet-192-4pt"', '"own"'),
    ):
        entry = entry.replace(old, new)
    (folder / "manifest.toml").write_text(entry)


def config_of(folder, models=""):
    """A configuration whose state lies in `folder`."""
    path = folder / "kiosk.toml"
    path.write_text(
        f'[server]\nurl = "http://127.0.0.1:9"\n[paths]\nstate_dir = "{folder}/state"\n'
        f'runtime_dir = "{folder}/run"\n[models]\nthreads = 1\n{models}'
    )
    return path


def test_profile_times_every_candidate_and_says_which_is_taken(capsys):
    """Latency and cosine of each file of the space, and the verdict with its reason."""
    status, out, _ = run(capsys, "models", "profile", "--threads", 1, "--json")
    assert status == 0
    said = json.loads(out)
    assert said["threads"] == 1
    assert said["cpu"]["machine"]
    first = said["candidates"][0]
    assert first["id"] == "mobilefacenet-fp32"
    assert 0 < first["min_ms"] <= first["median_ms"] <= first["p95_ms"]
    assert first["cosine"] > 0.99999
    fastest = min(said["candidates"], key=lambda c: c["min_ms"])
    assert said["chosen"] == fastest["id"] or said["reason"].startswith("INT8 is not faster")


def test_profile_goes_by_the_configuration(capsys, tmp_path, repository):
    """Space, threads and preference come from the file that --config names."""
    own_space(tmp_path / "own", repository)
    config = config_of(tmp_path, 'embedder = "own-fp32"\nprefer = "int8"\n')
    status, out, _ = run(
        capsys, "models", "profile", "--config", config, "--models-dir", tmp_path / "own"
    )
    assert status == 0
    assert "1 threads" in out
    assert "Taken: own-fp32, no INT8 file can be used." in out


def test_profile_of_nothing_that_works(capsys, tmp_path, repository):
    """The one candidate is damaged: it is named, and the status is 1."""
    own_space(tmp_path / "own", repository)
    (tmp_path / "own" / "own.onnx").write_bytes(b"x")
    config = config_of(tmp_path, f'embedder = "own-fp32"\nextra_dirs = ["{tmp_path}/own"]\n')
    status, _, err = run(capsys, "models", "profile", "--config", config)
    assert status == 1
    assert "own.onnx" in err
    status, out, _ = run(capsys, "models", "profile", "--config", config, "--json")
    assert status == 1
    assert json.loads(out)["chosen"] is None
    assert "own.onnx" in json.loads(out)["candidates"][0]["refused"]


@pytest.mark.parametrize("threads", ["0", "17", "x", "-1", "٣"])
def test_profile_refuses_odd_thread_counts(capsys, threads):
    """A number from 1 to 16, as in the configuration."""
    status, _, err = run(capsys, "models", "profile", "--threads", threads)
    assert status == 2
    assert "from 1 to 16" in err


def test_list_and_doctor_say_what_was_chosen(capsys, tmp_path):
    """Before the first start they say so; after it, which file runs and why."""
    path = config_of(tmp_path)
    _, out, _ = run(capsys, "models", "list", "--config", path)
    assert "Not measured yet" in out
    _, out, _ = run(capsys, "doctor", "--config", path)
    assert "model in use: not measured yet" in out
    models = load(path).models
    cache = tmp_path / "state" / CHOICE_FILE
    cache.parent.mkdir()
    chosen = select(models, load_manifest(), clock=SystemClock(), cache=cache).main.id
    _, out, _ = run(capsys, "models", "list", "--config", path, "--json")
    uses = {entry["id"]: entry["use"] for entry in json.loads(out)}
    assert uses[chosen].startswith("chosen: ")
    assert uses["w600k-r50-fp32"] is None
    _, out, _ = run(capsys, "doctor", "--config", path)
    assert f"model in use: {chosen}, " in out


def test_doctor_names_a_damaged_file_and_what_is_used_all_the_same(capsys, tmp_path, repository):
    """The configured file is another than pinned: that fails, and the rest is still looked at."""
    own_space(tmp_path / "own", repository)
    (tmp_path / "own" / "own.onnx").write_bytes(b"x")
    path = config_of(tmp_path, f'embedder = "own-fp32"\nextra_dirs = ["{tmp_path}/own"]\n')
    status, out, _ = run(capsys, "doctor", "--config", path)
    assert status == 1
    assert "failed  model own-fp32: model own-fp32: own.onnx" in out
    assert "model in use: not measured yet" in out


def test_exact_means_the_very_file(capsys, tmp_path):
    """prefer = "exact" measures nothing, and list and doctor say so."""
    path = config_of(tmp_path, 'embedder = "mobilefacenet-prelu-fp32"\nprefer = "exact"\n')
    _, out, _ = run(capsys, "models", "list", "--config", path, "--json")
    uses = {entry["id"]: entry["use"] for entry in json.loads(out)}
    assert uses["mobilefacenet-prelu-fp32"] == 'chosen: prefer = "exact"'
    assert uses["mobilefacenet-fp32"] is None
    _, out, _ = run(capsys, "doctor", "--config", path)
    assert 'model in use: mobilefacenet-prelu-fp32: prefer = "exact"' in out
