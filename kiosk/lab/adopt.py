"""A model of one's own: read, checked, run on the golden faces, and put into the state folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import onnx
from onnx.checker import ValidationError

from kiosk.errors import EmbeddingError, GivenModelError, ModelError, UserError
from kiosk.lab.subject import Subject, read_subject
from kiosk.lab.trial import try_out
from kiosk.vault import write_atomic
from kiosk.vision.canary import Agreement, GoldenFace, agreement, found_golden
from kiosk.vision.embed import Embedder
from kiosk.vision.manifest import (
    InputSpec,
    Manifest,
    ModelEntry,
    precision_of,
    shipped_models_dir,
)
from kiosk.vision.own_models import MODE, Listing, OwnModels
from kiosk.vision.picture import load_picture
from kiosk.vision.session import Session
from kiosk.wire.f2 import MAX_DIM, MIN_DIM

_THREADS = 2


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller says of a file; None is for us to find out."""

    id: str
    alignment: str
    space: str | None = None
    licence: str | None = None
    source: str | None = None
    channels: Literal["RGB", "BGR"] | None = None
    mean: float | None = None
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was added. `is_new` is False when it was there already.

    `agreement` is to the golden faces of a space that had some; None: they were recorded now.
    """

    entry: ModelEntry
    opset: int
    is_new: bool
    agreement: Agreement | None
    remark: str = ""
    """What the graph shows of its feeding, where nobody told it."""


def adopt(path: Path, wish: Wish, own: OwnModels, manifest: Manifest) -> Adopted:
    """Add a file to the state folder; `manifest` is all that the configuration knows.

    Raises ModelError naming the file for one that is no embedder, UserError for an id, a space or
    a feeding that does not go with it. Nothing is written unless all is well.
    """
    _check_texts(path, wish)
    subject = _read(path, manifest)
    old = _holder_of(wish, subject, own, manifest)
    if old is not None:
        _check_same(wish, old)
        listing, entry = None, old
    else:
        listing = _listing(wish, subject, manifest)
        entry = own.entry(listing)
    kin = [e for e in manifest.entries if e.space == entry.space]
    _check_alike(entry, kin)
    try_out(path, entry)
    held = _held_against(_loaded(replace(entry, path=path)), entry, kin)
    own.prepare()
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ModelError(f"{path}: a file that stays as it is expected, it was changed meanwhile")
    pin = next((other.golden for other in own.entries() if other.space == entry.space), "")
    with _all_or_nothing(own.folder):
        if not entry.path.is_file() or entry.path.read_bytes() != data:
            write_atomic(entry.path, data, MODE)
        if held.fresh:
            pin = _record(own.golden, entry.space, held.faces)
        if listing is not None:
            own.put(listing)
        if pin:
            own.pin_golden(entry.space, pin)
    alone = old is None and not kin and wish.mean is None and wish.scale is None
    remark = subject.remark if alone else ""
    return Adopted(entry, subject.opset, old is None, held.agreement, remark)


@contextlib.contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """What is new in a folder goes again when the block fails: the disk may be full half-way."""
    before = set(folder.rglob("*"))
    try:
        yield
    except BaseException:
        for path in set(folder.rglob("*")) - before:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _check_texts(path: Path, wish: Wish) -> None:
    """UserError for what no manifest can hold: bytes of a command line that are not UTF-8."""
    texts = {"FILE": path.name, "--licence": wish.licence or "", "--source": wish.source or ""}
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{name}: text in UTF-8 expected, got {text!a}",
                hint="rename the file" if name == "FILE" else "",
            ) from error


def _read(path: Path, manifest: Manifest) -> Subject:
    subject = read_subject(path, manifest=manifest, tell=False)
    try:
        onnx.checker.check_model(subject.proto)
    except ValidationError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise GivenModelError(
            f"{path}: an ONNX file that onnx {onnx.__version__} accepts expected, got: {reason}",
            hint="export it again",
        ) from error
    inner = [
        node
        for node in _nodes(subject.proto)
        if any(a.HasField("g") or a.graphs for a in node.attribute)
    ]
    if inner:
        raise ModelError(
            f"{path}: a graph without loops and branches expected, {inner[0].op_type}"
            f" {inner[0].name or 'without a name'} has a graph in it",
            hint="export the plain embedder: each face takes the same steps",
        )
    if not MIN_DIM <= subject.dim <= MAX_DIM:
        raise GivenModelError(
            f"{path}: an embedding of {MIN_DIM} to {MAX_DIM} values expected, which is what a"
            f" message carries, got {subject.dim}"
        )
    return subject


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _holder_of(
    wish: Wish, subject: Subject, own: OwnModels, manifest: Manifest
) -> ModelEntry | None:
    """The entry under the wished id when it is this very file; UserError when it is another."""
    added = next((entry for entry in own.entries() if entry.id == wish.id), None)
    taken = added or next((entry for entry in manifest.entries if entry.id == wish.id), None)
    if taken is None:
        return None
    if added is None or added.sha256 != subject.sha256:
        raise UserError(
            f"--id: one that is free expected, {wish.id} is {taken.path} (SHA-256"
            f" {taken.sha256[:12]}…), and {subject.path} is another file ({subject.sha256[:12]}…)",
            hint="take another id"
            + (f", or first `kiosk models remove {wish.id}`" if added is not None else ""),
        )
    return added


def _check_same(wish: Wish, old: ModelEntry) -> None:
    """UserError when a file that is there already is described otherwise."""
    given = {
        "space": (wish.space, old.space),
        "licence": (wish.licence, old.licence),
        "source": (wish.source, old.source),
        "channels": (wish.channels, old.input.channels),
        "mean": (wish.mean, old.input.mean),
        "scale": (wish.scale, old.input.scale),
        "alignment": (wish.alignment, old.alignment),
    }
    for name, (wanted, got) in given.items():
        if wanted is not None and wanted != got:
            raise UserError(
                f"--{name}: {got} expected, as {old.id} was added, got {wanted}",
                hint=f"to change it: `kiosk models remove {old.id}`, then add it again",
            )


def _listing(wish: Wish, subject: Subject, manifest: Manifest) -> Listing:
    wants_int8 = precision_of(wish.id) == "int8"
    if wants_int8 != subject.is_quantised:
        is_, name = ("quantised", "int8") if subject.is_quantised else ("not quantised", "fp32")
        raise UserError(
            f"--id: an id that ends in -{name} expected for {subject.path}, which is {is_},"
            f" got {wish.id}"
        )
    stem = wish.id.removesuffix("-fp32").removesuffix("-int8")
    space = wish.space or subject.space or f"{stem}-{subject.dim}-4pt"
    spec = _fed(wish, subject, [e for e in manifest.entries if e.space == space])
    return {
        "id": wish.id,
        "kind": "embedder",
        "file": f"{wish.id}.onnx",
        "sha256": subject.sha256,
        "size": subject.path.stat().st_size,
        "licence": wish.licence or "not told",
        "source": wish.source or subject.path.name,
        "input": msgspec.to_builtins(spec),
        "output": subject.output_name,
        "dim": subject.dim,
        "space": space,
        "alignment": wish.alignment,
        "usable": False,
    }


def _fed(wish: Wish, subject: Subject, kin: Sequence[ModelEntry]) -> InputSpec:
    """How the file is fed: as its manifest, the caller, or the others of its space say."""
    given = {"channels": wish.channels, "mean": wish.mean, "scale": wish.scale}
    given = {name: value for name, value in given.items() if value is not None}
    if subject.space is not None:
        for name, value in given.items():
            known = getattr(subject.input, name)
            if value != known:
                raise UserError(
                    f"--{name}: {known} expected, as the manifest says of this very file,"
                    f" got {value}"
                )
        return subject.input
    numbers = [float(v) for v in (wish.mean, wish.scale) if v is not None]
    if wish.scale == 0 or not all(map(math.isfinite, numbers)):
        raise UserError("--mean, --scale: finite numbers and a scale other than 0 expected")
    base = kin[0].input if kin else subject.input
    fed = {"channels": base.channels, "mean": base.mean, "scale": base.scale}
    return msgspec.structs.replace(subject.input, **{**fed, **given})


def _check_alike(entry: ModelEntry, others: Sequence[ModelEntry]) -> None:
    for other in others:
        if (other.dim, other.alignment) != (entry.dim, entry.alignment):
            raise UserError(
                f"--space: {entry.space} holds {other.id} with {other.dim} values aligned as"
                f" {other.alignment}, {entry.id} has {entry.dim} aligned as {entry.alignment}",
                hint="give it a space of its own",
            )


def _loaded(entry: ModelEntry) -> Embedder:
    """The file as the daemon would load it, once run."""
    try:
        embedder = Embedder(entry, Session(entry, _THREADS))
        _golden_by(embedder)
    except ModelError as error:
        raise GivenModelError(error.message, hint=error.hint) from error
    return embedder


def _golden_by(embedder: Embedder) -> tuple[GoldenFace, ...]:
    """The shipped golden crops as this model embeds them here."""
    crops = sorted((shipped_models_dir() / "golden").glob("*.png"))
    faces = []
    for path in crops:
        crop = load_picture(path)
        try:
            faces.append(GoldenFace(path.name, crop, embedder.embed(crop)))
        except EmbeddingError as error:
            raise GivenModelError(
                f"model {embedder.id}: one embedding of each golden face expected,"
                f" {path.name} gave: {error}",
                hint="is it fed rightly? --channels, --mean and --scale say how",
            ) from error
    return tuple(faces)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """How near the file came to `faces`, None where they are its own; `fresh`: to be recorded."""

    agreement: Agreement | None
    faces: tuple[GoldenFace, ...]
    fresh: bool


def _held_against(embedder: Embedder, entry: ModelEntry, kin: Sequence[ModelEntry]) -> _Held:
    """Hold a file against its space; `kin` are the entries of it that are there already."""
    others = [other for other in kin if other.id != entry.id]
    fp32 = [e for e in others if precision_of(e.id) == "fp32" and e.path.is_file()]
    if others and precision_of(entry.id) == "int8" and not fp32:
        raise UserError(
            f"--space: the FP32 file of {entry.space} expected beside an INT8 one, there is none",
            hint="add it first, or give the INT8 file a space of its own",
        )
    # Without kin what lies there is left over from a cut, and proves nothing.
    faces = found_golden(kin) if kin else ()
    if faces:
        return _Held(_agreeing(embedder, entry, faces), faces, fresh=False)
    if fp32:
        faces = _golden_by(_loaded(fp32[0]))
        return _Held(_agreeing(embedder, entry, faces), faces, fresh=True)
    if any(other.sha256 != entry.sha256 for other in others):
        raise UserError(
            f"--space: golden faces or a file of {entry.space} to hold {entry.id} against expected,"
            " there is neither",
            hint="give it a space of its own, or bring the other file first",
        )
    return _Held(None, _golden_by(embedder), fresh=True)


def _agreeing(embedder: Embedder, entry: ModelEntry, faces: tuple[GoldenFace, ...]) -> Agreement:
    try:
        return agreement(embedder, faces)
    except ModelError as error:
        raise UserError(
            f"--space: a file that agrees with {entry.space} expected, {error.message}",
            hint="other weights, or INT8 that strays, need a space of their own: --space NAME",
        ) from error


def _record(folder: Path, space: str, faces: tuple[GoldenFace, ...]) -> str:
    """Write the golden faces of a space; the SHA-256 to pin them with."""
    for face in faces:
        data = (shipped_models_dir() / "golden" / face.name).read_bytes()
        write_atomic(folder / face.name, data, MODE)
    vectors = {f.name: [round(float(v), 7) for v in f.embedding.vector] for f in faces}
    data = json.dumps(vectors).encode()
    write_atomic(folder / f"{space}.json", data, MODE)
    return hashlib.sha256(data).hexdigest()
