"""Time of one embedding: our files, the same weights in LiteRT and in ncnn, all in one run."""

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from bench import litert, ncnn_peer
from bench.faces import PEOPLE, REPOSITORY
from bench.machine import int8_excuse
from bench.models import PLAIN, REWRITTEN, entry_of, eyes, graph_of, int8_ids
from bench.table import Row
from bench.timing import Contender, best_of, timed
from kiosk.lab.fold import folded
from kiosk.vision.embed import preprocess
from kiosk.vision.manifest import load_manifest
from kiosk.vision.picture import load_picture
from kiosk.vision.session import Session

CACHE = REPOSITORY / ".cache"
LITERT = "LiteRT (XNNPACK), half a batch of 2"
NCNN = "ncnn FP32"
NCNN_FOLDED = "ncnn FP32, given our folded graph"
ALIKE = 0.999
"""A peer that gives another embedding is no yardstick."""


def rows() -> list[Row]:
    """Each file against PRelu nodes and against the peers."""
    crop = eyes().faces(load_picture(PEOPLE / "obama.jpg"))[0].aligned
    values = preprocess(crop, entry_of(PLAIN).input)[None]
    eight_bits = int8_ids(load_manifest())
    with ExitStack() as stack:
        contenders, outputs = _ours([PLAIN, REWRITTEN, *eight_bits], values)
        lite = litert.runner(values, CACHE)
        if lite is not None:
            contenders[LITERT], outputs[LITERT] = _halved(timed(lite)), lite()
        plain = graph_of(PLAIN)
        models = {NCNN: plain, NCNN_FOLDED: folded(plain)}
        for name, peer in ncnn_peer.opened(stack, models, values, CACHE).items():
            contenders[name], outputs[name] = peer.milliseconds, peer.output()
        _check(outputs, eight_bits)
        best = best_of(contenders)
    for name, ms in best.items():
        print(f"one embedding, one thread: {name:36} {ms:6.2f} ms")
    return _judged(best, eight_bits)


def _ours(ids: list[str], values: np.ndarray) -> tuple[dict[str, Contender], dict[str, np.ndarray]]:
    contenders, outputs = {}, {}
    for name in ids:
        run = _session(name, values)
        contenders[name], outputs[name] = timed(run), run()
    return contenders, outputs


def _session(model_id: str, values: np.ndarray) -> Callable[[], np.ndarray]:
    session = Session(entry_of(model_id), 1)
    return lambda: session.run(values)[0][0]


def _halved(contender: Contender) -> Contender:
    return lambda: contender() / litert.BATCH


def _check(outputs: dict[str, np.ndarray], eight_bits: list[str]) -> None:
    """Say so when a peer does not compute the same."""
    units = {name: y.reshape(-1) / np.linalg.norm(y) for name, y in outputs.items()}
    for name in units.keys() - set(eight_bits):
        cosine = float(units[name] @ units[PLAIN])
        if cosine < ALIKE:
            print(f"{name}: its embedding is another one (cosine {cosine:.4f}): no yardstick")


def _judged(best: dict[str, float], eight_bits: list[str]) -> list[Row]:
    excuses = {name: _excuse(name, best, eight_bits) for name in eight_bits}
    against = [
        (REWRITTEN, PLAIN, 0.47, 0.42),
        (REWRITTEN, LITERT, 1.02, 0.9),
        (REWRITTEN, NCNN, 1.02, 0.9),
        (REWRITTEN, NCNN_FOLDED, None, None),
    ]
    against += [(name, PLAIN, 0.40, 0.33) for name in eight_bits]
    against += [(name, NCNN, 0.85, 0.70) for name in eight_bits]
    against += [(name, REWRITTEN, None, None) for name in eight_bits]
    return [
        Row(
            f"{one}: time against {other}",
            best[one] / best[other],
            floor,
            aim,
            excuse=excuses.get(one, "") if floor is not None else "",
        )
        for one, other, floor, aim in against
        if other in best
    ]


def _excuse(name: str, best: dict[str, float], eight_bits: list[str]) -> str:
    """Of several INT8 files a board runs the fastest: the others need not be fast on it."""
    fastest = min(eight_bits, key=best.__getitem__)
    return int8_excuse() or ("" if name == fastest else f"{fastest} is faster here")
