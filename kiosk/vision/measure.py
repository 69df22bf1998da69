"""The candidates of one space, each loaded, held against the golden faces, and timed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from kiosk.clock import NS_PER_S, Clock
from kiosk.types import Pixels
from kiosk.vision.canary import Embeds, GoldenFace, agreement
from kiosk.vision.embed import Embedder
from kiosk.vision.manifest import Manifest, ModelEntry, Precision, precision_of
from kiosk.vision.session import Session

# Rounds make the best of a busy board; the budget keeps a start short, three rounds are the least
# that a first one slowed by its cold caches can be told from.
_LEAST_ROUNDS = 3
_NS_PER_MS = NS_PER_S // 1000


# A cosine of 1 may come out a rounding above it.
_Cosine = Annotated[float, Meta(ge=-1.001, le=1.001)]
_Milliseconds = Annotated[float, Meta(ge=0.0, le=1e7)]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was found of one candidate. `refused` says why it cannot be used, "" if it can.

    `may_pass`: that reason is not the file's own fault, so the next start must look again.
    `cosine` and `mean_cosine` are to the golden faces, None without any.
    """

    id: str
    refused: str = ""
    may_pass: bool = False
    cosine: _Cosine | None = None
    mean_cosine: _Cosine | None = None
    min_ms: _Milliseconds = 0.0
    median_ms: _Milliseconds = 0.0
    p95_ms: _Milliseconds = 0.0

    @property
    def precision(self) -> Precision:
        """fp32 or int8."""
        return precision_of(self.id)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to time: at most so many rounds, and none begun after the budget is spent."""

    budget_s: float
    rounds: int


AT_START = Effort(budget_s=1.5, rounds=60)
PROFILE = Effort(budget_s=20.0, rounds=200)


def candidates(manifest: Manifest, model_id: str, *, int8: bool = True) -> tuple[ModelEntry, ...]:
    """The embedders of that model's space: those whose file is there or ought to be.

    ModelError when no manifest knows the id, and when it has no threshold yet; others of the space
    that have none are left out.
    """
    wanted = manifest.to_match(model_id)
    return tuple(
        entry
        for entry in manifest.entries
        if entry.kind == "embedder"
        and entry.space == wanted.space
        and entry.usable
        and (int8 or precision_of(entry.id) == "fp32")
        and (entry.shipped or entry.id == model_id or entry.path.is_file())
    )


def measure(
    entries: Sequence[ModelEntry],
    faces: tuple[GoldenFace, ...],
    *,
    threads: int,
    clock: Clock,
    effort: Effort,
) -> tuple[list[Measured], dict[str, Embedder]]:
    """Every candidate's outcome, and those that can be used, loaded."""
    refused: dict[str, Measured] = {}
    agreed: dict[str, Measured] = {}
    usable: dict[str, Embedder] = {}
    crop = faces[0].crop if faces else _noise(entries[0])
    for entry in entries:
        try:
            embedder = Embedder(entry, Session(entry, threads))
            agreed[entry.id] = _held_against(embedder, faces, crop)
            usable[entry.id] = embedder
        # Whatever a file does to the libraries, it is refused, and the others serve.
        except Exception as error:  # noqa: BLE001
            refused[entry.id] = _refused(entry.id, error, may_pass=_is_the_machines(error))
    times, failed = time_interleaved(usable, crop, clock=clock, effort=effort)
    for name, failure in failed.items():
        # It embedded this very crop a moment ago, so another start may find it well.
        refused[name] = _refused(name, failure, may_pass=True)
        del usable[name]
    found = [refused.get(e.id) or _timed(agreed[e.id], times[e.id]) for e in entries]
    return found, usable


def time_interleaved(
    embedders: Mapping[str, Embeds], crop: Pixels, *, clock: Clock, effort: Effort
) -> tuple[dict[str, list[float]], dict[str, Exception]]:
    """Milliseconds of one embedding, each in turn, so that a busy moment meets all alike.

    Beside them what those raised that failed: they are not asked again.
    """
    times: dict[str, list[float]] = {name: [] for name in embedders}
    failed: dict[str, Exception] = {}
    end = clock.boottime_ns() + int(effort.budget_s * NS_PER_S)
    for number in range(effort.rounds if embedders else 0):
        if number >= _LEAST_ROUNDS and clock.boottime_ns() >= end:
            break
        for name, embedder in embedders.items():
            if name in failed:
                continue
            began = clock.boottime_ns()
            try:
                embedder.embed(crop)
            except Exception as error:  # noqa: BLE001 - refused like one that does not load
                failed[name] = error
                continue
            times[name].append((clock.boottime_ns() - began) / _NS_PER_MS)
    return times, failed


def _refused(name: str, error: Exception, *, may_pass: bool) -> Measured:
    said = str(error)
    reason = said if said.startswith("model ") else f"model {name}: {type(error).__name__}: {said}"
    return Measured(name, refused=reason, may_pass=may_pass)


def _is_the_machines(error: BaseException | None) -> bool:
    """Whether the system or its memory refused, at the bottom of it, and not the file."""
    while error is not None:
        if isinstance(error, OSError | MemoryError):
            return True
        error = error.__cause__
    return False


def _held_against(embedder: Embedder, faces: tuple[GoldenFace, ...], crop: Pixels) -> Measured:
    if not faces:
        # An embedding is finite and not of one value, or it is none.
        embedder.embed(crop)
        return Measured(embedder.id)
    found = agreement(embedder, faces)
    return Measured(embedder.id, cosine=found.least, mean_cosine=found.mean)


def _timed(found: Measured, times: Sequence[float]) -> Measured:
    least, median, p95 = (round(float(v), 3) for v in np.percentile(times, [0, 50, 95]))
    return msgspec.structs.replace(found, min_ms=least, median_ms=median, p95_ms=p95)


def _noise(entry: ModelEntry) -> Pixels:
    """A crop for models without golden faces: the same one everywhere."""
    shape = (entry.input.height, entry.input.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
