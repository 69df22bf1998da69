"""What a replay reads from the disk: stills, folders of images, videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from kiosk.errors import CameraError
from kiosk.types import Pixels

# By name in a folder, where notes and checksums lie beside the images.
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
_HINT = "camera.replay.path takes a video file, a folder of images, or one image"
_OPEN = "the kiosk's user must be able to read it; the service sees nothing below /home"


def check(path: Path) -> None:
    """Look at a file or folder without reading all of it.

    Raises CameraError naming the path that is missing, empty or cannot be decoded. Of a folder
    each image's signature is looked at, of a video the first frame is decoded.
    """
    try:
        if path.is_dir():
            _check_folder(path)
        elif not path.is_file():
            raise CameraError(f"{path}: a file or folder expected, nothing is there", hint=_HINT)
        elif is_still(path):
            load_still(path)
        else:
            next(_video(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def is_still(path: Path) -> bool:
    """Whether a file is one image: by its name, or else by its first bytes."""
    return path.suffix.lower() in _IMAGES or cv2.haveImageReader(str(path))


def load_still(path: Path) -> Pixels:
    """One image as BGR, uint8 (height, width, 3), turned upright as its EXIF data says."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        # OpenCV raises for an empty buffer and for absurd sizes, and returns nothing otherwise.
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        raise _unreadable(path, error) from error
    except cv2.error as error:
        raise _undecodable(path) from error
    if pixels is None:
        raise _undecodable(path)
    return np.asarray(pixels, dtype=np.uint8)


def pictures(path: Path) -> Iterator[Pixels]:
    """Every image of a folder in name order, or every frame of a video, as `load_still` has them.

    Numbers in names count as numbers: `frame-2.png` comes before `frame-10.png`.
    """
    if path.is_dir():
        return (load_still(image) for image in _images(path))
    return _video(path)


def frames_per_s(path: Path) -> float:
    """The rate that a video claims; 0 when it claims none, as images do."""
    if path.is_dir() or is_still(path):
        return 0.0
    video = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        return max(0.0, float(video.get(cv2.CAP_PROP_FPS)))
    finally:
        video.release()


def _check_folder(folder: Path) -> None:
    images = _images(folder)
    if not images:
        kinds = ", ".join(sorted(_IMAGES))
        raise CameraError(f"{folder}: images ({kinds}) expected, none found", hint=_HINT)
    for image in images:
        if not cv2.haveImageReader(str(image)):
            raise _undecodable(image)
    load_still(images[0])


def _images(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGES]
    except OSError as error:
        raise _unreadable(folder, error) from error
    visible = [path for path in found if path.is_file() and not path.name.startswith(".")]
    return sorted(visible, key=lambda path: (_natural(path.name), path.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _video(path: Path) -> Iterator[Pixels]:
    # An absolute path: FFmpeg takes what stands before a colon for a protocol.
    video = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        good, pixels = video.read()
        if not good:
            raise CameraError(
                f"{path}: a video expected, no frame of it can be decoded", hint=_HINT
            )
        while good:
            yield np.asarray(pixels, dtype=np.uint8)
            good, pixels = video.read()
    finally:
        video.release()


def _unreadable(path: Path, error: OSError) -> CameraError:
    hint = _OPEN if isinstance(error, PermissionError) else _HINT
    return CameraError(f"{path}: cannot be read: {error.strerror}", hint=hint)


def _undecodable(path: Path) -> CameraError:
    return CameraError(f"{path}: an image expected, it cannot be decoded", hint=_HINT)
