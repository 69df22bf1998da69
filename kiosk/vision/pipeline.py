"""Frame to sightings: detect, align, measure, embed; enrolment and validation go the same way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kiosk.clock import NS_PER_S, Clock
from kiosk.config import Models
from kiosk.errors import EmbeddingError, ModelError, PictureError
from kiosk.types import Embedding, Frame, Pixels, Quality, Sighting
from kiosk.vision.align import ALIGNMENT, LandmarksError, align
from kiosk.vision.blazeface import MAX_FACES, BlazeFace, Detection
from kiosk.vision.choice_file import ALSO_CHOICE_FILE, CHOICE_FILE
from kiosk.vision.embed import Embedder, open_embedder
from kiosk.vision.fallback import GuardedEmbedder
from kiosk.vision.manifest import Manifest, load_manifest
from kiosk.vision.misses import Misses
from kiosk.vision.quality import measure
from kiosk.vision.selection import open_exact, open_selected, select
from kiosk.vision.session import Session
from kiosk.vision.shadow import Shadow

log = logging.getLogger(__name__)

# More people than this do not stand before a kiosk; a poster of a crowd must not stall it.
_MOST_FACES_LIVE = 4
# Below it a template would match badly for years.
_LEAST_TO_ENROL = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """One face of a picture: where it is, its 112x112 crop, how usable it is, its embedding.

    `also` is its embedding in the second space, where one is configured.
    """

    detection: Detection
    aligned: Pixels
    quality: Quality
    embedding: Embedding
    also: Embedding | None = None

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The embedding in each space in use, the first one's first."""
        return (self.embedding,) if self.also is None else (self.embedding, self.also)


Embeds = Embedder | GuardedEmbedder


