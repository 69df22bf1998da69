"""A record remakes its files to the last bit, without a face, or says what is wrong with it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from kiosk.__main__ import main
from kiosk.errors import ModelError, UserError
from kiosk.lab.assemble import Plan, assemble
from kiosk.lab.calibrate import write_ranges
from kiosk.lab.prepare import base_of, float_forms, float_graph
from kiosk.lab.quantise import Recipe, recipe_ranges_name, to_bytes
from kiosk.lab.rebuild import rebuild
from kiosk.lab.record import CONFIG_NAME, RANGES_NAME, as_yaml, ranges_document, read_record
from kiosk.lab.subject import read_subject
from lab.nets import mobile, noise, values_of

FORM = "max(x, a*x)"


def record_of(source, folder):
    """What a build leaves beside its files: two plans and a float form of one source."""
    subject = read_subject(source)
    base = base_of(subject)
    streams = {"wide": [0.5 + i / 16 for i in range(16)]} if subject.dim == 64 else {}
    graph = float_graph(base, streams)
    exclude = tuple(n.name for n in graph.graph.node if n.name.startswith("prelu_"))
    recipe = Recipe(calibration="MinMax", exclude=exclude)
    ranges = folder / "minmax.json"
    options = {"method": "MinMax", "percentile": 100.0, "op_types": recipe.op_types}
    write_ranges(graph, noise(graph, 2), ranges, **options)
    first = next(n for n in graph.graph.node if n.op_type == "Conv")
    moves = {first.output[0]: [0.125] * len(values_of(graph, first.input[2]))}
    plans = (Plan("qdq", recipe, moves), Plan("nhwc", recipe, {}))
    files = [listed("fp32.onnx", to_bytes(float_forms(subject)[FORM]), form=FORM)]
    for plan in plans:
        data = to_bytes(assemble(base, streams, plan, ranges).shipped)
        recipe_document = plan.recipe.document()
        files.append(listed(f"{plan.form}.onnx", data, form=plan.form, recipe=recipe_document))
    name = recipe_ranges_name(recipe)
    beside = ranges_document(streams, plans, {name: ranges.read_bytes()})
    (folder / RANGES_NAME).write_bytes(beside)
    document = {
        "source": {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
        "files": files,
        "ranges": {"file": RANGES_NAME, "sha256": hashlib.sha256(beside).hexdigest()},
    }
    (folder / CONFIG_NAME).write_bytes(as_yaml(document))
    return folder / CONFIG_NAME


def listed(file, data, **rest):
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest(), **rest}


@pytest.fixture
def record(tmp_path):
    onnx.save(mobile(0), tmp_path / "source.onnx")
    return record_of(tmp_path / "source.onnx", tmp_path)


def changed(record, change):
    document = yaml.safe_load(record.read_text())
    change(document)
    record.write_bytes(as_yaml(document))


def test_the_same_bytes_every_time(record, tmp_path):
    """The float form, and both 8-bit forms with factors and corrections, twice."""
    for out in (None, tmp_path / "out"):
        made = rebuild(record, None, out)
        assert [each.file for each in made] == ["fp32.onnx", "qdq.onnx", "nhwc.onnx"]
        assert all(each.same for each in made)
    for each in made:
        data = (tmp_path / "out" / each.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == each.expected


def test_a_file_that_does_not_run_here_is_not_written(record, tmp_path, monkeypatch):
    """Loaded and run before it gets its name, whatever its hash says."""
    monkeypatch.setattr("kiosk.lab.rebuild.blank_of", lambda _: np.zeros((1, 3, 5, 5), np.float32))
    with pytest.raises(ModelError, match=r"onnxruntime .* cannot run"):
        rebuild(record, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_shipped_model_is_remade_from_the_manifests_file(repository, tmp_path):
    """The source need not lie beside the record: the manifest's is found by its hash."""
    source = repository / "models" / "mobilefacenet-prelu-fp32.onnx"
    record = record_of(source, tmp_path)
    assert not (tmp_path / source.name).exists()
    assert all(each.same for each in rebuild(record, None, None))


def test_factors_and_corrections_are_in_the_bytes(record, tmp_path):
    """Other factors, other file: that the hashes agree above is no accident."""
    made = json.loads((tmp_path / RANGES_NAME).read_text())
    made["factors"] = {}
    data = json.dumps(made).encode()
    (tmp_path / RANGES_NAME).write_bytes(data)
    changed(record, lambda d: d["ranges"].update(sha256=hashlib.sha256(data).hexdigest()))
    assert [each.same for each in rebuild(record, None, None)] == [True, False, False]


def test_the_command_tells_and_ends_with_1_when_a_file_differs(record, capsys):
    """0 with the same bytes; 1, and both hashes, when the record says another."""
    assert main(["lab", "rebuild", str(record)]) == 0
    assert capsys.readouterr().out.count("the same bytes") == 3
    changed(record, lambda d: d["files"][1].update(sha256="0" * 64))
    assert main(["lab", "rebuild", str(record), "--json"]) == 1
    same = [each["same"] for each in json.loads(capsys.readouterr().out)]
    assert same == [True, False, True]


def test_what_is_not_the_records_is_not_written(record, tmp_path, capsys):
    """Nothing gets a name that other bytes are recorded under; the others are written."""
    changed(record, lambda d: d["files"][1].update(sha256="0" * 64))
    assert main(["lab", "rebuild", str(record), "--out", str(tmp_path / "out")]) == 1
    assert "it was not written" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"fp32.onnx", "nhwc.onnx"}


