"""What was measured is kept for what it was measured of, and read as if anybody had written it."""

import contextlib
import json
import os
import re

import numpy as np
import pytest

from kiosk.errors import ModelError
from kiosk.types import Embedding
from kiosk.vision.canary import LIMITS, Limit
from kiosk.vision.choice_file import CHOICE_FILE
from kiosk.vision.embed import Embedder


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "state" / CHOICE_FILE


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"version": 1}'])
def test_a_damaged_file_of_choices_is_told_and_replaced(put_int8, choice, kept, damage):
    """Half a file is no reason not to start, nor to be silent."""
    put_int8()
    kept.write_bytes(damage)
    _, told = choice()
    assert told["model.cache_ignored"]["file"] == str(kept)
    assert json.loads(kept.read_text())["version"] == 2


def test_measurements_of_other_models_than_the_keys_are_ignored(put_int8, choice, kept):
    """A file of choices that does not agree with itself is damaged too."""
    put_int8()
    choice()
    document = json.loads(kept.read_text())
    document["measured"].pop()
    kept.write_text(json.dumps(document))
    _, told = choice()
    assert "its models are others" in told["model.cache_ignored"]["reason"]


NESTED = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    "poison",
    [
        b'{"version": 2, "key": {"a": ' + NESTED + b'}, "measured": []}',
        b'{"version": 2, "key": {}, "measured": []}' + b" " * (1 << 20),
    ],
    ids=["deep", "large"],
)
def test_a_poisoned_file_of_choices_is_told_and_replaced(put_int8, choice, kept, poison):
    """Neither a nest without end nor a file without end keeps the kiosk from starting."""
    put_int8()
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(poison)
    _, told = choice()
    assert told["model.cache_ignored"]["file"] == str(kept)
    assert json.loads(kept.read_text())["version"] == 2


def test_a_pipe_in_its_place_does_not_hang_the_start(put_int8, choice, kept):
    """Nobody writes to it, and the start does not wait for somebody."""
    put_int8()
    os.mkfifo(kept)
    _, told = choice()
    assert "a plain file" in told["model.cache_ignored"]["reason"]


def test_a_link_in_its_place_is_not_followed(put_int8, choice, kept):
    """What lies elsewhere is nothing that the kiosk wrote."""
    put_int8()
    choice()
    kept.rename(kept.with_name("elsewhere"))
    kept.symlink_to(kept.with_name("elsewhere"))
    _, told = choice()
    assert "symbolic link" in told["model.cache_ignored"]["reason"]


@pytest.mark.parametrize(
    "lie",
    [
        {"min_ms": -5.0},
        {"min_ms": 0.0},
        {"min_ms": 1e9},
        {"median_ms": 0.00001},
        {"cosine": -7},
        {"cosine": 0.5},
        {"cosine": None},
        {"mean_cosine": 0.5},
        {"refused": "for now", "may_pass": True},
    ],
    ids=str,
)
def test_what_no_measurement_gives_is_ignored(put_int8, choice, kept, lie):
    """Times and cosines out of their range were not measured: it is done anew."""
    put_int8()
    choice()
    document = json.loads(kept.read_text())
    document["measured"][-1] |= lie
    kept.write_text(json.dumps(document))
    _, told = choice()
    assert "model.cache_ignored" in told
    assert told["model.selected"]["cached"] is False


def test_int8_without_its_fp32_is_not_taken_from_the_file(put_int8, choice, kept):
    """A word in the file cannot take FP32 away from behind INT8."""
    put_int8()
    choice(prefer="int8")
    document = json.loads(kept.read_text())
    for found in document["measured"]:
        if found["id"] == "tiny-fp32":
            found["refused"] = "they say"
    kept.write_text(json.dumps(document))
    selection, told = choice(prefer="int8")
    assert "an FP32 file beside tiny-int8 expected" in told["model.cache_ignored"]["reason"]
    assert selection.spare.id == "tiny-fp32"


