"""Frames from videos, folders of images and stills turned into walk-ups, paced like a camera."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from kiosk import config
from kiosk.capture import footage
from kiosk.capture.camera import EndOfFrames, Wanted, everything
from kiosk.capture.walkup import Still, Wall, walk_up
from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import CameraError
from kiosk.types import Frame, Pixels, Stamp

log = logging.getLogger(__name__)

# Longer than the default gap that ends a visit, so that each entry is a visit of its own.
_EMPTY_S = 3.0


class ReplayCamera:
    """Replays the configured entries in turn; before each and after the last the wall is empty.

    Every image of a folder and every frame of a video is one frame, at `frames_per_s` of the
    configuration whatever a video claims. What an entry says is done in this order: mirror, relight
    (gamma), scale onto black without distortion (or walk up, for a still), recompress. The same
    configuration gives the same bytes after every `open`.
    """

    def __init__(self, settings: config.Camera, clock: Clock) -> None:
        self.name = "replay"
        self._settings = settings
        self._clock = clock
        self._step_ns = int(NS_PER_S / settings.frames_per_s)
        self._closed = threading.Event()
        self._frames: Iterator[Pixels] | None = None
        self._next_ns = 0

    def open(self) -> None:
        """Look at every entry, so that a missing or unreadable one is named at once."""
        for number, entry in enumerate(self._settings.replay):
            footage.check(Path(entry.path))
            self._compare_rate(number, Path(entry.path))
        self._closed = threading.Event()
        self._frames = self._all()
        self._next_ns = self._clock.boottime_ns()

    def read(self, timeout_s: float, wanted: Wanted = everything) -> Frame | None:
        """The next frame when its time has come; EndOfFrames when the replay is over.

        Its grey picture is every fourth pixel of every fourth row.
        """
        frames, closed = self._frames, self._closed
        if frames is None:
            raise CameraError(f"{self.name}: an open camera expected, it is closed")
        due_s = (self._next_ns - self._clock.boottime_ns()) / NS_PER_S
        if self._clock.wait(closed, min(max(0.0, due_s), timeout_s)):
            raise CameraError(f"{self.name}: a frame expected, the camera was closed")
        if due_s > timeout_s:
            raise CameraError(
                f"{self.name}: a frame within {timeout_s:g} s expected, the next is not due yet",
                hint="raise camera.frames_per_s or camera.frame_timeout_s",
            )
        pixels, seen = self._next(frames), self._paced()
        # The middle one of three channels is nearly the brightness, and costs nothing.
        if not wanted(np.ascontiguousarray(pixels[::4, ::4, 1])):
            return None
        return Frame(pixels, seen, self.name)

    def close(self) -> bool:
        """End a read that waits, and forget where it was."""
        self._closed.set()
        self._frames = None
        return True

    def _next(self, frames: Iterator[Pixels]) -> Pixels:
        try:
            pixels = next(frames, None)
        except CameraError:
            # A file went bad on the way: what comes after it is not the end of the replay.
            self._frames = None
            raise
        if pixels is None:
            raise EndOfFrames("the replay is over")
        return pixels

    def _paced(self) -> Stamp:
        """The frame's moment. A reader that comes late gets no burst of what it missed."""
        now = self._clock.now()
        due_ns, latest_ns = self._next_ns + self._step_ns, now.boottime_ns + self._step_ns
        # Never more than a step ahead: a clock that does not wait replays as fast as it can.
        self._next_ns = min(due_ns, latest_ns) if due_ns > now.boottime_ns else latest_ns
        return now

    def _compare_rate(self, number: int, path: Path) -> None:
        """A video at another rate plays too slowly or too fast: told, because nobody sees why."""
        claimed = footage.frames_per_s(path)
        wanted = self._settings.frames_per_s
        if claimed and abs(claimed - wanted) > 0.05 * wanted:
            facts = {"entry": number, "video_frames_per_s": claimed, "frames_per_s": wanted}
            log.warning("camera.replay_rate", extra={"fields": facts})

    def _all(self) -> Iterator[Pixels]:
        settings = self._settings
        seed = settings.replay_seed
        wall = Wall(settings.width, settings.height, np.random.default_rng(seed))
        loops = settings.replay_loops
        for turn in range(loops) if loops else itertools.count():
            for number, entry in enumerate(settings.replay):
                rng = np.random.default_rng((seed, turn, number))
                yield from self._empty(wall, rng)
                log.info("camera.replaying", extra={"fields": {"entry": number, "turn": turn}})
                for pixels in self._entry(entry, wall, rng):
                    yield _recompressed(pixels, entry.jpeg_quality)
        yield from self._empty(wall, np.random.default_rng((seed, loops)))

    def _empty(self, wall: Wall, rng: np.random.Generator) -> Iterator[Pixels]:
        for _ in range(max(1, round(_EMPTY_S * self._settings.frames_per_s))):
            yield wall.empty(rng)

    def _entry(
        self, entry: config.Replay, wall: Wall, rng: np.random.Generator
    ) -> Iterator[Pixels]:
        path, frame = Path(entry.path), (wall.width, wall.height)
        if path.is_dir() or not footage.is_still(path):
            return (_fitted(_relit(each, entry), *frame) for each in footage.pictures(path))
        pixels = _relit(footage.load_still(path), entry)
        still = Still(pixels, (entry.focus_x, entry.focus_y), entry.zoom, frame)
        rate = self._settings.frames_per_s
        return walk_up(still, wall, seconds=entry.seconds, frames_per_s=rate, rng=rng)


def _relit(pixels: Pixels, entry: config.Replay) -> Pixels:
    """Mirrored and relit as the entry says; its focus is that of the mirrored picture."""
    if entry.mirror:
        pixels = np.asarray(cv2.flip(pixels, 1), dtype=np.uint8)
    if entry.gamma == 1.0:
        return pixels
    levels = 255.0 * (np.arange(256) / 255.0) ** (1.0 / entry.gamma)
    return np.asarray(cv2.LUT(pixels, np.rint(levels).astype(np.uint8)), dtype=np.uint8)


def _fitted(pixels: Pixels, width: int, height: int) -> Pixels:
    """The whole picture in the middle of a black frame, as large as it goes, undistorted."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    inner = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    frame[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        pixels, inner, interpolation=way
    )
    return frame


def _recompressed(pixels: Pixels, quality: int) -> Pixels:
    if not quality:
        return pixels
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)
