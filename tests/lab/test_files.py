"""A file has its final name only when it is whole, and a model only when it runs."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kiosk.errors import KioskError, ModelError, UserError
from kiosk.lab.files import claimed, staged, write_bytes, write_model
from kiosk.lab.quantise import Recipe, quantised
from lab.nets import mobile, mobile_sketch, noise


@pytest.fixture
def small(mounted_disk):
    return mounted_disk("64k")


def test_a_full_disk_leaves_the_old_file_and_no_half_one(small):
    """A real one: the error names file and reason, what was there is there, nothing else is."""
    write_bytes(small / "model.onnx", b"old")
    with pytest.raises(KioskError, match=r"model\.onnx: 1000000 bytes to write, No space left"):
        write_bytes(small / "model.onnx", bytes(1_000_000))
    assert (small / "model.onnx").read_bytes() == b"old"
    assert [path.name for path in small.iterdir()] == ["model.onnx"]
    write_bytes(small / "model.onnx", b"new")
    assert (small / "model.onnx").read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, call, number):
    """Told at the very end, by fsync or the renaming: the same."""
    write_bytes(tmp_path / "model.onnx", b"old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync" if call == "fsync" else "pathlib.Path.replace", fail)
    with pytest.raises(KioskError, match=os.strerror(number)):
        write_bytes(tmp_path / "model.onnx", b"new")
    monkeypatch.undo()
    assert (tmp_path / "model.onnx").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    """Ctrl-C in the middle of the writing."""

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "model.onnx", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_is_told(tmp_path):
    """Below a file there is no folder, and a folder's name is taken."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for path in (tmp_path / "file" / "model.onnx", tmp_path / "folder"):
        with pytest.raises(KioskError, match=f"{path}: 3 bytes to write"):
            write_bytes(path, b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_folders_on_the_way_are_made(tmp_path):
    """A path to nowhere yet is a path to a file; anybody may read it."""
    write_bytes(tmp_path / "a" / "b" / "model.onnx", b"new")
    assert (tmp_path / "a" / "b" / "model.onnx").stat().st_mode & 0o777 == 0o644


def test_a_model_is_what_was_written(tmp_path):
    """The bytes given back are the file's."""
    model = mobile(0)
    data = write_model(tmp_path / "model.onnx", model, noise(model))
    assert (tmp_path / "model.onnx").read_bytes() == data
    assert onnx.load(tmp_path / "model.onnx") == model


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_numbers_never_gets_its_name(tmp_path, value):
    """NaN and infinity in a weight come out at the end: nothing is written."""
    sketch = mobile_sketch(0)
    sketch.constants["narrow_bias"][2] = value
    model = sketch.model("embedding", [1, 3, 112, 112], shape=[1, 64])
    with pytest.raises(ModelError, match=r"model\.onnx: finite embeddings expected"):
        write_model(tmp_path / "model.onnx", model, noise(model))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_load_or_run_never_gets_its_name(tmp_path):
    """Refused by the runtime at the start, or at the first picture: ModelError, no file."""
    unknown = mobile(0)
    unknown.graph.node[0].op_type = "NoSuchOperator"
    sketch = mobile_sketch(0)
    sketch.nodes.append(helper.make_node("Reshape", ["embedding", "shape"], ["odd"], name="odd"))
    sketch.const("shape", np.array([1, 63]))
    for model in (unknown, sketch.model("odd", [1, 3, 112, 112], shape=[1, 63])):
        with pytest.raises(ModelError, match="onnxruntime"):
            write_model(tmp_path / "model.onnx", model, noise(mobile(0)))
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_weight_of_minus_128_never_gets_its_name(tmp_path):
    """Whoever made it."""
    model = quantised(mobile(0), Recipe(method="dynamic"), None)
    tensor = next(t for t in model.graph.initializer if t.data_type == 3 and len(t.dims) > 1)
    stored = numpy_helper.to_array(tensor).copy()
    stored.flat[0] = -128
    tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
    with pytest.raises(ModelError, match="are -128"):
        write_model(tmp_path / "model.onnx", model, noise(mobile(0)))
    assert list(tmp_path.iterdir()) == []


def write_set(folder, mark, *, then=None):
    """A model and the record that speaks of it, as a build stages them."""
    with staged(folder, last="record") as scratch:
        (scratch / "record").write_bytes(mark)
        (scratch / "model").write_bytes(mark)
        if then is not None:
            raise then


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_set_comes_together(tmp_path):
    """A second set takes the place of the first; what a killed build left is cleared away."""
    (tmp_path / ".new-killed").mkdir()
    (tmp_path / ".new-killed" / "model").write_bytes(b"half")
    write_set(tmp_path, b"1")
    write_set(tmp_path, b"2")
    assert contents(tmp_path) == {"record": b"2", "model": b"2"}


def test_an_interrupt_before_the_end_leaves_the_old_set(tmp_path):
    """Ctrl-C, or no room: nothing of the new set has a final name."""
    write_set(tmp_path, b"1")
    for error in (KeyboardInterrupt, KioskError("full")):
        with pytest.raises((KeyboardInterrupt, KioskError)):
            write_set(tmp_path, b"2", then=error)
        assert contents(tmp_path) == {"record": b"1", "model": b"1"}


def test_a_cut_between_two_files_leaves_no_record(tmp_path, monkeypatch):
    """The old record goes first and the new one comes last: none ever lies about its files."""
    write_set(tmp_path, b"1")
    real = Path.replace

    def cut(path, target):
        if path.name == "model":
            real(path, target)
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path, b"2")
    assert contents(tmp_path) == {"model": b"2"}


def test_two_builds_do_not_share_a_folder(tmp_path):
    """The second is refused by name, and may begin once the first has ended."""
    out = tmp_path / "out"
    with claimed(out), pytest.raises(UserError, match="no other build writes to"), claimed(out):
        pass
    with claimed(out):
        (out / "file").touch()
    assert out.exists()


def test_a_claim_that_leaves_nothing_leaves_no_folder(tmp_path):
    """A build that is refused has not made its folder; a file in its place is named."""
    with claimed(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="file: a folder to write to expected"),
        claimed(tmp_path / "file"),
    ):
        pass