def test_a_file_beside_the_record_that_is_another_is_told(record, tmp_path, capsys):
    """The record remakes its files, and yet lies about what is there: 1, with both hashes."""
    assert main(["lab", "rebuild", str(record), "--out", str(tmp_path)]) == 0
    assert main(["lab", "rebuild", str(record)]) == 0
    (tmp_path / "qdq.onnx").write_bytes(b"another")
    capsys.readouterr()
    assert main(["lab", "rebuild", str(record)]) == 1
    said = capsys.readouterr().err
    assert "qdq.onnx: SHA-256" in said
    assert f"beside the record has {hashlib.sha256(b'another').hexdigest()}" in said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(files=[]), "files expected, the name and SHA-256 of each model"),
        (lambda d: d["files"][1].update(file="fp32.onnx"), "different names of files expected"),
        (lambda d: d["files"][1].update(file=CONFIG_NAME), "the name of an .onnx file expected"),
        (lambda d: d["files"][1].update(file="a\0.onnx"), "the name of a file expected"),
    ],
)
def test_names_that_are_none_are_refused(record, tmp_path, capsys, change, complaint):
    """No files, one name twice, the record's own name, a name with NUL: status 2, nothing made."""
    changed(record, change)
    assert main(["lab", "rebuild", str(record), "--out", str(tmp_path / "out")]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_changed_sidecar_is_refused_by_its_hash(record, tmp_path):
    """One digit of one range."""
    path = tmp_path / RANGES_NAME
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=f"{RANGES_NAME}: SHA-256 .* expected, got"):
        rebuild(record, None, None)


def test_a_missing_sidecar_is_named(record, tmp_path):
    """The record alone remakes nothing."""
    (tmp_path / RANGES_NAME).unlink()
    with pytest.raises(UserError, match=f"{RANGES_NAME}: expected a file to read, No such file"):
        rebuild(record, None, None)


def test_a_missing_source_is_named(record, tmp_path):
    """With its hash, where it was looked for, and how to name it."""
    (tmp_path / "source.onnx").unlink()
    with pytest.raises(UserError, match=r"source\.onnx with SHA-256 [0-9a-f]{64}") as caught:
        rebuild(record, None, None)
    assert f"not found in {tmp_path}, {Path.cwd()} and among the" in caught.value.message
    assert "blazeface" not in str(caught.value)
    assert "--source" in caught.value.hint
    assert "--state-dir" in caught.value.hint


def test_a_source_in_the_current_folder_is_found(record, tmp_path, monkeypatch):
    """By its hash, whatever it is called: people move a record and keep their model beside them."""
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "source.onnx").rename(here / "mine.onnx")
    monkeypatch.chdir(here)
    assert all(each.same for each in rebuild(record, None, None))


def test_a_source_that_was_added_to_a_kiosk_is_found(record, tmp_path, capsys):
    """The models of the state folder that --state-dir names are looked at."""
    state = ["--state-dir", str(tmp_path / "state")]
    source = tmp_path / "source.onnx"
    assert main(["models", "add", str(source), "--id", "own-fp32", *state]) == 0
    source.unlink()
    assert main(["lab", "rebuild", str(record), *state]) == 0
    assert main(["lab", "rebuild", str(record)]) == 2


def test_another_source_is_refused(record, tmp_path):
    """A file of that name with other weights, found or given, is not the source; both are told."""
    onnx.save(mobile(1), tmp_path / "other.onnx")
    got = hashlib.sha256((tmp_path / "other.onnx").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=rf"got .*other\.onnx: it has {got}") as caught:
        rebuild(record, tmp_path / "other.onnx", None)
    assert "name it with --source" not in str(caught.value)
    with pytest.raises(UserError, match=r"got .*none\.onnx: it is not there"):
        rebuild(record, tmp_path / "none.onnx", None)
    onnx.save(mobile(1), tmp_path / "source.onnx")
    with pytest.raises(UserError, match=r"source\.onnx with SHA-256 .* not found in"):
        rebuild(record, None, None)


@pytest.mark.parametrize("name", ["../above.onnx", "/tmp/x.onnx", "a/b.onnx", "..", ""])
@pytest.mark.parametrize("place", ["files", "ranges"])
def test_a_record_reaches_nothing_outside_its_folders(record, tmp_path, name, place):
    """A record may come from anywhere: what it names are plain files beside it."""
    if place == "files":
        changed(record, lambda d: d["files"][0].update(file=name))
    else:
        changed(record, lambda d: d["ranges"].update(file=name))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="the name of a file expected"):
        rebuild(record, None, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("key", ["source", "files", "ranges"])
def test_a_key_that_is_missing_is_named(record, key):
    """No traceback of a dictionary."""
    changed(record, lambda d: d.pop(key))
    with pytest.raises(UserError, match=f"{key}: a value expected, got nothing: the key is"):
        read_record(record)


@pytest.mark.parametrize(
    "content", ["", "[1, 2]", "a: [", "\0", "files: 3\nsource: 4\nranges: 5\n"]
)
def test_what_is_no_record_is_refused_by_name(tmp_path, content):
    """Nothing, a list, broken YAML, numbers for sections."""
    path = tmp_path / CONFIG_NAME
    path.write_text(content)
    with pytest.raises(UserError, match=CONFIG_NAME):
        read_record(path)


def test_a_form_that_nobody_knows_is_refused(record):
    """A record of a newer workshop, or one changed by hand."""
    changed(record, lambda d: d["files"][0].update(form="x^2"))
    with pytest.raises(UserError, match=r"files\[0\]\.form: one of PRelu nodes, .*'x\^2'"):
        rebuild(record, None, None)


def test_ranges_that_are_not_there_are_named(record):
    """A recipe whose ranges the sidecar does not hold."""
    changed(record, lambda d: d["files"][1]["recipe"].update(calibration="Entropy"))
    with pytest.raises(UserError, match=r"ranges\.entropy: a value expected"):
        rebuild(record, None, None)
