"""The mail: every value that crosses a door between rooms. Data goes one way:

`Frame -> Sighting -> Punch -> Envelope -> Receipt`
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiosk.errors import EmbeddingError, SpaceMismatchError

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, width, height in pixels of the frame."""


class Trust(Enum):
    """How far a wall-clock time may be believed."""

    SYNCED = "synced"
    CORRECTED = "corrected"
    """Set right afterwards, from a synchronised clock of the same boot."""
    ESTIMATED = "estimated"
    """Nothing vouches for it but the bounds that come with it."""
    UNSYNCED = "unsynced"
    """As the clock told it, before anybody asked what bounds it."""


class Direction(Enum):
    """Event type of a punch; the value is what `A2` carries on the wire."""

    IN = "IN"
    OUT = "OUT"


class ReceiptStatus(Enum):
    """The server's word on one event (`S1` of the reply)."""

    OK = "ok"
    DUPLICATE = "duplicate"
    PENDING = "pending"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment: wall time, time since boot, and how far the wall time may be believed.

    `utc_ms` is milliseconds since 1970-01-01 UTC; `boottime_ns` is CLOCK_BOOTTIME, comparable
    only within one `boot_id`. `bounds_ms`: the earliest and the latest that it can have been, of
    an estimated time.
    """

    utc_ms: int
    boottime_ns: int
    boot_id: str
    trust: Trust
    bounds_ms: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from a camera.

    `pixels`: uint8, shape (height, width, 3), BGR, read-only. `camera`: a label for the journal.
    """

    pixels: Pixels
    seen: Stamp
    camera: str

    def __post_init__(self) -> None:
        self.pixels.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """An L2-normalised face embedding.

    `vector`: float32, shape (dim,), read-only, norm 1 within 1e-3. `space`: id of weights and
    alignment (`F2_MODEL` on the wire); embeddings of two spaces are never compared.
    Raises EmbeddingError for anything that is not a unit vector of finite, unequal values.
    """

    vector: FloatArray
    space: str

    def __post_init__(self) -> None:
        vector = self.vector
        if vector.ndim != 1 or vector.dtype != np.float32:
            raise EmbeddingError(
                f"an embedding is a float32 vector, got {vector.dtype} of shape {vector.shape}"
            )
        if vector.size == 0 or not np.isfinite(vector).all():
            raise EmbeddingError("an embedding holds finite values, got none or not finite ones")
        norm = float(np.linalg.norm(vector))
        if abs(norm - 1.0) > 1e-3:
            raise EmbeddingError(f"an embedding has length 1, got {norm:.4g}")
        if float(np.ptp(vector)) < 1e-6:
            raise EmbeddingError("an embedding varies, got one value throughout")
        vector.flags.writeable = False

    @classmethod
    def of(cls, raw: NDArray[Any], space: str) -> Embedding:
        """Normalise a raw model output, shape (dim,), to an embedding of `space`."""
        vector = np.array(raw, dtype=np.float32).reshape(-1)
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(norm) or norm < 1e-12:
            raise EmbeddingError(f"a model output of length {norm:.4g} cannot be normalised")
        return cls((vector / norm).astype(np.float32), space)

    def similarity(self, other: Embedding) -> float:
        """Cosine similarity in -1..1; SpaceMismatchError for another space or dimension."""
        if self.space != other.space or self.vector.size != other.vector.size:
            raise SpaceMismatchError(
                f"embeddings of one space can be compared, got {self.space}"
                f" ({self.vector.size}) and {other.space} ({other.vector.size})",
                hint="enrol again with the model in use",
            )
        return float(np.dot(self.vector, other.vector))


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is, each measure in 0 (useless) .. 1 (ideal)."""

    size: float
    sharpness: float
    exposure: float
    pose: float
    edge: float

    @property
    def overall(self) -> float:
        """The weakest measure: a face is as usable as its worst defect."""
        return min(self.size, self.sharpness, self.exposure, self.pose, self.edge)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One face in one frame.

    `landmarks`: float32 (4, 2), pixels of the frame: right eye, left eye, nose tip, mouth centre
    (right and left of the person). `score`: detector's confidence 0..1. `liveness` is None while
    it is not measured. `track` is 0 until the deciding room has followed the face over frames.
    `also` is the same face in a second space, where two run side by side; EmbeddingError when it
    is of the same space.
    """

    embedding: Embedding
    box: Box
    landmarks: FloatArray
    score: float
    quality: Quality
    liveness: float | None
    seen: Stamp
    track: int = 0
    also: Embedding | None = None

    def __post_init__(self) -> None:
        self.landmarks.flags.writeable = False
        if self.also is not None and self.also.space == self.embedding.space:
            raise EmbeddingError(
                f"a second embedding of another space expected, got {self.also.space} again"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Punch:
    """One attendance event. From here on nothing may be dropped.

    `employee` and `score` are None when the kiosk leaves the identification to the server.
    `quality` is the overall quality 0..1 of the face that the embedding was taken from.
    """

    event_id: str
    employee: str | None
    kind: Direction | None
    embedding: Embedding
    score: float | None
    quality: float
    liveness: float | None
    seen: Stamp


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message to send: `body` is frozen, the same bytes at every attempt."""

    seq: str
    event_id: str
    body: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The server's word on one event, authenticated where a key is set."""

    status: ReceiptStatus
    min_delay_s: float
