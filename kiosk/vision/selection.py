"""Which file of a space runs on this machine: the fastest that agrees with FP32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kiosk.clock import Clock
from kiosk.config import Models
from kiosk.errors import ModelError
from kiosk.vision.canary import GoldenFace, check_face, golden_for
from kiosk.vision.choice_file import key_of, read_choice, write_choice
from kiosk.vision.cpu import CPUINFO, read_cpu
from kiosk.vision.embed import Embedder, open_embedder
from kiosk.vision.fallback import GuardedEmbedder
from kiosk.vision.manifest import Manifest, ModelEntry, precision_of
from kiosk.vision.measure import AT_START, Measured, candidates, measure
from kiosk.vision.session import Session
from kiosk.vision.shadow import Shadow

log = logging.getLogger(__name__)

# INT8 that is faster by less than this is a tie: a busy board decides it, and FP32 is the truer.
_TIE = 0.02


@dataclass(frozen=True, slots=True)
class Choice:
    """The file to use, the FP32 to fall back on, the file to compare with, and why."""

    chosen: Measured
    spare: Measured | None
    rival: Measured | None
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice with its files loaded. `cached`: measured at an earlier start."""

    choice: Choice
    main: Embedder
    spare: Embedder | None
    rival: Embedder | None
    faces: tuple[GoldenFace, ...]
    cached: bool


def choose(measured: Sequence[Measured], prefer: str) -> Choice:
    """Pick among what was measured; ModelError with every reason when none can be used."""
    usable = sorted((m for m in measured if not m.refused), key=lambda m: m.min_ms)
    if not usable:
        raise ModelError(
            "an embedder that loads and agrees with its golden faces expected, none does: "
            + " | ".join(m.refused for m in measured),
            hint="reinstall, or put the files back",
        )
    int8 = next((m for m in usable if m.precision == "int8"), None)
    fp32 = next((m for m in usable if m.precision == "fp32"), None)
    chosen, reason = _pick(int8, fp32, prefer)
    if chosen is int8:
        return Choice(chosen, fp32, fp32, reason)
    return Choice(chosen, None, int8, reason)


def _pick(int8: Measured | None, fp32: Measured | None, prefer: str) -> tuple[Measured, str]:
    """The one of the two fastest, and why in words; not both of them are None."""
    match int8, fp32:
        case Measured(), Measured() if prefer == "int8":
            return int8, 'prefer = "int8"'
        case Measured(), Measured() if prefer == "fp32":
            return fp32, 'prefer = "fp32"'
        case Measured(), Measured():
            against = f"INT8 {int8.min_ms:.2f} ms, FP32 {fp32.min_ms:.2f} ms"
            if int8.min_ms < fp32.min_ms * (1 - _TIE):
                return int8, f"the fastest that agrees: {against}"
            return fp32, f"INT8 is not faster: {against}"
        case Measured(), None if prefer != "fp32":
            return int8, "no FP32 file can be used"
        case _, Measured():
            return fp32, "no INT8 file can be used" if prefer == "int8" else "the fastest FP32 file"
    raise ModelError(
        'models.prefer = "fp32": an FP32 file that can be used expected, there is only INT8',
        hint='put it back, or set models.prefer = "auto"',
    )


def wanted(manifest: Manifest, models: Models) -> tuple[ModelEntry, ...]:
    """The candidates that a configuration asks for: INT8 only where it may be used or watched."""
    int8 = models.prefer != "fp32" or models.shadow_every > 0
    return candidates(manifest, models.embedder, int8=int8)


def remembered(
    manifest: Manifest, models: Models, cache: Path, cpuinfo: Path = CPUINFO
) -> tuple[Measured, ...] | None:
    """What the daemon measured under this very configuration; None when it must measure anew."""
    entries = wanted(manifest, models)
    try:
        faces = golden_for(entries)
    except ModelError:
        return None
    return read_choice(cache, key_of(entries, models, read_cpu(cpuinfo), faces))


def select(
    models: Models,
    manifest: Manifest,
    *,
    clock: Clock,
    cache: Path,
    keep: bool = True,
    cpuinfo: Path = CPUINFO,
) -> Selection:
    """Measure the candidates, or take what `cache` remembers of them, and load what is chosen.

    `keep` writes the outcome to `cache`. ModelError when no candidate can be used.
    """
    entries = wanted(manifest, models)
    _tell_without_threshold(manifest, entries[0].space)
    faces = golden_for(entries)
    key = key_of(entries, models, read_cpu(cpuinfo), faces)
    old = read_choice(cache, key)
    selection = None if old is None else _from_cache(old, entries, models, faces)
    if selection is None:
        found, usable = measure(
            entries, faces, threads=models.threads, clock=clock, effort=AT_START
        )
        _tell_refused(found)
        choice = choose(found, models.prefer)
        selection = _loaded(choice, faces, models, cached=False, load=lambda m: usable[m.id])
        if keep and not _may_change(choice, found):
            write_choice(cache, key, found)
    _tell(selection, models)
    return selection


