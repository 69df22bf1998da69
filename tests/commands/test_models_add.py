"""`kiosk models add` and `remove`: what foreign files come to, and what is refused by name."""

import errno
import hashlib
import json
import os
import re
import stat

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kiosk.errors import ModelError
from kiosk.lab.prepare import ready
from kiosk.lab.subject import read_subject
from kiosk.vision.canary import golden_faces
from kiosk.vision.manifest import load_manifest
from kiosk.vision.own_models import OwnModels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def add(kiosk, config):
    """A function that adds a file under an id; JSON when it goes well, else the error."""

    def run(path, id_="own-fp32", *options):
        status, out, err = kiosk(
            "models", "add", path, "--id", id_, "--config", config(), "--json", *options
        )
        return json.loads(out) if status == 0 else err

    return run


def entry(tmp_path, model_id="own-fp32"):
    return load_manifest(state_dir=tmp_path / "state").get(model_id, "embedder")


def test_a_file_is_found_out_and_copied(add, foreign, tmp_path, kiosk, config):
    """Layout, size, batch, output, dimension; the file, its manifest and golden faces in place."""
    said = add(foreign(), "own-fp32", "--licence", "MIT", "--source", 'a friend\'s \x7f "disk"')
    assert (said["added"], said["usable"], said["opset"]) == (True, False, 17)
    assert said["input"]["layout"] == "NCHW"
    assert (said["input"]["width"], said["input"]["batch"]) == (112, 1)
    assert (said["output"], said["dim"], said["space"]) == ("embedding", 64, "own-64-4pt")
    found = entry(tmp_path)
    assert found.path.read_bytes() == (tmp_path / "foreign.onnx").read_bytes()
    assert (found.licence, found.source) == ("MIT", 'a friend\'s \x7f "disk"')
    folder = tmp_path / "state" / "models"
    assert stat.S_IMODE((folder / "manifest.toml").stat().st_mode) == 0o640
    assert len(golden_faces("own-64-4pt", folder / "golden")) == 3
    status, out, _ = kiosk("models", "check", "--config", config())
    assert status == 0
    assert "own-fp32: hash as pinned, golden faces at cosine 1.000000" in out


def test_the_canary_knows_another_file(add, foreign, tmp_path, kiosk, config):
    """The recorded golden faces notice weights that compute something else under a right hash."""
    add(foreign())
    golden = tmp_path / "state" / "models" / "golden" / "own-64-4pt.json"
    faces = json.loads(golden.read_text())
    pin = entry(tmp_path).golden
    assert pin == hashlib.sha256(golden.read_bytes()).hexdigest()
    golden.write_text(json.dumps({name: values[::-1] for name, values in faces.items()}))
    _, _, err = kiosk("models", "check", "--config", config())
    assert "own-64-4pt.json has SHA-256" in err
    manifest = tmp_path / "state" / "models" / "manifest.toml"
    changed = hashlib.sha256(golden.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(pin, changed))
    status, _, err = kiosk("models", "check", "--config", config())
    assert status == 1
    assert "own-fp32: model own-fp32: cosine of at least 0.999" in err


