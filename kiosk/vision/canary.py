"""Golden faces: does this file on this machine still give what it must?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kiosk.errors import KioskError, ModelError
from kiosk.types import Embedding, Pixels
from kiosk.vision.embed import Embedder
from kiosk.vision.manifest import ModelEntry, Precision, precision_of, shipped_models_dir
from kiosk.vision.picture import load_picture
from kiosk.vision.session import Session


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


def golden_faces(space: str, folder: Path) -> tuple[GoldenFace, ...]:
    """The golden faces of a space: crops as PNG and `SPACE.json`, crop names to embeddings.

    Empty when the folder has none for the space; ModelError when they cannot be read.
    """
    path = folder / f"{space}.json"
    if not path.is_file():
        return ()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        faces = tuple(
            GoldenFace(name, load_picture(folder / name), Embedding.of(np.array(values), space))
            for name, values in document.items()
        )
    except (OSError, ValueError, TypeError, AttributeError, KioskError) as error:
        raise ModelError(
            f"golden faces expected at {path}, they cannot be read: {error}", hint="reinstall"
        ) from error
    if not faces:
        raise ModelError(f"golden faces expected at {path}, none is in it", hint="reinstall")
    return faces


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

    Empty when nobody brought any; ModelError when they cannot be read.
    """
    for folder, space in dict.fromkeys(
        (folder, entry.space)
        for entry in entries
        for folder in (shipped_models_dir() / "golden", entry.path.parent / "golden")
    ):
        faces = golden_faces(space, folder)
        if faces:
            return faces
    return ()


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