def open_selected(
    selection: Selection, models: Models, clock: Clock
) -> tuple[Embedder | GuardedEmbedder, Shadow | None]:
    """The embedder to use, guarded when it is INT8, and its shadow if one is configured."""
    shadow = None
    if models.shadow_every and selection.rival is not None:
        shadow = Shadow(selection.rival, models.shadow_every)
    elif models.shadow_every:
        _tell_no_shadow("there is no second model of this space to compare with")
    if selection.choice.chosen.precision == "fp32":
        return selection.main, shadow
    guarded = GuardedEmbedder(
        selection.main,
        selection.spare,
        faces=selection.faces,
        clock=clock,
        period_s=models.canary_period_s,
    )
    return guarded, shadow


def open_exact(models: Models, manifest: Manifest, clock: Clock) -> Embedder | GuardedEmbedder:
    """The very file that is configured and no other; INT8 is watched all the same."""
    if models.shadow_every:
        _tell_no_shadow('prefer = "exact" loads one file: there is none to compare with')
    embedder = open_embedder(manifest, models.embedder, models.threads)
    if precision_of(embedder.id) == "fp32":
        return embedder
    faces = golden_for([manifest.get(models.embedder, "embedder")])
    period_s = models.canary_period_s
    return GuardedEmbedder(embedder, None, faces=faces, clock=clock, period_s=period_s)


def _tell_no_shadow(meaning: str) -> None:
    log.warning("model.no_shadow", extra={"fields": {"meaning": meaning}})


def _from_cache(
    old: Sequence[Measured],
    entries: Sequence[ModelEntry],
    models: Models,
    faces: tuple[GoldenFace, ...],
) -> Selection | None:
    """The remembered choice loaded, or None when a file of it no longer is what it was."""
    by_id = {entry.id: entry for entry in entries}

    def load(found: Measured) -> Embedder:
        entry = by_id[found.id]
        embedder = Embedder(entry, Session(entry, models.threads))
        # One face costs milliseconds; all of them were held against the file when it was measured.
        if faces:
            check_face(embedder, faces[0])
        return embedder

    try:
        choice = choose(old, models.prefer)
        if _may_change(choice, old):
            raise ModelError(f"an FP32 file beside {choice.chosen.id} expected, none was kept")
        selection = _loaded(choice, faces, models, cached=True, load=load)
    # Whatever it was, measuring anew finds it out by name.
    except Exception as error:  # noqa: BLE001
        log.warning("model.cache_ignored", extra={"fields": {"reason": str(error)}})
        return None
    _tell_refused(old)
    return selection


def _may_change(choice: Choice, measured: Sequence[Measured]) -> bool:
    """Whether the next start may find more: a reason that passes, or FP32 behind this INT8."""
    lacks_spare = choice.chosen.precision == "int8" and choice.spare is None
    has_fp32 = any(found.precision == "fp32" for found in measured)
    return any(found.may_pass for found in measured) or (lacks_spare and has_fp32)


def _loaded(
    choice: Choice,
    faces: tuple[GoldenFace, ...],
    models: Models,
    *,
    cached: bool,
    load: Callable[[Measured], Embedder],
) -> Selection:
    rival = choice.rival if models.shadow_every else choice.spare
    files = {one.id: one for one in (choice.chosen, choice.spare, rival) if one is not None}
    # At once: onnxruntime prepares a file without Python, so that a start waits for one of them.
    with ThreadPoolExecutor(len(files)) as pool:
        ready = dict(zip(files, pool.map(load, files.values()), strict=True))
    spare = None if choice.spare is None else ready[choice.spare.id]
    other = None if rival is None else ready[rival.id]
    return Selection(choice, ready[choice.chosen.id], spare, other, faces, cached)


def _tell_without_threshold(manifest: Manifest, space: str) -> None:
    for entry in manifest.entries:
        if entry.space == space and not entry.usable:
            meaning = (
                "it was added and is not used: `kiosk lab roc --set-threshold` is still to come"
            )
            fields = {"model": entry.id, "meaning": meaning}
            log.warning("model.no_threshold", extra={"fields": fields})


def _tell_refused(measured: Sequence[Measured]) -> None:
    for found in measured:
        if found.refused:
            fields = {"model": found.id, "reason": found.refused}
            log.error("model.refused", extra={"fields": fields})


def _tell(selection: Selection, models: Models) -> None:
    """One line of what was chosen, and a warning for each thing that it lacks."""
    choice, found = selection.choice, selection.choice.chosen
    fields = {
        "model": found.id,
        "latency_ms": found.min_ms,
        "cosine": None if found.cosine is None else round(found.cosine, 6),
        "fallback": None if choice.spare is None else choice.spare.id,
        "reason": choice.reason,
        "cached": selection.cached,
    }
    log.info("model.selected", extra={"fields": fields})
    lacks = {}
    if not selection.faces:
        meaning = (
            f"no golden faces for {selection.main.space}: only that it loads and runs is known"
        )
        lacks["model.unproven"] = meaning
    if models.prefer == "int8" and found.precision == "fp32":
        lacks["model.no_int8"] = 'prefer = "int8", but no INT8 file can be used: FP32 is'
    if found.precision == "int8" and choice.spare is None:
        lacks["model.no_fallback"] = (
            "no FP32 file can be used: a face that INT8 fails on is dropped"
        )
    for event, meaning in lacks.items():
        log.warning(event, extra={"fields": {"model": found.id, "meaning": meaning}})