def test_nhwc_is_found_out(add, tmp_path, foreign):
    """Three colours in the last dimension make the layout NHWC."""
    from onnx import helper, load

    model = load(foreign())
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("nhwc", 1, [1, 112, 112, 3]))
    turn = helper.make_node("Transpose", ["nhwc"], ["input"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, turn)
    (tmp_path / "nhwc.onnx").write_bytes(model.SerializeToString())
    assert add(tmp_path / "nhwc.onnx")["input"]["layout"] == "NHWC"


@pytest.mark.parametrize("free", ["N", -1, None])
def test_a_free_batch_is_batch_0(add, foreign, free):
    """However a free dimension is written: by name, as -1, or not at all."""
    said = add(foreign(shape=(free, 3, 112, 112), batch_out=free))
    assert said["input"]["batch"] == 0


def test_free_height_and_width_are_112(add, foreign):
    """A graph that takes any picture is given one of 112x112."""
    said = add(foreign(shape=("N", 3, "H", "W"), batch_out="N"))
    assert (said["input"]["height"], said["input"]["width"]) == (112, 112)
    assert "takes 160x160" in add(foreign("big.onnx", shape=(1, 3, 160, 160)), "big-fp32")


@pytest.mark.parametrize("opset", [8, 11])
def test_an_old_opset_is_told_and_converts_exactly(foreign, kiosk, config, opset, tmp_path):
    """It is used as it is; what quantising makes of it first is said, and is the same function."""
    path = foreign(opset=opset)
    status, out, _ = kiosk("models", "add", path, "--id", "own-fp32", "--config", config())
    assert status == 0
    assert f"opset    {opset} (converted to 13 when quantised)" in out
    newer = ready(read_subject(path))
    assert newer.opset_import[0].version == 13


def test_external_data_is_refused_by_name(add, foreign, with_external_data):
    """Weights in another file would be missing on the kiosk."""
    said = add(with_external_data(foreign()))
    assert "outside.onnx: one self-contained file expected" in said
    assert "onnx.save" in said


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"extra_output": True}, "one embedding as output expected, got 2"),
        ({"dim": 16}, "one embedding of 32 to 1024 values expected"),
        ({"dim": 48}, "64 to 1024 values expected, which is what a message carries"),
        ({"dim": "D"}, "one embedding of 32 to 1024"),
        ({"batch_out": 3}, "one embedding of 32 to 1024"),
        ({"nan": True}, "one embedding of each golden face expected"),
        ({"shape": (1, 1, 112, 112)}, "three colours in dimension 1 or 3"),
        ({"ir_version": 99}, "that onnx"),
        ({"shape": (65, 3, 112, 112), "batch_out": 65}, "batch"),
    ],
)
def test_what_is_no_embedder_is_refused(add, foreign, tmp_path, what, words):
    """Each by what was expected, and nothing is left behind."""
    path = foreign(**{k: v for k, v in what.items() if v != "D"})
    if what.get("dim") == "D":
        from onnx import load

        model = load(path)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "D"
        path.write_bytes(model.SerializeToString())
    said = add(path)
    assert words in said
    assert not (tmp_path / "state").exists()


def test_no_onnx_file_at_all(add, tmp_path):
    """Text, nothing, and a folder are named."""
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx", "absent.onnx", "."):
        assert "expected" in add(tmp_path / name)


def test_adding_again_changes_nothing(add, foreign, tmp_path):
    """The same file under its id is there already, threshold and all; a lost file is put back."""
    path = foreign()
    add(path)
    own = OwnModels(tmp_path / "state")
    own.set_threshold("own-fp32", 0.4, "a note")
    before = own.manifest.read_bytes()
    own.path_of("own-fp32").unlink()
    said = add(path)
    assert (said["added"], said["usable"], said["cosine"]) == (False, True, pytest.approx(1.0))
    assert own.manifest.read_bytes() == before
    assert own.path_of("own-fp32").read_bytes() == path.read_bytes()
    assert "--channels: RGB expected, as own-fp32 was added, got BGR" in add(
        path, "own-fp32", "--channels", "BGR"
    )


def test_a_taken_id_is_refused(add, foreign):
    """Another file under an id of one's own, and any under a shipped one."""
    add(foreign())
    other = foreign("other.onnx", seed=1)
    assert "own-fp32 is " in add(other)
    assert "kiosk models remove own-fp32" in add(other)
    assert "--id: one that is free expected" in add(other, "mobilefacenet-fp32")


@pytest.mark.parametrize(
    "id_", ["own", "Own-fp32", "own-int8-fp32", "fp32", "../x-fp32", "o_-fp32"]
)
def test_an_odd_id_is_refused(add, foreign, id_):
    """An id is a file name and says its number format once."""
    assert "-fp32 or -int8" in add(foreign(), id_)


def test_an_odd_space_is_refused(add, foreign):
    """A space names a file and goes into messages."""
    assert "letters, digits" in add(foreign(), "own-fp32", "--space", "../x")


def test_a_quantised_file_wants_an_int8_id(add, foreign, quantised):
    """And a plain one an FP32 id."""
    path = quantised(foreign())
    assert "ends in -int8 expected" in add(path)
    assert "ends in -fp32 expected" in add(foreign(), "own-int8")


def test_int8_joins_the_space_of_its_fp32(add, foreign, quantised, tmp_path):
    """Held against the golden faces of FP32, and fed alike."""
    add(foreign(), "own-fp32", "--channels", "BGR")
    said = add(quantised(foreign()), "own-int8")
    assert said["space"] == "own-64-4pt"
    assert said["cosine"] > 0.98
    assert said["input"]["channels"] == "BGR"


