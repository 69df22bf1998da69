"""Frames from a video, a folder of images, or a still as a walk-up, paced like a camera."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kiosk import config
from kiosk.capture.camera import EndOfFrames
from kiosk.capture.walkup import Still, walk_up, wall
from kiosk.clock import NS_PER_S, Clock
from kiosk.errors import CameraError
from kiosk.types import Frame, Pixels

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".webp"}
# Longer than the longest sensible gap between two frames of one visit.
_EMPTY_S = 3.0
_HINT = "replay takes a video file, a folder of images, or one image"


class ReplayCamera:
    """Replays the configured entries in turn, with an empty wall between them."""

    def __init__(self, settings: config.Camera, clock: Clock) -> None:
        self.name = "replay"
        self._settings = settings
        self._clock = clock
        self._never = threading.Event()
        self._frames: Iterator[Pixels] | None = None
        self._next_ns = 0

    def open(self) -> None:
        """Look at every entry, so that a missing or unreadable one is named at once."""
        for entry in self._settings.replay:
            _check(Path(entry.path))
        self._frames = self._all()
        self._next_ns = self._clock.boottime_ns()

    def read(self, timeout_s: float) -> Frame:
        """The next frame when its time has come; EndOfFrames when the replay is over."""
        if self._frames is None:
            raise CameraError("an open camera expected, it is closed", hint="call open first")
        due_s = (self._next_ns - self._clock.boottime_ns()) / NS_PER_S
        if due_s > timeout_s:
            self._clock.wait(self._never, timeout_s)
            raise CameraError(f"a frame within {timeout_s:g} s expected, the next is not due yet")
        self._clock.wait(self._never, max(0.0, due_s))
        pixels = next(self._frames, None)
        if pixels is None:
            raise EndOfFrames("the replay is over")
        # A reader that comes late does not get the missed frames in a burst.
        step = int(NS_PER_S / self._settings.frames_per_s)
        self._next_ns = max(self._next_ns + step, self._clock.boottime_ns())
        return Frame(pixels, self._clock.now(), self.name)

    def close(self) -> None:
        """Forget where it was."""
        self._frames = None

    def _all(self) -> Iterator[Pixels]:
        loops = self._settings.replay_loops
        done = 0
        while loops == 0 or done < loops:
            for index, entry in enumerate(self._settings.replay):
                rng = np.random.default_rng((self._settings.replay_seed, done, index))
                yield from self._empty(rng)
                yield from (self._finished(p, entry) for p in self._entry(entry, rng))
            done += 1
        yield from self._empty(np.random.default_rng((self._settings.replay_seed, done)))

    def _empty(self, rng: np.random.Generator) -> Iterator[Pixels]:
        for _ in range(max(1, round(_EMPTY_S * self._settings.frames_per_s))):
            yield wall(self._settings.width, self._settings.height, rng)

    def _entry(self, entry: config.Replay, rng: np.random.Generator) -> Iterator[Pixels]:
        path = Path(entry.path)
        if path.is_dir():
            for image in _images(path):
                yield self._fitted(_relit(_image(image), entry))
        elif path.suffix.lower() in _IMAGES:
            still = Still(_relit(_image(path), entry), (entry.focus_x, entry.focus_y), entry.zoom)
            frames = max(2, round(entry.seconds * self._settings.frames_per_s))
            size = {"width": self._settings.width, "height": self._settings.height}
            yield from walk_up(still, **size, frames=frames, rng=rng)
        else:
            for pixels in _video(path):
                yield self._fitted(_relit(pixels, entry))

    def _fitted(self, pixels: Pixels) -> Pixels:
        """Scaled to fit the configured size without distortion, on black."""
        width, height = self._settings.width, self._settings.height
        scale = min(width / pixels.shape[1], height / pixels.shape[0])
        inner = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        small = cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA)
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        canvas[top : top + inner[1], left : left + inner[0]] = small
        return canvas

    def _finished(self, pixels: Pixels, entry: config.Replay) -> Pixels:
        if not entry.jpeg_quality:
            return pixels
        quality = [cv2.IMWRITE_JPEG_QUALITY, entry.jpeg_quality]
        _, data = cv2.imencode(".jpg", pixels, quality)
        return _colour(cv2.imdecode(data, cv2.IMREAD_COLOR), "a recompressed frame")


def _relit(pixels: Pixels, entry: config.Replay) -> Pixels:
    """Mirrored and relit as the entry says."""
    if entry.mirror:
        pixels = pixels[:, ::-1]
    if entry.gamma == 1.0:
        return np.ascontiguousarray(pixels)
    levels = 255.0 * (np.arange(256) / 255.0) ** (1.0 / entry.gamma)
    return np.asarray(cv2.LUT(np.ascontiguousarray(pixels), levels.astype(np.uint8)), np.uint8)


def _check(path: Path) -> None:
    if path.is_dir():
        if not _images(path):
            kinds = ", ".join(sorted(_IMAGES))
            raise CameraError(f"{path}: images ({kinds}) expected, none found", hint=_HINT)
        return
    if not path.is_file():
        raise CameraError(f"{path}: a file or folder expected, nothing is there", hint=_HINT)
    if path.suffix.lower() in _IMAGES:
        _image(path)
        return
    next(_video(path))


def _images(folder: Path) -> list[Path]:
    """The folder's images in name order, with numbers in names taken as numbers."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGES]
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _image(path: Path) -> Pixels:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise CameraError(f"{path}: cannot be read: {error.strerror}", hint=_HINT) from error
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return _colour(pixels, str(path))


def _colour(pixels: Any, name: str) -> Pixels:
    if pixels is None:
        raise CameraError(f"{name}: an image expected, it cannot be decoded", hint=_HINT)
    return np.asarray(pixels, dtype=np.uint8)


def _video(path: Path) -> Iterator[Pixels]:
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        good, pixels = video.read()
        if not good:
            raise CameraError(f"{path}: a video expected, no frame can be decoded", hint=_HINT)
        while good:
            yield _colour(pixels, str(path))
            good, pixels = video.read()
    finally:
        video.release()
