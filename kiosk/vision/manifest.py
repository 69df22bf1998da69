"""`manifest.toml`: which model files exist, what they are, and the hash that each must have."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kiosk.config import Settings
from kiosk.errors import ModelError, UnknownModelError
from kiosk.wire.f2 import MAX_DIM, MIN_DIM
from kiosk.wire.jsontext import quoted
from kiosk.wire.message import SPACE, SPACE_EXPECTED

OWN_MODELS = "models"
"""The folder in the state folder that `kiosk models add` fills and no deploy touches."""

Kind = Literal["embedder", "detector"]
Precision = Literal["fp32", "int8"]


def precision_of(model_id: str) -> Precision:
    """What a file computes in, by its id, which must say so."""
    return "int8" if "int8" in model_id else "fp32"


class InputSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What goes in: `(pixel - mean) * scale`, pixel in 0..255; `batch` 0 is free."""

    layout: Literal["NCHW", "NHWC"]
    channels: Literal["RGB", "BGR"]
    width: Annotated[int, Meta(ge=16, le=1024)]
    height: Annotated[int, Meta(ge=16, le=1024)]
    mean: float
    scale: float
    batch: Annotated[int, Meta(ge=0, le=64)] = 1


class _Listed(Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[model]]` as it stands in the file; embedders need the last block, detectors not."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*(fp32|int8)[a-z0-9.-]*$")]
    kind: Kind
    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    licence: str
    source: str
    input: InputSpec
    size: Annotated[int, Meta(ge=0)] = 0
    shipped: bool = False
    purpose: str = ""
    output: str = ""
    dim: Annotated[int, Meta(ge=0, le=1024)] = 0
    space: str = ""
    golden: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    alignment: str = ""
    threshold: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None
    threshold_note: str = ""
    usable: bool = True


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model file. `size` 0 is unknown; `space` names weights and alignment together.

    One that is not `usable` has no threshold yet: it embeds, and decides nothing. `golden` is the
    hash that `golden/SPACE.json` beside the file must have, "" where it is not pinned.
    """

    id: str
    kind: Kind
    path: Path
    sha256: str
    size: int
    licence: str
    source: str
    shipped: bool
    purpose: str
    input: InputSpec
    output: str
    dim: int
    space: str
    golden: str
    alignment: str
    threshold: float
    threshold_note: str
    usable: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """All known models, the shipped ones first.

    `aside` says what of the state folder is left out, and why: whoever reads it must tell.
    """

    entries: tuple[ModelEntry, ...]
    aside: tuple[str, ...] = ()

    def get(self, model_id: str, kind: Kind) -> ModelEntry:
        """The entry of that id and kind; ModelError naming what there is instead."""
        known = {entry.id: entry for entry in self.entries if entry.kind == kind}
        if model_id in known:
            return known[model_id]
        near = difflib.get_close_matches(model_id, known, n=1)
        aside = "".join(f"; left out: {why}" for why in self.aside)
        raise UnknownModelError(
            f"{kind} model {model_id!r} is in no manifest, known: {', '.join(known)}{aside}",
            hint=f"did you mean {near[0]}?" if near else "`kiosk models list` shows all",
        )

    def to_match(self, model_id: str) -> ModelEntry:
        """The embedder of that id; ModelError also while it has no threshold."""
        entry = self.get(model_id, "embedder")
        if not entry.usable:
            raise ModelError(
                f"model {model_id}: a threshold expected before it says who is who, it has none",
                hint=set_threshold_command(model_id),
            )
        return entry


def set_threshold_command(model_id: str, place: str = "--config FILE") -> str:
    """What to run so that a model of one's own may be used; `place` is the option it lies by."""
    return (
        f"kiosk lab roc {model_id} --folders DIR --far 1e-4 --set-threshold {model_id}"
        f" {place} sets it, DIR with a folder of pictures for each person"
    )


def shipped_models_dir() -> Path:
    """Where the shipped weights are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def load_manifest(
    extra_dirs: Sequence[str | Path] = (), state_dir: str | Path | None = None
) -> Manifest:
    """Read the shipped manifest, those of the user's own folders, and that of the state folder.

    Raises ModelError naming the file for a missing or malformed manifest and for an id used twice;
    the state folder alone need not have one. What does not check there is set `aside`: a deploy
    may bring an id that was taken, and a kiosk that uses other models goes on.
    """
    entries: dict[str, ModelEntry] = {}
    for folder in (shipped_models_dir(), *map(Path, extra_dirs)):
        for entry in read_folder(folder):
            _enter(entry, entries, folder)
    aside: list[str] = []
    for folder in () if state_dir is None else _own(Path(state_dir)):
        try:
            added = read_folder(folder)
        except ModelError as error:
            aside.append(str(error))
            continue
        for entry in added:
            try:
                _enter(entry, entries, folder)
            except ModelError as error:
                aside.append(f"{error}: `kiosk models remove {entry.id}`, then add it again")
    return Manifest(tuple(entries.values()), tuple(aside))


def _enter(entry: ModelEntry, entries: dict[str, ModelEntry], folder: Path) -> None:
    """Add an entry; ModelError when its id is taken or its space is another model's."""
    if entry.id in entries:
        raise ModelError(
            f"{folder / 'manifest.toml'}: id {entry.id!r} is taken by {entries[entry.id].path}",
            hint="give your own model another id",
        )
    _check_space(entry, entries.values(), folder)
    entries[entry.id] = entry


def manifest_of(settings: Settings) -> Manifest:
    """All models that a configuration knows: shipped, in its folders, and added to its state."""
    return load_manifest(settings.models.extra_dirs, settings.paths.state_dir)


def _own(state_dir: Path) -> tuple[Path, ...]:
    folder = state_dir / OWN_MODELS
    try:
        (folder / "manifest.toml").stat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ModelError(
            f"a readable manifest expected at {folder / 'manifest.toml'}, got: {error.strerror}",
            hint="run as the kiosk's own user",
        ) from error
    return (folder,)


def _check_space(entry: ModelEntry, others: Iterable[ModelEntry], folder: Path) -> None:
    """Files of one space are interchangeable, so they agree in dimension and alignment."""
    for other in others:
        same_space = entry.space != "" and entry.space == other.space
        if same_space and (entry.dim, entry.alignment) != (other.dim, other.alignment):
            raise ModelError(
                f"{folder / 'manifest.toml'}: {entry.id} has {entry.dim} values aligned as"
                f" {entry.alignment}, but {other.id} of the same space {entry.space!r} has"
                f" {other.dim} aligned as {other.alignment}",
                hint="give your own model another space",
            )


def read_folder(folder: Path) -> list[ModelEntry]:
    """The entries of one folder's manifest; ModelError naming file and place for a mistake."""
    path = folder / "manifest.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"a readable manifest expected at {path}, got: {error}") from error
    models = document.get("model")
    if set(document) != {"model"} or not isinstance(models, list):
        raise ModelError(f"{path}: only [[model]] tables expected, got {', '.join(document)}")
    return [
        entry_from(item, folder, f"{path}: model {number}") for number, item in enumerate(models)
    ]


def _check_sendable(listed: _Listed, where: str) -> None:
    """What the wire cannot carry must fail here, not when the first person is recognised."""
    if not SPACE.fullmatch(listed.space):
        raise ModelError(f"{where}: space: expected {SPACE_EXPECTED}, got {quoted(listed.space)}")
    if not MIN_DIM <= listed.dim <= MAX_DIM:
        raise ModelError(
            f"{where}: dim: expected {MIN_DIM}..{MAX_DIM} values of an embedder, got {listed.dim}"
        )


def entry_from(item: Any, folder: Path, where: str) -> ModelEntry:
    """The entry of one `[[model]]` table; ModelError that begins with `where`."""
    try:
        listed = msgspec.convert(item, _Listed)
    except msgspec.ValidationError as error:
        raise ModelError(f"{where}: {error}") from error
    if listed.kind == "embedder":
        missing = [name for name in ("dim", "space", "alignment") if not getattr(listed, name)]
        # Without one, the neutral value of a detector would match nobody, and say nothing.
        missing += ["threshold"] if listed.usable and listed.threshold is None else []
        if missing:
            raise ModelError(f"{where}: embedder {listed.id} needs {', '.join(missing)}")
        _check_sendable(listed, where)
    fields = {name: getattr(listed, name) for name in listed.__struct_fields__ if name != "file"}
    if listed.threshold is None:
        fields["threshold"] = 1.0
    return ModelEntry(path=folder / listed.file, **fields)