def test_int8_that_strays_needs_its_own_space(add, foreign, quantised):
    """Other weights in a space are refused with the way out, which then works."""
    add(foreign())
    other = quantised(foreign("other.onnx", seed=1))
    said = add(other, "own-int8")
    assert "--space: a file that agrees with own-64-4pt expected" in said
    assert "--space NAME" in said
    assert add(other, "own-int8", "--space", "other")["space"] == "other"


def test_int8_without_fp32_is_refused_in_a_space_that_is_taken(add, foreign, quantised):
    """Beside INT8 alone another INT8 proves nothing; alone in a space of its own it may be."""
    path = quantised(foreign())
    assert add(path, "own-int8")["cosine"] is None
    assert "the FP32 file of own-64-4pt expected" in add(path, "more-int8", "--space", "own-64-4pt")


def test_other_weights_do_not_get_into_a_shipped_space(add, foreign):
    """Embeddings of two models must never be compared."""
    said = add(foreign(dim=192), "own-fp32", "--space", "mobilefacenet-192-4pt")
    assert "a file that agrees with mobilefacenet-192-4pt expected" in said
    said = add(foreign(), "own-fp32", "--space", "mobilefacenet-192-4pt")
    assert "holds mobilefacenet-fp32 with 192 values" in said
    said = add(foreign(dim=512), "own-fp32", "--space", "w600k-r50-512-4pt")
    assert "neither" in said


def test_a_file_that_the_manifest_knows_is_fed_as_it_says(add, repository):
    """By its hash: space and feeding are the manifest's, and a contradiction is refused."""
    path = repository / "models" / "mobilefacenet-prelu-fp32.onnx"
    assert "--channels: RGB expected, as the manifest says" in add(
        path, "own-fp32", "--channels", "BGR"
    )
    said = add(path)
    assert said["space"] == "mobilefacenet-192-4pt"
    assert said["cosine"] > 0.99999


def test_odd_feeding_is_refused(add, foreign):
    """A scale of 0 and numbers that are none would give every face the same embedding."""
    for options in (("--scale", "0"), ("--mean", "nan"), ("--scale", "inf")):
        assert "finite numbers and a scale other than 0" in add(foreign(), "own-fp32", *options)


def test_a_full_disk_leaves_no_half_file(add, foreign, tmp_path, monkeypatch):
    """Nothing under a final name, no manifest, and the error names the file."""

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = add(foreign())
    assert "own-fp32.onnx" in said
    assert "No space left" in said
    assert [p for p in (tmp_path / "state").rglob("*") if p.is_file()] == []
    assert add(foreign())["added"]