class FacePipeline:
    """Detector and embedder together, and an embedder of a second space where one is configured.

    Not for several threads at once.
    """

    def __init__(
        self,
        detector: BlazeFace,
        embedder: Embeds,
        *,
        clock: Clock,
        record: Callable[[str, float], None],
        shadow: Shadow | None = None,
        also: Embeds | None = None,
    ) -> None:
        self._detector = detector
        self._also = also
        self._embedder = embedder
        self._shadow = shadow
        self._clock = clock
        self._record = record
        self._misses, self._also_misses = Misses(clock), Misses(clock)

    @property
    def model_id(self) -> str:
        """The embedder's file actually in use."""
        return self._embedder.id

    @property
    def space(self) -> str:
        """The embedding space."""
        return self._embedder.space

    @property
    def dim(self) -> int:
        """The number of values of an embedding."""
        return self._embedder.dim

    @property
    def threshold(self) -> float:
        """The manifest's match threshold."""
        return self._embedder.threshold

    @property
    def also_space(self) -> tuple[str, int] | None:
        """The second embedding space and its number of values, None without one."""
        return None if self._also is None else (self._also.space, self._also.dim)

    @property
    def also_threshold(self) -> float:
        """The manifest's match threshold of the second space, 1 without one."""
        return 1.0 if self._also is None else self._also.threshold

    def thresholds(self, main: float) -> dict[str, float]:
        """The least cosine of each space in use, `main` that of the first."""
        also = {} if self._also is None else {self._also.space: self._also.threshold}
        return {self.space: main, **also}

    def status(self) -> dict[str, Any]:
        """The model in use, the switch to it if it was not the first, and shadow mode's figures.

        `ailing` is why a file that nothing stands behind is not to be trusted, `missed` of live
        faces without an embedding; None for none.
        `also` is the same of the second space.
        """
        also = self._also
        return {
            "model": self.model_id,
            "space": self.space,
            "fallback": _fallback(self._embedder),
            "ailing": self._embedder.ailing or None,
            "missed": self._misses.document(),
            "shadow": None if self._shadow is None else self._shadow.document(),
            "also": None
            if also is None
            else {
                "model": also.id,
                "space": also.space,
                "threshold": also.threshold,
                "fallback": _fallback(also),
                "ailing": also.ailing or None,
                "missed": self._also_misses.document(),
            },
        }

    def faces(self, pixels: Pixels) -> list[FoundFace]:
        """Every face of a picture, the largest first, at most MAX_FACES.

        Raises EmbeddingError or ModelError by the model's name for a face it cannot embed.
        """
        found = sorted(self._detector.detect(pixels), key=_area, reverse=True)[:MAX_FACES]
        faces = []
        for detection, crop, quality in self._aligned(pixels, found):
            embedding = self._timed(self._embedder, crop, "embed")
            also = None
            if self._also is not None:
                also = self._timed(self._also, crop, "embed also")
            faces.append(FoundFace(detection, crop, quality, embedding, also))
        return faces

    def face_to_enrol(self, pixels: Pixels, name: str) -> FoundFace:
        """The one usable face of a picture; PictureError, which says `name`, otherwise."""
        faces = self.faces(pixels)
        if len(faces) != 1:
            raise PictureError(
                f"{name}: expected exactly one face, got {len(faces)}",
                hint="crop it to the person" if faces else "take a sharper or larger one",
            )
        quality = faces[0].quality.overall
        if quality < _LEAST_TO_ENROL:
            raise PictureError(
                f"{name}: expected a face of quality {_LEAST_TO_ENROL} or more, got {quality:.2f}",
                hint="take one from the front, sharp, near and well lit",
            )
        return faces[0]

    def embed_aligned(self, crop: Pixels) -> Embedding:
        """The embedding of a crop that is aligned already."""
        return self._embedder.embed(crop)

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        """The faces of one camera frame, the largest four.

        A face that cannot be embedded is left out, counted and told: whoever stands beside it is
        still recorded. One that only the second space cannot embed lacks that embedding alone.
        An empty large frame is searched in tiles, two at each frame, so that a small face is
        found within a second and an empty corridor costs a bounded amount.
        """
        began = self._clock.boottime_ns()
        found = self._detector.glance(frame.pixels)
        self._note("detect", began)
        found = sorted(found, key=_area, reverse=True)[:_MOST_FACES_LIVE]
        faces = self._embedded(frame.pixels, found)
        self._misses.frame_ends(self._embedder.id)
        if self._also is not None:
            self._also_misses.frame_ends(self._also.id)
        self._compare(faces)
        return tuple(
            Sighting(
                embedding=face.embedding,
                also=face.also,
                box=face.detection.box,
                landmarks=face.detection.landmarks,
                score=face.detection.score,
                quality=face.quality,
                liveness=None,
                seen=frame.seen,
            )
            for face in faces
        )

    def _compare(self, faces: list[FoundFace]) -> None:
        if self._shadow is not None:
            for face in faces:
                self._shadow.see(face.aligned, face.embedding, self.model_id)

    def _embedded(self, pixels: Pixels, found: list[Detection]) -> list[FoundFace]:
        faces = []
        for detection, crop, quality in self._aligned(pixels, found):
            embedding = self._embedded_or_missed(self._embedder, crop, "embed", self._misses)
            also = None
            if self._also is not None:
                also = self._embedded_or_missed(self._also, crop, "embed also", self._also_misses)
            if embedding is not None:
                faces.append(FoundFace(detection, crop, quality, embedding, also))
        return faces

    def _embedded_or_missed(
        self, embedder: Embeds, aligned: Pixels, stage: str, misses: Misses
    ) -> Embedding | None:
        try:
            embedding = self._timed(embedder, aligned, stage)
        # Whatever it was, memory that ran out included: one face must not end the kiosk.
        except Exception as error:  # noqa: BLE001
            misses.missed(embedder.id, error)
            return None
        misses.embedded()
        return embedding

    def _aligned(
        self, pixels: Pixels, found: list[Detection]
    ) -> Iterator[tuple[Detection, Pixels, Quality]]:
        for detection in found:
            began = self._clock.boottime_ns()
            try:
                aligned = align(pixels, detection.landmarks)
            except LandmarksError:
                log.info("vision.no_face", extra={"fields": {"score": detection.score}})
                continue
            quality = measure(pixels, aligned, detection)
            self._note("align", began)
            yield detection, aligned, quality

    def _timed(self, embedder: Embeds, aligned: Pixels, stage: str) -> Embedding:
        began = self._clock.boottime_ns()
        embedding = _embed(embedder, aligned)
        self._note(stage, began)
        return embedding

    def _note(self, stage: str, began_ns: int) -> None:
        self._record(stage, (self._clock.boottime_ns() - began_ns) * 1000 / NS_PER_S)


