"""Golden faces: does this file on this machine still give what it must?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kiosk.errors import KioskError, ModelError
from kiosk.types import Embedding, Pixels
from kiosk.vault import read_plain
from kiosk.vision.embed import Embedder
from kiosk.vision.manifest import ModelEntry, Precision, precision_of, shipped_models_dir
from kiosk.vision.picture import load_picture
from kiosk.vision.session import Session

LEAST_FACES = 3
"""One face alone may come out right by luck, or by a file that gives the same for all."""
# A hundred faces of the largest embeddings.
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Limit:
    """The least cosine to FP32 that every golden face, and their mean, must reach."""

    least: float
    mean: float


LIMITS: dict[Precision, Limit] = {
    # Two forms of the same FP32 function differ by rounding alone, some 1e-6.
    "fp32": Limit(0.999, 0.999),
    # The least that the gate lets through, and a mean below its 0.995 by what three faces scatter.
    "int8": Limit(0.98, 0.99),
}


class Embeds(Protocol):
    """Whatever makes embeddings of one space under the name of a file."""

    id: str
    space: str

    def embed(self, aligned: Pixels) -> Embedding:
        """The embedding of one aligned crop."""
        ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cosines between golden embeddings and a model's."""

    least: float
    mean: float


@dataclass(frozen=True, slots=True, eq=False)
class GoldenFace:
    """One crop and the embedding that FP32 gave for it."""

    name: str
    crop: Pixels
    embedding: Embedding


def golden_faces(
    space: str, folder: Path, pinned: Set[str] = frozenset()
) -> tuple[GoldenFace, ...]:
    """The golden faces of a space: crops as PNG and `SPACE.json`, crop names to embeddings.

    Empty when the folder has none for the space; ModelError when they cannot be read, are fewer
    than LEAST_FACES, or have a hash that is not among those `pinned`.
    """
    path = folder / f"{space}.json"
    try:
        data = read_plain(path, _MAX_BYTES, follow=True)
        _check_pinned(path, data, pinned)
        faces = tuple(
            GoldenFace(name, load_picture(folder / name), Embedding.of(np.array(values), space))
            for name, values in json.loads(data).items()
        )
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, AttributeError, RecursionError, KioskError) as error:
        raise ModelError(
            f"golden faces expected at {path}, they cannot be read: {error}", hint="reinstall"
        ) from error
    if len(faces) < LEAST_FACES:
        raise ModelError(
            f"golden faces expected at {path}, {LEAST_FACES} at least, got {len(faces)}",
            hint="reinstall",
        )
    return faces


def _check_pinned(path: Path, data: bytes, pinned: Set[str]) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if pinned and digest not in pinned:
        wanted = ", ".join(sorted(pinned))
        raise ModelError(f"{path.name} has SHA-256 {wanted} by the manifest, got {digest}")


def check_face(embedder: Embeds, face: GoldenFace) -> float:
    """The cosine of one golden face to a model's; ModelError below its precision's limit."""
    cosine = face.embedding.similarity(embedder.embed(face.crop))
    least = LIMITS[precision_of(embedder.id)].least
    if not cosine >= least:
        raise ModelError(
            f"model {embedder.id}: cosine of at least {least} to golden face {face.name}"
            f" expected, got {cosine:.4f}"
        )
    return cosine


def agreement(embedder: Embeds, faces: tuple[GoldenFace, ...]) -> Agreement:
    """How near a model comes to the golden faces; ModelError below its precision's limits."""
    cosines = [face.embedding.similarity(embedder.embed(face.crop)) for face in faces]
    found = Agreement(min(cosines), sum(cosines) / len(cosines))
    limit = LIMITS[precision_of(embedder.id)]
    for what, got, least in (
        ("cosine", found.least, limit.least),
        ("mean cosine", found.mean, limit.mean),
    ):
        if not got >= least:
            raise ModelError(
                f"model {embedder.id}: {what} of at least {least} to the golden faces expected,"
                f" got {got:.4f}",
                hint="this file or this machine's onnxruntime computes something else",
            )
    return found


def check_canary(embedder: Embeds, folder: Path) -> float:
    """The least cosine between golden embeddings and the model's; ModelError below the limit."""
    faces = golden_faces(embedder.space, folder)
    if not faces:
        path = folder / f"{embedder.space}.json"
        raise ModelError(f"golden embeddings expected at {path}, nothing is there")
    return agreement(embedder, faces).least


def golden_for(entries: Iterable[ModelEntry]) -> tuple[GoldenFace, ...]:
    """The golden faces for files of one space: the shipped ones, or those beside one of the files.

    Empty when nobody brought any; ModelError when they cannot be read, are not what the manifest
    beside them pins, or are pinned and not there.
    """
    listed = list(entries)
    faces = found_golden(listed)
    missing = [entry for entry in listed if entry.golden and not faces]
    if missing:
        path = _golden_folder(missing[0]) / f"{missing[0].space}.json"
        raise ModelError(
            f"golden faces expected at {path}, as the manifest says, nothing is there",
            hint="reinstall, or add the model again",
        )
    return faces


def found_golden(entries: Iterable[ModelEntry]) -> tuple[GoldenFace, ...]:
    """The same, and empty also when they are lost."""
    listed = list(entries)
    for folder, space in dict.fromkeys(
        (folder, entry.space)
        for entry in listed
        for folder in (shipped_models_dir() / "golden", _golden_folder(entry))
    ):
        # Each manifest answers for the folder beside it.
        beside = [e for e in listed if e.space == space and _golden_folder(e) == folder]
        faces = golden_faces(space, folder, {e.golden for e in beside if e.golden})
        if faces:
            return faces
    return ()


def _golden_folder(entry: ModelEntry) -> Path:
    return entry.path.parent / "golden"


def check_entry(entry: ModelEntry) -> str:
    """Verify a file's hash, load it, and run its canary if golden faces are there; in words."""
    session = Session(entry, 1)
    if entry.kind == "detector":
        return "hash as pinned, loads"
    faces = golden_for([entry])
    if not faces:
        return "hash as pinned, loads; no golden faces for its space"
    least = agreement(Embedder(entry, session), faces).least
    return f"hash as pinned, golden faces at cosine {least:.6f}"
