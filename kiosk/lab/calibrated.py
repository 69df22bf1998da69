"""Which pictures a model was calibrated with, so that it is never judged on one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kiosk.errors import UserError
from kiosk.lab.calibrate import Method
from kiosk.lab.faces import digest_of, pictures_of
from kiosk.lab.written import read_yaml

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAMED = 5
_METHODS: dict[str, Method] = {m: m for m in get_args(Method)}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration has seen: the SHA-256 of each picture; people and method where recorded."""

    hashes: frozenset[str]
    people: int | None = None
    method: Method | None = None


def of_record(path: Path, int8: Path, sha256: str) -> Calibrated:
    """What a quantization_config.yaml says of the calibration of this very INT8 file.

    `calibration.people` counts people, `recipe.calibration` of the file is its method; without
    one it is `calibration.method`. Raises UserError, by its key, for a value that is none, and
    for the record of another file.
    """
    refuse_other_file(path, int8, sha256)
    hashes, record = hashes_of_record(path), read_yaml(path)
    section = record["calibration"]
    people = None
    if "people" in section and section["people"].value is not None:
        people = section["people"].count()
    listed = next(
        file
        for file in record["files"].items()
        if isinstance(file.value, dict) and file.value.get("sha256") == sha256
    )
    method = None
    if "recipe" in listed:
        method = listed["recipe"]["calibration"]
    elif "method" in section:
        method = section["method"]
    return Calibrated(hashes, people, None if method is None else _METHODS[method.one_of(_METHODS)])


def hashes_of_folder(folder: Path) -> frozenset[str]:
    """The SHA-256 of every picture file below a folder."""
    return frozenset(digest_of(path) for path in pictures_of(folder))


def hashes_of_record(path: Path) -> frozenset[str]:
    """The SHA-256 of every calibration picture that a quantization_config.yaml lists.

    `calibration.files` is the list, `calibration.digest` the SHA-256 over the sorted list, one a
    line, as FaceSet.digest. Raises UserError for a record without either, or with another digest.
    """
    document = read_yaml(path).value
    section = document.get("calibration") if isinstance(document, dict) else None
    files = section.get("files") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(files, list) or not files:
        raise UserError(
            f"{path}: calibration.files expected, the SHA-256 of each picture; it has none",
            hint="give the calibration pictures themselves with --calibration DIR",
        )
    hashes = [str(item) for item in files]
    odd = next((item for item in hashes if not _SHA256.fullmatch(item)), None)
    if odd is not None:
        raise UserError(f"{path}: calibration.files: a SHA-256 expected, got {odd[:80]!r}")
    digest = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    if "digest" not in section:
        raise UserError(
            f"{path}: calibration.digest expected, it has none",
            hint="take the record that the build wrote, unchanged",
        )
    if section["digest"] != digest:
        raise UserError(
            f"{path}: calibration.digest {digest} expected of the files listed,"
            f" got {section['digest']}",
            hint="the record was changed by hand, or is not whole",
        )
    return frozenset(hashes)


def refuse_other_file(path: Path, int8: Path, sha256: str) -> None:
    """UserError unless the record lists this very INT8 file: its calibration is another file's."""
    document = read_yaml(path).value
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, list) or not files:
        raise UserError(
            f"{path}: files expected, the name and SHA-256 of each model; it has none",
            hint="take the record that the build wrote, unchanged",
        )
    known = {str(item.get("sha256")) for item in files if isinstance(item, dict)}
    if sha256 not in known:
        raise UserError(
            f"{path}: the record of {int8} (SHA-256 {sha256}) expected, it lists"
            f" {len(known)} other files",
            hint="give the record that lies beside that file",
        )


def refuse_overlap(images: Sequence[Path], calibrated: frozenset[str], source: Path) -> None:
    """UserError that names the pictures which are, byte for byte, among the calibration set's."""
    both = [path for path in images if digest_of(path) in calibrated]
    if not both:
        return
    names = ", ".join(str(path) for path in both[:_NAMED])
    more = f" and {len(both) - _NAMED} more" if len(both) > _NAMED else ""
    raise UserError(
        f"pictures that calibration has not seen expected, {len(both)} of {len(images)} are"
        f" in {source}: {names}{more}",
        hint="a model is judged on pictures it was not fitted to: hold some out",
    )
