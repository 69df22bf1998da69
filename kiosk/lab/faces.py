"""Faces for calibration and validation: photographs or aligned crops of a folder, by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kiosk.errors import PictureError, UserError
from kiosk.lab.progress import track
from kiosk.types import Pixels
from kiosk.vision.align import SIDE, align
from kiosk.vision.blazeface import BlazeFace
from kiosk.vision.manifest import load_manifest
from kiosk.vision.picture import load_picture
from kiosk.vision.session import Session

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".pgm", ".ppm", ".pnm"}
_DETECTOR = "blazeface-short-fp32"
_LEAST_SCORE = 0.7

Crops = Callable[[Path], Pixels]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One aligned face: `sha256` is that of the picture file, `pixels` uint8 BGR (112, 112, 3).

    `person` is as `person_of` says.
    """

    path: Path
    sha256: str
    pixels: Pixels
    person: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that gave no face, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class FaceSet:
    """The faces of a folder, in the order of their paths, and the files that gave none."""

    folder: Path
    faces: tuple[Face, ...]
    skipped: tuple[Skipped, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted hashes of the files: the same pictures give the same digest."""
        return digest_of_all(face.sha256 for face in self.faces)

    def overlap(self, other: FaceSet) -> list[Face]:
        """The faces whose very file is in the other set too."""
        known = {face.sha256 for face in other.faces}
        return [face for face in self.faces if face.sha256 in known]


def crop_reader(*, aligned: bool) -> Crops:
    """A function from a picture file to its largest face, aligned as the daemon aligns.

    With `aligned` the file is such a crop already, 112 x 112. Raises PictureError.
    """
    if aligned:
        return _aligned_crop
    entry = load_manifest().get(_DETECTOR, "detector")
    detector = BlazeFace(entry, Session(entry, 1), _LEAST_SCORE)

    def read(path: Path) -> Pixels:
        pixels = load_picture(path)
        found = detector.detect(pixels)
        if not found:
            raise PictureError(f"{path}: a face expected, none found")
        largest = max(found, key=lambda detection: detection.box[2] * detection.box[3])
        return align(pixels, largest.landmarks)

    return read


def _aligned_crop(path: Path) -> Pixels:
    pixels = load_picture(path)
    if pixels.shape != (SIDE, SIDE, 3):
        height, width = pixels.shape[:2]
        raise PictureError(
            f"{path}: an aligned crop of {SIDE}x{SIDE} expected, got {width}x{height}",
            hint="leave --aligned out for photographs",
        )
    return pixels


def read_folder(folder: Path, *, aligned: bool, samples: int | None = None) -> FaceSet:
    """The faces of every picture below a folder; at most `samples`, spread evenly over it.

    Raises UserError for a folder that is missing or has no picture or no face in it; single files
    that give no face are skipped, named and counted.
    """
    return read_files(folder, _spread(pictures_of(folder), samples), aligned=aligned)


def pictures_of(folder: Path) -> list[Path]:
    """The picture files below a folder, sorted; UserError when it is missing or has none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: a folder of pictures expected, there is none")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise UserError(
            f"{folder}: pictures expected ({', '.join(sorted(SUFFIXES))}), the folder has none"
        )
    return paths


def read_files(folder: Path, paths: Iterable[Path], *, aligned: bool) -> FaceSet:
    """The faces of these files; `folder` names the set."""
    read = crop_reader(aligned=aligned)
    faces: list[Face] = []
    skipped: list[Skipped] = []
    for path in track(list(paths), f"reading {folder.name}"):
        try:
            pixels = read(path)
        except PictureError as error:
            skipped.append(Skipped(path, error.message))
            continue
        faces.append(Face(path, digest_of(path), pixels, person_of(folder, path)))
    if not faces:
        first = f", the first: {skipped[0].reason}" if skipped else ""
        raise UserError(
            f"{folder}: faces expected, none in {len(skipped)} pictures{first}",
            hint="--aligned takes 112x112 crops as they are" if not aligned else "",
        )
    return FaceSet(folder, tuple(faces), tuple(skipped))


def person_of(folder: Path, path: Path) -> str:
    """Who is on a picture: the first folder below the set's own, "" for a picture in none."""
    below = path.relative_to(folder).parts
    return below[0] if len(below) > 1 else ""


def digest_of(path: Path) -> str:
    """SHA-256 of a picture file; UserError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: a picture expected, {error.strerror}") from error


def digest_of_all(hashes: Iterable[str]) -> str:
    """SHA-256 over the sorted hashes of files, a line for each."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def _spread(paths: list[Path], samples: int | None) -> list[Path]:
    if samples is None or samples >= len(paths):
        return paths
    return [paths[i * len(paths) // samples] for i in range(samples)]
