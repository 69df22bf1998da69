"""Golden faces: does this file on this machine still give what it must?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kiosk.errors import ModelError
from kiosk.types import Embedding
from kiosk.vision.embed import Embedder
from kiosk.vision.manifest import ModelEntry, shipped_models_dir
from kiosk.vision.picture import load_picture
from kiosk.vision.session import Session

_LEAST_COSINE = 0.999


def check_canary(embedder: Embedder, folder: Path) -> float:
    """The least cosine between golden embeddings and the model's; ModelError below 0.999.

    The folder holds crops as PNG and `SPACE.json`, crop names to embeddings.
    """
    path = folder / f"{embedder.space}.json"
    if not path.is_file():
        raise ModelError(f"golden embeddings expected at {path}, nothing is there")
    worst = 1.0
    for name, values in json.loads(path.read_text(encoding="utf-8")).items():
        golden = Embedding.of(np.array(values), embedder.space)
        worst = min(worst, golden.similarity(embedder.embed(load_picture(folder / name))))
    if worst < _LEAST_COSINE:
        raise ModelError(
            f"model {embedder.id}: cosine of at least {_LEAST_COSINE} to the golden faces expected,"
            f" got {worst:.4f}",
            hint="this file or this machine's onnxruntime computes something else",
        )
    return worst


def check_entry(entry: ModelEntry) -> str:
    """Verify a file's hash, load it, and run its canary if golden faces are there; in words."""
    session = Session(entry, 1)
    if entry.kind == "detector":
        return "hash as pinned, loads"
    embedder = Embedder(entry, session)
    folder = shipped_models_dir() / "golden"
    if not (folder / f"{entry.space}.json").is_file():
        return "hash as pinned, loads; no golden faces for its space"
    return f"hash as pinned, golden faces at cosine {check_canary(embedder, folder):.6f}"