def test_what_the_system_refuses_is_not_remembered(put_int8, choice, kept, monkeypatch):
    """A file that could not be read once is looked at again, though nothing of it changed."""
    path, _ = put_int8()
    read = type(path).read_bytes

    def refused(self):
        if self.name == "tiny.onnx":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", refused)
        selection, told = choice(prefer="int8")
    assert "Permission denied" in told["model.refused"]["reason"]
    assert (selection.main.id, selection.spare) == ("tiny-int8", None)
    assert not kept.exists()
    assert choice(prefer="int8")[0].spare.id == "tiny-fp32"


def test_int8_whose_fp32_is_broken_is_not_remembered(put_int8, choice, kept):
    """FP32's own fault, and still nothing to rely on: every start looks for it again."""
    path, _ = put_int8()
    (path.parent / "tiny.onnx").write_bytes(b"broken")
    selection, told = choice(prefer="int8")
    assert (selection.main.id, selection.spare) == ("tiny-int8", None)
    assert "model.no_fallback" in told
    assert not kept.exists()


@pytest.mark.parametrize(
    ("key", "value"), [("channels", '"BGR"'), ("mean", "127.0"), ("scale", "0.0078")]
)
def test_another_feeding_is_measured_anew(put_int8, choice, tmp_path, caplog, key, value):
    """The same bytes fed otherwise are another model."""
    put_int8()
    choice()
    path = tmp_path / "manifest.toml"
    path.write_text(re.sub(rf"{key} = [^,}}]+", f"{key} = {value}", path.read_text()))
    with contextlib.suppress(ModelError):  # fed so, the golden faces may find it out besides
        choice()
    (told,) = [r.fields for r in caplog.records if r.message == "model.cache_outdated"]
    assert told["changed"] == "fed"


def test_other_golden_faces_are_measured_anew(put_int8, choice, tmp_path):
    """What agreed with other faces has not agreed with these."""
    put_int8()
    choice()
    path = tmp_path / "golden" / "tiny.json"
    golden = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(golden.items()))))
    _, told = choice()
    assert told["model.cache_outdated"]["changed"] == "golden"


def test_other_limits_are_measured_anew(put_int8, choice, monkeypatch):
    """A stricter version does not take the word of a laxer one."""
    put_int8()
    choice()
    monkeypatch.setitem(LIMITS, "fp32", Limit(0.9995, 0.9995))
    _, told = choice()
    assert told["model.cache_outdated"]["changed"] == "limits"


@pytest.mark.parametrize("id_", ["tiny-int8", "tiny-fp32"])
def test_a_cached_start_tries_one_golden_face(put_int8, choice, monkeypatch, id_):
    """Of the chosen file and of FP32: what went bad since is found before a person comes."""
    put_int8()
    choice(prefer="int8")
    embed = Embedder.embed

    def bad(self, crop):
        if self.id == id_:
            return Embedding.of(np.arange(1.0, 193.0), self.space)
        return embed(self, crop)

    monkeypatch.setattr(Embedder, "embed", bad)
    _, told = choice(prefer="int8")
    assert f"model {id_}: cosine of at least" in told["model.cache_ignored"]["reason"]
    assert told["model.refused"]["model"] == id_


def test_a_file_that_fails_while_it_is_timed_is_refused(put_int8, choice, kept, monkeypatch):
    """The others serve, and the next start looks at it again."""
    put_int8()
    embed, seen = Embedder.embed, []

    def tires(self, crop):
        seen.append(self.id)
        if self.id == "tiny-int8" and seen.count(self.id) > 4:
            raise ModelError("model tiny-int8: out of threads")
        return embed(self, crop)

    monkeypatch.setattr(Embedder, "embed", tires)
    selection, told = choice(prefer="int8")
    assert selection.main.id == "tiny-fp32"
    assert told["model.refused"] == {
        "model": "tiny-int8",
        "reason": "model tiny-int8: out of threads",
    }
    assert not kept.exists()
