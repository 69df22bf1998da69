"""Following faces from frame to frame, so that a visit is decided once and not at every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kiosk.clock import elapsed_s
from kiosk.types import Box, Embedding, Sighting, Stamp

# A face moves less than this between two frames of one visit at 5 frames/s or more.
_MIN_OVERLAP = 0.2
# Two good pictures of one person stay above it, two people below: a newcomer who steps into
# the same place without a gap begins a visit of their own.
_SAME_FACE = 0.25


@dataclass(slots=True, eq=False)
class Track:
    """One face over several frames.

    `sightings` holds the usable ones, oldest first; `last` is the newest of all, usable or not.
    """

    number: int
    last: Sighting
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def face(self) -> Embedding | None:
        """The normalised mean embedding of the usable sightings; None while there is none."""
        if not self.sightings:
            return None
        mean = np.mean([s.embedding.vector for s in self.sightings[-_FACE_MEMORY:]], axis=0)
        return Embedding.of(mean, self.last.embedding.space)


_FACE_MEMORY = 8
# A person may stand there for an hour; what was seen long ago decides nothing any more.
_MAX_SIGHTINGS = 64


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right = min(one[0] + one[2], other[0] + other[2])
    bottom = min(one[1] + one[3], other[1] + other[3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    union = one[2] * one[3] + other[2] * other[3] - common
    return common / union if union > 0 else 0.0


class Tracker:
    """Assigns sightings to tracks by place and by face; ends tracks unseen for `gap_s` seconds."""

    def __init__(self, *, gap_s: float, min_quality: float) -> None:
        self.obey(gap_s=gap_s, min_quality=min_quality)
        self._next = 1
        self.tracks: list[Track] = []

    def obey(self, *, gap_s: float, min_quality: float) -> None:
        """Other bounds from the next frame on."""
        self._gap_s = gap_s
        self._min_quality = min_quality

    def follow(self, sightings: Sequence[Sighting], now: Stamp) -> tuple[list[Track], list[Track]]:
        """Take one frame's sightings; returns the tracks seen in it and those that ended."""
        ended = [t for t in self.tracks if elapsed_s(t.last.seen, now) > self._gap_s]
        self.tracks = [t for t in self.tracks if t not in ended]
        seen: list[Track] = []
        for sighting in sorted(sightings, key=lambda s: -s.box[2] * s.box[3]):
            track = self._nearest(sighting, seen) or self._begin(sighting)
            self._extend(track, sighting)
            seen.append(track)
        return seen, ended

    def _nearest(self, sighting: Sighting, taken: Sequence[Track]) -> Track | None:
        free = [t for t in self.tracks if t not in taken and self._continues(t, sighting)]
        return max(free, key=lambda t: overlap(t.last.box, sighting.box), default=None)

    def _continues(self, track: Track, sighting: Sighting) -> bool:
        if overlap(track.last.box, sighting.box) < _MIN_OVERLAP:
            return False
        face = track.face
        if face is None or sighting.quality.overall < self._min_quality:
            return True
        return face.similarity(sighting.embedding) >= _SAME_FACE

    def _begin(self, sighting: Sighting) -> Track:
        track = Track(self._next, sighting)
        self._next += 1
        self.tracks.append(track)
        return track

    def _extend(self, track: Track, sighting: Sighting) -> None:
        track.last = replace(sighting, track=track.number)
        if sighting.quality.overall >= self._min_quality:
            track.sightings.append(track.last)
            del track.sightings[:-_MAX_SIGHTINGS]
