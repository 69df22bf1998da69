"""The manifest: what is shipped is described, and every mistake in it is named."""

import re
import tomllib

import pytest

from kiosk.errors import ModelError
from kiosk.vision.manifest import load_manifest, shipped_models_dir
from kiosk.vision.session import verified_bytes

DIGEST = "0" * 64
# The table of weights that a user may bring.
BROUGHT = {
    "w600k-r50-fp32": ("4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 512),
    "w600k-mbf-fp32": ("9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f", 512),
    "auraface-r100-fp32": ("a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60", 512),
    "sface-2021dec-fp32": ("0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79", 128),
}


def write(folder, text):
    (folder / "manifest.toml").write_text(text, encoding="utf-8")
    return folder


def test_every_shipped_file_is_as_pinned():
    """Size and SHA-256 of each shipped file agree with its entry, and no other file is there."""
    shipped = [entry for entry in load_manifest().entries if entry.shipped]
    for entry in shipped:
        assert len(verified_bytes(entry)) == entry.size
    there = {path.name for path in shipped_models_dir().glob("*.onnx")}
    assert there == {entry.path.name for entry in shipped}


def test_every_entry_tells_where_it_is_from():
    """Licence and source for all; threshold, how it was found, space and alignment to embed."""
    entries = load_manifest().entries
    assert len({entry.id for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.licence
        assert entry.source
        if entry.kind == "embedder":
            assert entry.space
            assert entry.alignment == "arcface-112-4pt"
            assert 0.0 < entry.threshold < 1.0
            assert len(entry.threshold_note) > 40


def test_every_shipped_file_has_its_card():
    """A card names the file's hash, its licence and what it was trained on."""
    for entry in load_manifest().entries:
        if entry.shipped:
            card = (shipped_models_dir() / "cards" / f"{entry.id}.md").read_text(encoding="utf-8")
            assert entry.sha256 in card
            assert entry.licence in card
            assert "Training data" in card
            if entry.kind == "embedder":
                assert f"{entry.threshold:.2f}" in card


@pytest.mark.parametrize("model_id", BROUGHT)
def test_models_to_bring_are_pinned_and_not_shipped(model_id):
    """They are described with hash, dimension and upstream address, and stay with the user."""
    entry = load_manifest().get(model_id, "embedder")
    assert (entry.sha256, entry.dim) == BROUGHT[model_id]
    assert not entry.shipped
    assert entry.source.startswith("https://")
    assert "calibrate" in entry.threshold_note


def test_files_of_one_space_are_one_model():
    """The default embedder, its plain form and its INT8 files share a gallery; nobody else does."""
    spaces = {}
    for entry in load_manifest().entries:
        if entry.kind == "embedder":
            spaces.setdefault(entry.space, set()).add(entry.id)
    int8 = {
        f"mobilefacenet-int8-{form}-{kind}" for form in ("qdq", "nhwc") for kind in ("s8", "u8")
    }
    fp32 = {"mobilefacenet-fp32", "mobilefacenet-prelu-fp32"}
    assert spaces.pop("mobilefacenet-192-4pt") == fp32 | int8
    assert all(len(ids) == 1 for ids in spaces.values())


def test_a_model_of_one_s_own_is_found(put_model, tiny, tmp_path):
    """A folder with a manifest adds to what is shipped; its file lies beside the manifest."""
    manifest = put_model(tiny(dim=128))
    entry = manifest.get("tiny-fp32", "embedder")
    assert entry.path == tmp_path / "tiny.onnx"
    assert (entry.dim, entry.threshold, entry.shipped) == (128, 0.5, False)
    assert manifest.get("mobilefacenet-fp32", "embedder").shipped


def test_an_unknown_id_names_the_near_one():
    """A slip of the keyboard is answered with the id that was meant."""
    with pytest.raises(ModelError, match="did you mean mobilefacenet-fp32"):
        load_manifest().get("mobilefacenet-fp23", "embedder")
    with pytest.raises(ModelError, match="known: blazeface-short-fp32"):
        load_manifest().get("mobilefacenet-fp32", "detector")


def test_a_taken_id_is_refused_by_name(put_model, tiny):
    """A user's model cannot pose as a shipped one."""
    with pytest.raises(ModelError, match="id 'mobilefacenet-fp32' is taken by"):
        put_model(tiny(), id="mobilefacenet-fp32")


def test_an_id_used_twice_in_one_file_is_refused(tmp_path, tiny):
    """Of two entries with one id neither would be the one that was meant."""
    folder = write(tmp_path, tiny().listing(DIGEST) * 2)
    with pytest.raises(ModelError, match="id 'tiny-fp32' is taken"):
        load_manifest([folder])


def test_another_model_cannot_enter_a_space(put_model, tiny):
    """Embeddings of another dimension or alignment are never compared with a gallery's."""
    with pytest.raises(ModelError, match=r"tiny-fp32 has 128 values .* 'mobilefacenet-192-4pt'"):
        put_model(tiny(dim=128), space="mobilefacenet-192-4pt")
    with pytest.raises(ModelError, match="aligned as other, but"):
        put_model(tiny(), space="mobilefacenet-192-4pt", alignment="other")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"treshold": 0.4}, "unknown field `treshold`"),
        ({"id": "tiny"}, r"\$\.id"),
        ({"kind": "oracle"}, "oracle"),
        ({"file": "../tiny.onnx"}, r"\$\.file"),
        ({"file": "/tiny.onnx"}, r"\$\.file"),
        ({"sha256": "abc"}, r"\$\.sha256"),
        ({"threshold": 1.5}, r"\$\.threshold"),
        ({"threshold": None}, "embedder tiny-fp32 needs threshold"),
        ({"space": None}, "embedder tiny-fp32 needs space"),
        ({"dim": None, "alignment": None}, "embedder tiny-fp32 needs dim, alignment"),
        ({"licence": None}, "licence"),
        ({"dim": "many"}, r"\$\.dim"),
        ({"size": -1}, r"\$\.size"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path, tiny, changes, complaint):
    """A wrong, missing or unknown key is refused with the manifest's path and the key."""
    folder = write(tmp_path, tiny().listing(DIGEST, **changes))
    with pytest.raises(ModelError, match=complaint) as caught:
        load_manifest([folder])
    assert str(folder / "manifest.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("layout", '"CHW"'), ("channels", '"GRB"'), ("batch", "-1"), ("gain", "2")]
)
def test_a_mistake_in_the_input_is_named(tmp_path, tiny, key, value):
    """What goes in is checked as strictly as the rest."""
    text = tiny().listing(DIGEST)
    text = re.sub(rf"{key} = [^,}}]+", f"{key} = {value}", text)
    if key not in text:
        text = text.replace("{ layout", f"{{ {key} = {value}, layout")
    tomllib.loads(text)
    with pytest.raises(ModelError, match=key):
        load_manifest([write(tmp_path, text)])


@pytest.mark.parametrize("text", ["[[model", 'title = "x"', "model = 3", "\udcff", ""])
def test_what_is_no_manifest_is_refused_by_path(tmp_path, text):
    """Bytes that are no TOML, or TOML that holds no models, are refused with the path."""
    (tmp_path / "manifest.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"manifest\.toml"):
        load_manifest([tmp_path])


def test_a_folder_without_manifest_is_refused_by_path(tmp_path):
    """A folder in extra_dirs that holds no manifest is a mistake, never an empty list."""
    with pytest.raises(ModelError, match=r"readable manifest expected at .*manifest\.toml"):
        load_manifest([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('space = "my model"', "space: expected 1..128 ASCII characters without spaces"),
        ('space = "mod\u00e8le"', "space: expected 1..128"),
        (f'space = "{"x" * 129}"', "space: expected 1..128"),
        ("dim = 63", "dim: expected 64..1024 values"),
        ("dim = 8", "dim: expected 64..1024 values"),
    ],
)
def test_an_embedder_whose_punches_could_not_be_sent_is_refused(tmp_path, line, told):
    """What the message cannot carry is told at the start, not at the first recognition."""
    fields = {
        "id": '"own-fp32"',
        "kind": '"embedder"',
        "file": '"own.onnx"',
        "sha256": f'"{DIGEST}"',
        "licence": '"x"',
        "source": '"x"',
        "dim": "192",
        "space": '"own"',
        "alignment": '"arcface-112-4pt"',
        "threshold": "0.5",
        "input": '{layout="NCHW",channels="RGB",width=112,height=112,mean=0.0,scale=1.0}',
    }

    def manifest(changes):
        lines = [f"{name} = {value}" for name, value in (fields | changes).items()]
        return write(tmp_path, "\n".join(["[[model]]", *lines, ""]))

    assert load_manifest([manifest({})]).get("own-fp32", "embedder").dim == 192
    name, _, value = line.partition(" = ")
    with pytest.raises(ModelError, match=re.escape(told)):
        load_manifest([manifest({name: value})])


def in_state(tmp_path, text):
    """A state folder to which somebody added what the text says."""
    (tmp_path / "models").mkdir()
    write(tmp_path / "models", text)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": "mobilefacenet-fp32"}, "id 'mobilefacenet-fp32' is taken by"),
        ({"space": "mobilefacenet-192-4pt", "alignment": "other"}, "aligned as other"),
    ],
)
def test_what_a_deploy_took_is_set_aside(tmp_path, tiny, changes, why):
    """The shipped model wins over one that was added before, which is named; the rest stays."""
    added = tiny().listing(DIGEST, **changes) + tiny().listing(DIGEST, id="mine-fp32")
    manifest = load_manifest(state_dir=in_state(tmp_path, added))
    (said,) = manifest.aside
    assert why in said
    assert "kiosk models remove" in said
    assert manifest.get("mobilefacenet-fp32", "embedder").shipped
    assert manifest.get("mine-fp32", "embedder").space == "tiny"


def test_half_a_manifest_of_added_models_does_not_stop_the_others(tmp_path):
    """Shipped models load; whoever wants an added one is told what is wrong with the file."""
    manifest = load_manifest(state_dir=in_state(tmp_path, "[[model]]\nid="))
    assert str(tmp_path / "models" / "manifest.toml") in manifest.aside[0]
    assert manifest.get("mobilefacenet-fp32", "embedder").shipped
    with pytest.raises(ModelError, match="left out: a readable manifest expected"):
        manifest.get("own-fp32", "embedder")