def _embed(embedder: Embeds, aligned: Pixels) -> Embedding:
    try:
        return embedder.embed(aligned)
    except EmbeddingError as error:
        raise EmbeddingError(f"model {embedder.id}: {error}") from error


def _fallback(embedder: Embeds) -> dict[str, Any] | None:
    return None if embedder.fallback is None else embedder.fallback.document()


def _area(detection: Detection) -> float:
    return detection.box[2] * detection.box[3]


def open_pipeline(
    models: Models,
    *,
    clock: Clock,
    record: Callable[[str, float], None],
    choice_in: Path | None = None,
    keep_choice: bool = True,
    matching: bool = True,
) -> FacePipeline:
    """Load and verify all models; ModelError by name for anything amiss.

    `record(stage, milliseconds)` is called for "detect", "align", "embed" and "embed also".
    `choice_in` is the state folder: the models that were added there are known, and each embedder
    is the best of its space on this machine, as remembered there (and kept there if
    `keep_choice`). Without it the embedder is the very file that `models.embedder` names.
    Without `matching` a model that has no threshold yet will do.
    """
    manifest = load_manifest(models.extra_dirs, choice_in)
    for why in manifest.aside:
        log.error("model.set_aside", extra={"fields": {"reason": why}})
    entry = manifest.get(models.detector, "detector")
    # One thread: at 128 pixels a second one costs more than it brings.
    detector = BlazeFace(entry, Session(entry, 1), models.detection_score)
    check_embedders(manifest, models, matching=matching)
    also = None
    embedder, shadow = _open(models, manifest, clock, choice_in, CHOICE_FILE, keep=keep_choice)
    if models.also:
        second = msgspec.structs.replace(models, embedder=models.also, shadow_every=0)
        also, _ = _open(second, manifest, clock, choice_in, ALSO_CHOICE_FILE, keep=keep_choice)
    return FacePipeline(detector, embedder, clock=clock, record=record, shadow=shadow, also=also)


def _open(
    models: Models,
    manifest: Manifest,
    clock: Clock,
    choice_in: Path | None,
    name: str,
    *,
    keep: bool,
) -> tuple[Embeds, Shadow | None]:
    """The embedder of one space, and its shadow if it has one."""
    if choice_in is None:
        return open_embedder(manifest, models.embedder, models.threads), None
    if models.prefer == "exact":
        return open_exact(models, manifest, clock), None
    chosen = select(models, manifest, clock=clock, cache=choice_in / name, keep=keep)
    return open_selected(chosen, models, clock)


def check_embedders(manifest: Manifest, models: Models, *, matching: bool = True) -> None:
    """ModelError for an embedder that cannot be used, and for a second one of the same space."""
    names = [models.embedder, *([models.also] if models.also else [])]
    find = manifest.to_match if matching else lambda name: manifest.get(name, "embedder")
    entries = [find(name) for name in names]
    for entry in entries:
        if entry.alignment != ALIGNMENT:
            raise ModelError(
                f"model {entry.id}: alignment {ALIGNMENT} expected,"
                f" the manifest says {entry.alignment}",
                hint="this version aligns in one way only; take another model",
            )
    if len({entry.space for entry in entries}) < len(entries):
        raise ModelError(
            f"models.also: a model of another space than {models.embedder} expected,"
            f" {models.also} is of the same ({entries[0].space})",
            hint="files of one space run for each other anyway: take models.also out",
        )
