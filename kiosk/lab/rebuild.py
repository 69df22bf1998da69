"""The files of a build, made again from its record, without a face."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from kiosk.errors import UserError
from kiosk.lab.assemble import assemble
from kiosk.lab.files import blank_of, write_model
from kiosk.lab.fitting import check_fit
from kiosk.lab.prepare import base_of, float_forms
from kiosk.lab.progress import say
from kiosk.lab.quantise import to_bytes
from kiosk.lab.record import Record, Remake, read_record
from kiosk.lab.subject import read_subject
from kiosk.vision.manifest import Manifest, load_manifest


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One file made again: the hash that it was to have, and the one that it has.

    `beside` is that of the file which lies beside the record, None where there is none.
    """

    file: str
    expected: str
    sha256: str
    beside: str | None = None

    @property
    def same(self) -> bool:
        """Whether it is the same to the last bit, and so is what lies beside the record."""
        return self.expected == self.sha256 and self.beside in {None, self.expected}


def rebuild(
    record_path: Path,
    source: Path | None,
    out: Path | None,
    manifest: Manifest | None = None,
) -> list[Rebuilt]:
    """Make every file of the record again; those of the record's bytes go to `out` if given.

    The FP32 source is looked for by its hash: beside the record, in the current folder, and among
    the manifest's files (the shipped one unless another is given).
    Raises UserError when it is not there, and, before any file is made, for whatever in the
    record or its ranges is no such value or does not fit the source; ModelError for a file that
    does not run here.
    """
    record = read_record(record_path)
    entries = (load_manifest() if manifest is None else manifest).entries
    known = [e.path for e in entries if e.kind == "embedder" and e.path.is_file()]
    subject = read_subject(_source(record, record_path.parent, source, known), manifest=manifest)
    base, forms = base_of(subject), float_forms(subject)
    check_fit(record, base)
    _check_forms(record, forms)
    made = []
    for remake in record.remakes:
        say(f"making {remake.file}")
        model = _graph(record, remake, base, forms)
        data = to_bytes(model)
        digest = hashlib.sha256(data).hexdigest()
        beside = _digest_of(record_path.parent / remake.file)
        made.append(Rebuilt(remake.file, remake.sha256, digest, beside))
        if out is not None and digest == remake.sha256:
            write_model(out / remake.file, model, [blank_of(model)])
    return made


def _digest_of(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _check_forms(record: Record, forms: dict[str, onnx.ModelProto]) -> None:
    for item, remake in zip(record.listed["files"].items(), record.remakes, strict=True):
        if remake.plan is None:
            item["form"].one_of(tuple(forms))


def _graph(
    record: Record, remake: Remake, base: onnx.ModelProto, forms: dict[str, onnx.ModelProto]
) -> onnx.ModelProto:
    if remake.plan is None:
        return forms[str(remake.float_form)]
    with tempfile.TemporaryDirectory() as scratch:
        ranges = record.write_ranges(remake.plan, Path(scratch))
        return assemble(base, record.factors, remake.plan, ranges).shipped


def _source(record: Record, folder: Path, given: Path | None, known: Sequence[Path]) -> Path:
    """The file of the record's hash: the one given, or the first that has it."""
    wanted = record.source_sha256
    if given is not None:
        got = f"it has {_hash(given)}" if given.is_file() else "it is not there"
        if got != f"it has {wanted}":
            raise UserError(
                f"--source: {record.source} with SHA-256 {wanted} expected, got {given}: {got}",
                hint="the very file that was quantised; without --source it is looked for",
            )
        return given
    folders = list(dict.fromkeys((folder.resolve(), Path.cwd())))
    named = [place / record.source for place in folders]
    beside = [path for place in folders for path in sorted(place.glob("*.onnx"))]
    for path in dict.fromkeys((*named, *known, *beside)):
        if path.is_file() and _hash(path) == wanted:
            return path
    raise UserError(
        f"{record.source} with SHA-256 {wanted} expected, not found in"
        f" {', '.join(map(str, folders))} and among the {len(known)} embedders that are known",
        hint="name it with --source, or its kiosk with --config or --state-dir",
    )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
