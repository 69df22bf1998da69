"""BlazeFace, the short-range model of MediaPipe: faces and their landmarks in a picture.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019;
anchors, decoding and suppression as MediaPipe's face_detection_short_range graph has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kiosk.errors import ModelError
from kiosk.types import Box, FloatArray, Pixels
from kiosk.vision.anchors import anchors, decode
from kiosk.vision.embed import preprocess
from kiosk.vision.letterbox import Window, letterbox
from kiosk.vision.manifest import ModelEntry
from kiosk.vision.nms import ROW, SAME_FACE, SCORE, overlap, weighted_nms
from kiosk.vision.session import Session
from kiosk.vision.tiles import tiles

# From this share of the longer side on, a face is seen well enough at the first look: a smaller
# one has its landmarks off by several per cent of its size (16 of 128 pixels: similarity to
# itself 0.69, after a second look 0.97), and a score that says little.
_NEAR = 0.28
# A second look shows the face with as much again around it as the network was trained to see.
_SECOND_LOOK = 2.5
# What the first look must give for a second one, and what that one must give: seen at its best
# size a frontal face scores 0.74 and more, sleeves and chandeliers mostly up to 0.69.
_CANDIDATE = 0.2
_CONFIRMED = 0.7

MAX_FACES = 64
"""So many faces of one picture are followed up, best scores first."""
_MAX_GLANCE = 8
_TILES_PER_GLANCE = 2
# So many frames in a row follow the faces that were there without a look at the whole. A newcomer
# waits for as many; a frame with one face of ordinary size costs 1.25 runs of the network, not 2.
_FOLLOWED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face: `box` and `landmarks` in pixels of the picture, both may reach beyond its edge.

    `landmarks`: float32 (4, 2), read-only: right eye, left eye, nose tip, mouth centre (right and
    left of the person). `score`: 0..1.
    """

    box: Box
    landmarks: FloatArray
    score: float

    def __post_init__(self) -> None:
        self.landmarks.flags.writeable = False


