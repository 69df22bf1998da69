"""The files of a build, made again from its record, without a face."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from kiosk.errors import UserError
from kiosk.lab.assemble import assemble
from kiosk.lab.files import blank_of, write_model
from kiosk.lab.prepare import base_of, float_forms
from kiosk.lab.progress import say
from kiosk.lab.quantise import to_bytes
from kiosk.lab.record import Record, Remake, read_record
from kiosk.lab.subject import read_subject
from kiosk.vision.manifest import load_manifest


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One file made again: the hash that it was to have, and the one that it has."""

    file: str
    expected: str
    sha256: str

    @property
    def same(self) -> bool:
        """Whether it is the same to the last bit."""
        return self.expected == self.sha256


def rebuild(record_path: Path, source: Path | None, out: Path | None) -> list[Rebuilt]:
    """Make every file of the record again, and write them to `out` if given.

    The FP32 source is looked for beside the record and among the manifest's files, by its hash.
    Raises UserError when it is not there, ModelError for a file that does not run here.
    """
    record = read_record(record_path)
    subject = read_subject(_source(record, record_path.parent, source))
    base, forms = base_of(subject), float_forms(subject)
    made = []
    for remake in record.remakes:
        say(f"making {remake.file}")
        model = _graph(record, remake, base, forms)
        data = to_bytes(model)
        made.append(Rebuilt(remake.file, remake.sha256, hashlib.sha256(data).hexdigest()))
        if out is not None:
            write_model(out / remake.file, model, [blank_of(model)])
    return made


def _graph(
    record: Record, remake: Remake, base: onnx.ModelProto, forms: dict[str, onnx.ModelProto]
) -> onnx.ModelProto:
    if remake.plan is None:
        if remake.float_form not in forms:
            known = ", ".join(forms)
            raise UserError(f"{remake.file}: one of the forms {known} expected, got another")
        return forms[remake.float_form]
    with tempfile.TemporaryDirectory() as scratch:
        ranges = record.write_ranges(remake.plan, Path(scratch))
        return assemble(base, record.factors, remake.plan, ranges).shipped


def _source(record: Record, folder: Path, given: Path | None) -> Path:
    known = [entry.path for entry in load_manifest().entries if entry.shipped]
    candidates = [given] if given is not None else [folder / record.source, *known]
    for path in candidates:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == record.source_sha256:
            return path
    raise UserError(
        f"{record.source} with SHA-256 {record.source_sha256} expected, not found"
        f" ({', '.join(str(path) for path in candidates[:2])} looked at)",
        hint="name it with --source",
    )
