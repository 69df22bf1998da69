"""Only the very file that was pinned is loaded, and only if it is what the manifest says."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from kiosk.errors import ModelError
from kiosk.vision.manifest import load_manifest
from kiosk.vision.session import Session, runtime_session, verified_bytes


def put_bytes(folder, tiny, data, **changes):
    """Any bytes as a model, pinned with their own hash."""
    (folder / "tiny.onnx").write_bytes(data)
    listing = tiny().listing(hashlib.sha256(data).hexdigest(), **changes)
    (folder / "manifest.toml").write_text(listing, encoding="utf-8")
    return load_manifest([folder]).get("tiny-fp32", "embedder")


def test_a_pinned_model_runs(put_model, tiny):
    """The input's name comes from the file, and all outputs come back."""
    session = Session(put_model(tiny()).get("tiny-fp32", "embedder"), 1)
    assert session.input_name == "image"
    (output,) = session.run(np.ones((1, 3, 112, 112), dtype=np.float32))
    np.testing.assert_allclose(output[0], tiny().weights.sum(axis=0), atol=1e-4)


def test_one_changed_bit_is_refused_by_name(put_model, tiny, tmp_path):
    """A file of the right size with one bit changed is refused with both hashes."""
    entry = put_model(tiny()).get("tiny-fp32", "embedder")
    data = bytearray(entry.path.read_bytes())
    data[-100] ^= 1
    entry.path.write_bytes(data)
    got = hashlib.sha256(data).hexdigest()
    with pytest.raises(ModelError, match=rf"tiny\.onnx has SHA-256 {entry.sha256}.*got {got}"):
        Session(entry, 1)


def test_the_bytes_alone_would_load(put_model, tiny):
    """onnxruntime takes the changed file without a word: only the hash stands in between."""
    entry = put_model(tiny()).get("tiny-fp32", "embedder")
    data = bytearray(entry.path.read_bytes())
    data[-100] ^= 1
    changed = put_bytes(entry.path.parent, tiny, bytes(data))
    Session(changed, 1)


def test_a_cut_file_is_refused_with_both_sizes(put_model, tiny):
    """A download that stopped half-way is told by its size."""
    model = tiny()
    size = len(model.onnx_bytes())
    entry = put_model(model, size=size).get("tiny-fp32", "embedder")
    entry.path.write_bytes(entry.path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=rf"is {size} bytes by the manifest, got 1000"):
        verified_bytes(entry)


def test_a_missing_file_is_named_with_its_source(put_model, tiny):
    """A model that the user still has to bring says from where."""
    entry = put_model(tiny()).get("tiny-fp32", "embedder")
    entry.path.unlink()
    with pytest.raises(ModelError, match=r"tiny\.onnx expected.*get it from made by a test"):
        Session(entry, 1)


def test_a_shipped_model_to_bring_says_where_from():
    """The entry for ArcFace R50 is usable as it stands: it names the file and the address."""
    entry = load_manifest().get("w600k-r50-fp32", "embedder")
    with pytest.raises(ModelError, match=r"w600k_r50\.onnx expected.*buffalo_l\.zip"):
        Session(entry, 1)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08\x12\x00" * 100])
def test_what_is_no_model_is_refused_by_name(tmp_path, tiny, data):
    """Bytes with the right hash that onnxruntime cannot read are refused, not thrown about."""
    entry = put_bytes(tmp_path, tiny, data)
    with pytest.raises(
        ModelError, match=r"model tiny-fp32: (onnxruntime .* cannot load|a whole ONNX)"
    ):
        Session(entry, 1)


def test_external_data_is_refused(tmp_path, tiny):
    """Weights in a second file have no hash: a model that needs one is refused, and told why."""
    model = onnx.load_from_string(tiny().onnx_bytes())
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    entry = put_bytes(tmp_path, tiny, path.read_bytes())
    assert (tmp_path / "w.bin").is_file()
    with pytest.raises(ModelError, match="without external data"):
        Session(entry, 1)


@pytest.mark.parametrize(
    ("said", "is_"),
    [
        ({"layout": "NHWC"}, {"layout": "NCHW"}),
        ({"batch": 1}, {"batch": 2}),
        ({"batch": 0}, {"batch": 1}),
    ],
)
def test_an_input_other_than_listed_is_refused(tmp_path, tiny, said, is_):
    """Layout and batch are held against the file when it is loaded, not at the first face."""
    data = tiny(**is_).onnx_bytes()
    (tmp_path / "tiny.onnx").write_bytes(data)
    listing = tiny(**said).listing(hashlib.sha256(data).hexdigest())
    (tmp_path / "manifest.toml").write_text(listing, encoding="utf-8")
    entry = load_manifest([tmp_path]).get("tiny-fp32", "embedder")
    with pytest.raises(ModelError, match="expected by the manifest, the file takes"):
        Session(entry, 1)


def test_a_free_file_takes_a_fixed_batch(tmp_path, tiny):
    """A file that takes any batch also takes the one the manifest names."""
    entry = put_bytes(tmp_path, tiny, tiny(file_batch="N").onnx_bytes())
    assert entry.input.batch == 1
    Session(entry, 1)


def test_a_run_that_cannot_be_is_told_by_name(put_model, tiny):
    """What onnxruntime refuses at run time names the model too."""
    session = Session(put_model(tiny()).get("tiny-fp32", "embedder"), 1)
    with pytest.raises(ModelError, match=r"model tiny-fp32: onnxruntime .* cannot run it on"):
        session.run(np.zeros((1, 3, 64, 64), dtype=np.float32))


def operators_of(session, size=112):
    """How many operators of each kind onnxruntime ran for one picture, from its own profile."""
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, size, size), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return Counter(
        each["args"]["op_name"]
        for each in events
        if each["cat"] == "Node" and each["name"].endswith("_kernel_time")
    )


def test_a_signed_graph_is_computed_in_integers(tmp_path):
    """49 convolutions in 8 bits, as they were judged; by itself onnxruntime on x86 has fewer."""
    entry = load_manifest().get("mobilefacenet-int8-qdq-s8", "embedder")
    data, prefix = verified_bytes(entry), str(tmp_path / "profile")
    by_itself = {"session.qdqisint8allowed": "0"}
    floats = operators_of(runtime_session(data, 1, entries=by_itself, profile=prefix))
    asked = operators_of(runtime_session(data, 1, profile=prefix))
    assert asked["QLinearConv"] == 49
    assert floats["QLinearConv"] < 49
    assert floats["Conv"] > asked["Conv"]