def test_room_for_the_model_only_leaves_nothing(add, foreign, tmp_path, monkeypatch):
    """The weights fit, the manifest does not: they go again, and the error names the file."""
    synced, real = [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = add(foreign())
    assert "No space left" in said
    assert [p for p in (tmp_path / "state").rglob("*") if p.is_file()] == []
    assert add(foreign())["added"]


def test_no_room_for_temporary_files_is_named(add, foreign, monkeypatch):
    """Whatever was to be written where: a full disk is no fault of the program's."""

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/some")

    monkeypatch.setattr("kiosk.lab.adopt.try_out", full)
    said = add(foreign())
    assert "room on the disk expected, got: No space left on device (/tmp/some)" in said
    assert "TMPDIR" in said
    assert "fault of its own" not in said


def embedder_of(path, nodes, *constants):
    """A file whose graph gives `y`, 64 values, from `x`, the picture, of which `few` are 64."""
    small = [np.array([0], np.int64), np.array([64], np.int64), np.array([1], np.int64)]
    fixed = [numpy_helper.from_array(v, n) for v, n in zip(small, "abc", strict=True)]
    first = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Slice", ["flat", "a", "b", "c"], ["few"]),
    ]
    graph = helper.make_graph(
        [*first, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [*fixed, *constants],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def nothing_written(tmp_path):
    return not [p for p in (tmp_path / "state").rglob("*") if p.is_file()]


def test_random_numbers_are_no_embedding(add, tmp_path):
    """A file that gives one face two embeddings is refused with the cosine between them."""
    node = helper.make_node("RandomNormalLike", ["few"], ["y"])
    said = add(embedder_of(tmp_path / "random.onnx", [node]))
    assert "random.onnx: one embedding for one face expected, two runs agree" in said
    assert nothing_written(tmp_path)


def test_loops_and_branches_are_refused_by_name(add, tmp_path):
    """An endless loop would never answer; no embedder needs one."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Identity", ["v"], ["w"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, [1, 64]),
        ],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, [1, 64])],
    )
    loop = helper.make_node("Loop", ["", "t", "few"], ["y"], name="again", body=body)
    said = add(
        embedder_of(tmp_path / "loop.onnx", [loop], numpy_helper.from_array(np.array(True), "t"))
    )
    assert "a graph without loops and branches expected, Loop again has a graph in it" in said


def test_a_small_file_that_asks_for_all_memory_is_refused(add, tmp_path):
    """32 GiB are asked for in a process of its own, and not had."""
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["k"]),
        helper.make_node("ReduceSum", ["k"], ["r"], keepdims=0),
        helper.make_node("Add", ["few", "r"], ["y"]),
    ]
    size = numpy_helper.from_array(np.array([1 << 33], np.int64), "s")
    said = add(embedder_of(tmp_path / "bomb.onnx", nodes, size))
    assert "bomb.onnx: an embedder that runs expected, a trial of it failed" in said
    assert nothing_written(tmp_path)


def test_a_file_that_does_not_answer_is_given_up(add, foreign, tmp_path, monkeypatch):
    """The trial has a time limit."""
    monkeypatch.setattr("kiosk.lab.trial._PATIENCE_S", 0)
    assert "an embedder that answers within 0 s expected" in add(foreign())
    assert nothing_written(tmp_path)


def test_only_a_regular_file_is_read(add, tmp_path, monkeypatch, foreign):
    """A device has no end, a pipe no beginning; a size bound is told with the size."""
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        assert "an ONNX file expected, it is no regular file" in add(path)
    path = foreign()
    monkeypatch.setattr("kiosk.lab.subject.MOST_BYTES", 1000)
    assert f"at most 1000 bytes expected, got {path.stat().st_size}" in add(path)


def test_a_name_that_is_no_text_is_refused_before_anything_is_written(add, foreign, tmp_path):
    """Bytes that are not UTF-8 crashed when the manifest was written, with the file there."""
    path = foreign(os.fsdecode(b"mine\xff.onnx"))
    assert "FILE: text in UTF-8 expected, got 'mine\\udcff.onnx'; rename the file" in add(path)
    said = add(foreign(), "own-fp32", "--source", os.fsdecode(b"\xff"))
    assert "--source: text in UTF-8 expected" in said
    assert nothing_written(tmp_path)


def test_a_cut_leaves_nothing_that_stands_in_the_way(add, foreign, tmp_path):
    """Golden faces of a run that was cut before its manifest belong to nobody."""
    add(foreign())
    (tmp_path / "state" / "models" / "manifest.toml").unlink()
    said = add(foreign("other.onnx", seed=1))
    assert (said["added"], said["cosine"]) == (True, None)


def test_a_manifest_that_does_not_check_is_not_written_over(add, foreign, tmp_path):
    """Somebody's edit is kept, and named."""
    add(foreign())
    manifest = tmp_path / "state" / "models" / "manifest.toml"
    manifest.write_text(manifest.read_text() + "colour = 1\n")
    broken = manifest.read_text()
    said = add(foreign("other.onnx", seed=1), "other-fp32")
    assert "colour" in said
    assert manifest.read_text() == broken


def test_another_users_folder_is_not_written_to(add, foreign, tmp_path, monkeypatch):
    """Root's files in the kiosk's folder could not be read by the kiosk."""
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    said = add(foreign())
    assert f"sudo -u '#{os.getuid()}'" in said


def test_remove_takes_it_all_out(add, foreign, tmp_path, kiosk, config):
    """File, entry and golden faces go; the empty manifest still loads; a shipped one stays."""
    add(foreign())
    status, out, _ = kiosk("models", "remove", "own-fp32", "--config", config())
    assert status == 0
    assert "own-fp32: removed" in out
    folder = tmp_path / "state" / "models"
    assert not (folder / "own-fp32.onnx").exists()
    assert not (folder / "golden" / "own-64-4pt.json").exists()
    with pytest.raises(ModelError, match="in no manifest"):
        entry(tmp_path)
    assert kiosk("models", "list", "--config", config())[0] == 0
    status, _, err = kiosk("models", "remove", "mobilefacenet-fp32", "--config", config())
    assert status == 2
    assert "none of them" in err


def test_remove_is_refused_while_configured(add, foreign, quantised, kiosk, config):
    """As embedder, as models.also, and as what an INT8 file in use falls back on."""
    add(foreign())
    add(quantised(foreign()), "own-int8")
    for models, words in (
        ('embedder = "own-fp32"\n', "models.embedder names own-fp32"),
        ('also = "own-fp32"\n', "models.also names own-fp32"),
        ('embedder = "own-int8"\n', "models.embedder (own-int8) falls back on"),
    ):
        status, _, err = kiosk("models", "remove", "own-fp32", "--config", config(models))
        assert status == 2
        assert words in err
    assert kiosk("models", "remove", "own-int8", "--config", config())[0] == 0


def test_a_state_folder_does_without_a_configuration(foreign, kiosk, tmp_path):
    """--state-dir names the data folder itself."""
    status, _, _ = kiosk(
        "models", "add", foreign(), "--id", "own-fp32", "--state-dir", tmp_path / "state"
    )
    assert status == 0
    assert np.isclose(entry(tmp_path).input.scale, 1 / 127.5)


def test_the_next_command_names_the_place_that_was_given(foreign, kiosk, tmp_path, config):
    """State folder or configuration: what is printed can be run as it is, but for the pictures."""
    add = ("models", "add", foreign(), "--id", "own-fp32")
    _, out, _ = kiosk(*add, "--state-dir", tmp_path / "a state")
    assert f"--set-threshold own-fp32 --state-dir '{tmp_path}/a state' sets it" in out
    _, out, _ = kiosk(*add, "--config", config())
    assert f"--set-threshold own-fp32 --config {tmp_path}/kiosk.toml sets it" in out


def test_every_models_command_takes_a_state_folder(foreign, kiosk, tmp_path):
    """list, check, profile and remove find what add put there; a folder that is none is refused."""
    state = ("--state-dir", tmp_path / "state")
    assert kiosk("models", "add", foreign(), "--id", "own-fp32", *state)[0] == 0
    _, out, _ = kiosk("models", "list", *state)
    assert re.search(r"own-fp32 +embedder +present +own-64-4pt +64 ", out)
    assert "own-fp32: hash as pinned" in kiosk("models", "check", *state)[1]
    assert kiosk("models", "profile", "--json", *state)[0] == 0
    assert kiosk("models", "remove", "own-fp32", *state)[0] == 0
    assert "own-fp32" not in kiosk("models", "list", *state)[1]
    for what in ("list", "check", "profile"):
        status, _, err = kiosk("models", what, "--state-dir", tmp_path / "none")
        assert status == 2
        assert "--state-dir: a state folder expected" in err


def test_the_very_file_of_an_entry_without_one_joins_its_space(foreign, kiosk, config, tmp_path):
    """A manifest that knows a file by its hash, and has it nowhere: space and feeding are its."""
    path = foreign(shape=("N", 3, 112, 112), batch_out="N")
    listed = OwnModels(tmp_path / "elsewhere")
    assert (
        kiosk(
            *("models", "add", path, "--id", "known-fp32", "--space", "known", "--channels", "BGR"),
            *("--state-dir", tmp_path / "elsewhere"),
        )[0]
        == 0
    )
    listed.path_of("known-fp32").unlink()
    (listed.golden / "known.json").unlink()
    settings = config(f'extra_dirs = ["{listed.folder}"]\n')
    status, out, _ = kiosk(
        "models", "add", path, "--id", "own-fp32", "--config", settings, "--json"
    )
    assert status == 0
    said = json.loads(out)
    assert (said["space"], said["input"]["channels"], said["cosine"]) == ("known", "BGR", None)
    assert len(golden_faces("known", tmp_path / "state" / "models" / "golden")) == 3


def test_an_id_that_a_deploy_took_can_be_listed_and_removed(add, foreign, kiosk, config, tmp_path):
    """The user's own entry is left out, loudly, and `remove` takes out that one and no other."""
    add(foreign())
    manifest = tmp_path / "state" / "models" / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('"own-fp32"', '"mobilefacenet-fp32"'))
    status, out, err = kiosk("models", "list", "--config", config())
    assert status == 0
    assert "mobilefacenet-fp32" in out
    assert "left out: " in err
    assert "id 'mobilefacenet-fp32' is taken by" in err
    status, _, err = kiosk("models", "remove", "mobilefacenet-fp32", "--config", config())
    assert (status, err) == (0, "")
    assert "left out" not in kiosk("models", "list", "--config", config())[2]
    assert load_manifest().get("mobilefacenet-fp32", "embedder").path.is_file()
