"""The golden faces notice a model that computes something else."""

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest

from kiosk.errors import ModelError
from kiosk.types import Embedding
from kiosk.vision.canary import check_canary, check_entry, golden_faces, golden_for
from kiosk.vision.embed import Embedder, open_embedder
from kiosk.vision.manifest import load_manifest, shipped_models_dir
from kiosk.vision.session import Session

GOLDEN = shipped_models_dir() / "golden"
FILES = ("mobilefacenet-fp32", "mobilefacenet-prelu-fp32")


def changed(**input_changes):
    """The shipped embedder under an entry whose input is wrong; its own hash is right."""
    entry = load_manifest().get(FILES[0], "embedder")
    values = {name: getattr(entry.input, name) for name in entry.input.__struct_fields__}
    spec = type(entry.input)(**(values | input_changes))
    entry = dataclasses.replace(entry, input=spec)
    return Embedder(entry, Session(entry, 1))


@pytest.mark.parametrize("model_id", FILES)
def test_the_shipped_files_sing(model_id):
    """On this machine both forms give the golden embeddings, far above the limit."""
    assert check_canary(open_embedder(load_manifest(), model_id, 1), GOLDEN) > 0.99999


@pytest.mark.parametrize("wrong", [{"channels": "BGR"}, {"mean": 0.0}, {"scale": 1.0}])
def test_a_wrong_input_is_noticed(wrong):
    """Swapped channels or another scaling, with the hash as pinned, do not pass."""
    with pytest.raises(ModelError, match=r"cosine of at least 0\.999 to the golden faces"):
        check_canary(changed(**wrong), GOLDEN)


def test_a_constant_output_is_noticed():
    """A model that gives the same vector for every face does not pass."""

    class Constant:
        id, space = FILES[0], "mobilefacenet-192-4pt"

        def embed(self, _):
            vector = np.random.default_rng(1).normal(size=192)
            return Embedding.of(vector, self.space)

    with pytest.raises(ModelError, match="golden faces"):
        check_canary(Constant(), GOLDEN)


def test_one_golden_face_for_all_is_noticed():
    """Even the golden answer of one face does not pass for the others."""
    real = open_embedder(load_manifest(), FILES[0], 1)
    first = real.embed(np.full((112, 112, 3), 90, dtype=np.uint8))

    class Stuck:
        id, space = real.id, real.space

        def embed(self, _):
            return first

    with pytest.raises(ModelError, match="golden faces"):
        check_canary(Stuck(), GOLDEN)


def test_missing_golden_faces_are_named(tmp_path):
    """A folder without golden embeddings of this space is no pass."""
    with pytest.raises(ModelError, match=r"mobilefacenet-192-4pt\.json, nothing is there"):
        check_canary(open_embedder(load_manifest(), FILES[0], 1), tmp_path)


def test_every_shipped_file_is_judged_in_words():
    """What the check says names the hash, and the cosine where golden faces are there."""
    manifest = load_manifest()
    assert "cosine 1.0" in check_entry(manifest.get(FILES[0], "embedder"))
    assert check_entry(manifest.get("blazeface-short-fp32", "detector")) == "hash as pinned, loads"


def test_a_model_without_golden_faces_says_so(put_model, tiny):
    """A user's own model loads without canary, and the words do not claim one."""
    entry = put_model(tiny()).get("tiny-fp32", "embedder")
    assert "no golden faces for its space" in check_entry(entry)


def pinned(entry):
    """The entry with the hash of the golden faces beside it."""
    data = (entry.path.parent / "golden" / "tiny.json").read_bytes()
    return dataclasses.replace(entry, golden=hashlib.sha256(data).hexdigest())


def test_shipped_golden_faces_are_pinned():
    """The manifest has their hash for every embedder that is shipped."""
    shipped = [e for e in load_manifest().entries if e.shipped and e.kind == "embedder"]
    for entry in shipped:
        data = (GOLDEN / f"{entry.space}.json").read_bytes()
        assert entry.golden == hashlib.sha256(data).hexdigest()


def test_golden_faces_other_than_pinned_are_refused(put_int8):
    """Other golden faces would prove another model; without a pin they are taken as they are."""
    path, entry = put_int8()
    entry = pinned(entry)
    assert len(golden_for([entry])) == 3
    golden = path.parent / "golden" / "tiny.json"
    golden.write_text(golden.read_text().replace(",", ", "))
    with pytest.raises(ModelError, match=r"tiny\.json has SHA-256 .* by the manifest, got"):
        golden_for([entry])
    assert len(golden_for([dataclasses.replace(entry, golden="")])) == 3


def test_golden_faces_that_are_pinned_must_be_there(put_int8):
    """Taking them away does not take the check away."""
    path, entry = put_int8()
    entry = pinned(entry)
    (path.parent / "golden" / "tiny.json").unlink()
    with pytest.raises(ModelError, match="as the manifest says, nothing is there"):
        golden_for([entry])


def test_too_few_golden_faces_are_refused(put_int8):
    """Two faces prove too little, and none that stands in a file is no proof at all."""
    path, entry = put_int8()
    golden = path.parent / "golden" / "tiny.json"
    faces = json.loads(golden.read_text())
    for count in (2, 0):
        golden.write_text(json.dumps(dict(list(faces.items())[:count])))
        with pytest.raises(ModelError, match=f"3 at least, got {count}"):
            golden_for([entry])


def test_poisoned_golden_faces_are_an_error_by_name(tmp_path):
    """A nest without end, a pipe and a folder are told, and none of them hangs or crashes."""
    (tmp_path / "deep.json").write_text('{"x":' + "[" * 100_000 + "]" * 100_000 + "}")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for space in ("deep", "pipe", "folder"):
        with pytest.raises(ModelError, match=rf"{space}\.json, they cannot be read"):
            golden_faces(space, tmp_path)
