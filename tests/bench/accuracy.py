"""What 8 bits cost in likeness and in recognition, and how well the pair recognises at all."""

from collections.abc import Iterator, Sequence

import numpy as np

from bench.faces import DATA, halves, orl
from bench.models import REWRITTEN, eyes, int8_ids
from bench.table import Row
from kiosk.types import Pixels
from kiosk.vision.embed import Embedder, open_embedder
from kiosk.vision.manifest import load_manifest
from kiosk.vision.picture import load_picture

FAR = 1e-3


def rows() -> list[Row]:
    """Cosine to FP32 on held-out faces, TAR of each file on ORL."""
    if not DATA.is_dir():
        print("accuracy: ../shared is absent, not measured")
        return []
    manifest = load_manifest()
    ids = [REWRITTEN, *int8_ids(manifest)]
    embedders = {name: open_embedder(manifest, name, 1) for name in ids}
    return [*_likeness(embedders), *_recognition(embedders)]


def _matrix(embedder: Embedder, crops: Sequence[Pixels]) -> np.ndarray:
    return np.stack([embedder.embed(crop).vector for crop in crops])


def _likeness(embedders: dict[str, Embedder]) -> Iterator[Row]:
    crops = [load_picture(path) for path in halves()[1]]
    exact = _matrix(embedders[REWRITTEN], crops)
    for name, embedder in embedders.items():
        if name == REWRITTEN:
            continue
        cosine = (exact * _matrix(embedder, crops)).sum(axis=1)
        told = f"{name}: cosine to FP32, {len(crops)} held-out faces"
        limits = {"more_is_better": True, "digits": 4}
        yield Row(f"{told}, mean", float(cosine.mean()), 0.9955, 0.997, **limits)
        yield Row(f"{told}, least", float(cosine.min()), 0.985, 0.99, **limits)


def _recognition(embedders: dict[str, Embedder]) -> Iterator[Row]:
    crops, labels, missed = orl(eyes(2))
    upper = np.triu_indices(len(labels), 1)
    same = (labels[:, None] == labels)[upper]
    print(f"ORL: {missed} of {missed + len(labels)} pictures without a face found")
    exact = 0.0
    for name, embedder in embedders.items():
        matrix = _matrix(embedder, crops)
        scores = (matrix @ matrix.T)[upper]
        rates = {far: _true_accepts(scores, same, far) for far in (FAR, 1e-4)}
        print(f"ORL: {name}: AUC {_area(scores, same):.6f}, {_told(rates)}")
        if name == REWRITTEN:
            exact = rates[FAR][0]
            continue
        drop = (exact - rates[FAR][0]) * 100
        yield Row(f"{name}: TAR at FAR {FAR:g} lost on ORL, percentage points", drop, 0.5, 0.0)


def _area(scores: np.ndarray, same: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(same, scores))


def _true_accepts(scores: np.ndarray, same: np.ndarray, far: float) -> tuple[float, float]:
    """The share of genuine pairs above the threshold that lets `far` of the others in; and it."""
    impostors = np.sort(scores[~same])
    threshold = float(impostors[len(impostors) - int(far * len(impostors)) - 1])
    return float((scores[same] > threshold).mean()), threshold


def _told(rates: dict[float, tuple[float, float]]) -> str:
    return ", ".join(
        f"TAR at FAR {far:g} {rate:.4f} (cosine {threshold:.4f})"
        for far, (rate, threshold) in rates.items()
    )