class BlazeFace:
    """The detector. `least_score` is what a face must score to be one.

    A picture is looked at as a whole. Faces that are small on it get a second look of their own,
    which sets their landmarks right and weeds out false alarms. When that finds nothing and the
    picture is large, overlapping tiles of it are looked at.
    """

    def __init__(self, entry: ModelEntry, session: Session, least_score: float = 0.5) -> None:
        self._id = entry.id
        self._spec = entry.input
        self._session = session
        self._least = least_score
        self._centres = anchors(entry.input.width)
        self._turn = 0
        self._known = _none()
        self._followed = 0
        if entry.input.width != entry.input.height:
            raise ModelError(f"model {entry.id}: a square input expected for a BlazeFace detector")
        if not {"regressors", "scores"} <= set(session.outputs):
            raise ModelError(
                f"model {entry.id}: outputs regressors and scores expected of a BlazeFace"
                f" detector, the file has {', '.join(session.outputs)}",
                hint="name a detector of the manifest in models.detector",
            )

    def detect(self, pixels: Pixels) -> list[Detection]:
        """All faces of a picture, uint8 BGR (height, width, 3): for stills, where time is cheap.

        All tiles of a large picture are looked at unless the whole picture showed a face well
        (at least 28 % of its longer side): where all faces are small there may be more of them
        that the whole picture does not show.
        """
        whole = _whole(pixels)
        rows = self._faces(pixels, self._look(pixels, whole), _NEAR * max(whole[2:]), MAX_FACES)
        if not len(rows) or float(_sides(rows).max()) < _NEAR * max(whole[2:]):
            windows = tiles(whole[2], whole[3])
            found = weighted_nms(
                np.concatenate([_none(), *(self._look(pixels, window) for window in windows)])
            )
            rows = weighted_nms(
                np.concatenate([rows, self._faces(pixels, found, math.inf, MAX_FACES)])
            )
        return _detections(rows)

    def glance(self, pixels: Pixels) -> list[Detection]:
        """The faces of one frame of many.

        Faces that got a second look are followed: the next three frames are looked at only where
        they were, if all of them are still there. Otherwise it is the whole frame, and two of its
        tiles only if that shows none. The tiles take turns from call to call; the turn stays with
        a tile as long as it shows a face. One thread only: turn and faces are kept here.
        """
        rows = self._follow(pixels)
        if not len(rows):
            rows = self._search(pixels)
            near = _NEAR * max(pixels.shape[:2])
            self._known = rows if len(rows) and float(_sides(rows).max()) < near else _none()
            self._followed = 0
        return _detections(rows)

    def _follow(self, pixels: Pixels) -> FloatArray:
        """The known faces, where each of them is now; none unless all of them are found."""
        if not len(self._known) or self._followed >= _FOLLOWED:
            return _none()
        self._followed += 1
        rows = np.concatenate([self._second_look(pixels, row) for row in self._known])
        if len(rows) < len(self._known):
            return _none()
        self._known = weighted_nms(rows)
        return self._known

    def _search(self, pixels: Pixels) -> FloatArray:
        """A look at the whole frame, and at the next tiles if it shows nobody."""
        whole = _whole(pixels)
        rows = self._faces(pixels, self._look(pixels, whole), _NEAR * max(whole[2:]), _MAX_GLANCE)
        windows = tiles(whole[2], whole[3])
        for _ in range(min(_TILES_PER_GLANCE, len(windows))):
            if len(rows):
                break
            window = windows[self._turn % len(windows)]
            rows = self._faces(pixels, self._look(pixels, window), math.inf, _MAX_GLANCE)
            if not len(rows):
                self._turn += 1
        return rows

    def _look(self, pixels: Pixels, window: Window) -> FloatArray:
        """One run of the network: merged candidates of a window, in pixels of the picture."""
        boxed = letterbox(pixels, window, self._spec.width)
        batch = np.ascontiguousarray(preprocess(boxed.canvas, self._spec)[None])
        outputs = dict(zip(self._session.outputs, self._session.run(batch), strict=True))
        rows = decode(
            outputs["regressors"].reshape(-1, 16),
            outputs["scores"].reshape(-1),
            self._centres,
            min(_CANDIDATE, self._least),
        )
        points = rows[:, :SCORE].reshape(-1, 6, 2)
        rows[:, :SCORE] = boxed.to_picture(points).reshape(-1, SCORE)
        return weighted_nms(rows)

    def _faces(self, pixels: Pixels, rows: FloatArray, near: float, most: int) -> FloatArray:
        """The candidates that hold, of `rows` from `weighted_nms`, which puts the best first.

        Those of `near` pixels and more are taken as they are, if they score; smaller ones if a
        second look confirms them, and as it sees them.
        """
        best = rows[:most]
        large = _sides(best) >= near
        sure = best[large]
        confirmed = (self._second_look(pixels, row) for row in best[~large])
        return weighted_nms(np.concatenate([sure[sure[:, SCORE] >= self._least], *confirmed]))

    def _second_look(self, pixels: Pixels, row: FloatArray) -> FloatArray:
        """What a look at one candidate alone shows of it: one row, or none."""
        window = _around(row, pixels.shape[1], pixels.shape[0])
        if min(window[2:]) < 2:
            return _none()
        rows = self._look(pixels, window)
        rows = rows[rows[:, SCORE] >= max(self._least, _CONFIRMED)]
        if not len(rows):
            return rows
        same = overlap(row, rows)
        return rows[[int(same.argmax())]] if float(same.max()) > SAME_FACE else _none()


def _whole(pixels: Pixels) -> Window:
    return 0, 0, pixels.shape[1], pixels.shape[0]


def _none() -> FloatArray:
    return np.empty((0, ROW), dtype=np.float32)


def _sides(rows: FloatArray) -> FloatArray:
    """The longer side of each row's box."""
    sides: FloatArray = np.max(rows[:, 2:4] - rows[:, :2], axis=1)
    return sides


def _around(row: FloatArray, width: int, height: int) -> Window:
    """The square about a candidate that a second look takes, as far as the picture reaches."""
    reach = _SECOND_LOOK / 2.0 * float(_sides(row[None])[0])
    x, y = float(row[0] + row[2]) / 2.0, float(row[1] + row[3]) / 2.0
    left, right = (min(max(round(edge), 0), width) for edge in (x - reach, x + reach))
    top, bottom = (min(max(round(edge), 0), height) for edge in (y - reach, y + reach))
    return left, top, right - left, bottom - top


def _detections(rows: Iterable[FloatArray]) -> list[Detection]:
    return [
        Detection(
            box=(float(r[0]), float(r[1]), float(r[2] - r[0]), float(r[3] - r[1])),
            landmarks=np.array(r[4:SCORE], dtype=np.float32).reshape(4, 2),
            score=float(r[SCORE]),
        )
        for r in rows
    ]
