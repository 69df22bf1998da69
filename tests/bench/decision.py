"""Detector, alignment, quality, embedding and match together, against the embedder alone."""

import cv2
import numpy as np

from bench.faces import PEOPLE
from bench.models import eyes
from bench.timing import best_of, timed
from kiosk.config import Recognition
from kiosk.decide.gallery import Gallery, Template
from kiosk.decide.policy import Policy
from kiosk.types import Frame, Pixels, Stamp, Trust
from kiosk.vision.picture import load_picture

CYCLE = 4
ROUNDS = 20


class NeverRecorded:
    """A history in which nobody was recorded."""

    def last_recorded(self, employee, kind):
        return None


def frame_of(width: int, height: int, zoom: float = 1.0) -> Pixels:
    """A photograph in the middle of a grey frame."""
    photo = load_picture(PEOPLE / "obama.jpg")
    scale = height / photo.shape[0] * zoom
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 96, np.uint8)
    left = (width - small.shape[1]) // 2
    canvas[:, max(left, 0) : max(left, 0) + small.shape[1]] = small[:height, :width]
    return canvas


def tell() -> None:
    """Print the two times and their ratio."""
    pipeline, pixels = eyes(), frame_of(640, 480)
    face = pipeline.faces(pixels)[0]
    gallery = Gallery([Template(f"p{n}", face.embedding, str(n)) for n in range(50)])
    policy = Policy(
        Recognition(),
        threshold=pipeline.threshold,
        direction=None,
        gallery=gallery,
        history=NeverRecorded(),
    )
    frame = Frame(pixels, Stamp(0, 0, "bench", Trust.SYNCED), "bench")

    def decide():
        policy.decide(pipeline.sightings(frame), frame.seen)

    # A known face is followed for three frames and searched for at the fourth: the mean of such a
    # cycle is what a kiosk pays, not its cheapest frame.
    runs = {
        "embedder alone": timed(
            lambda: [pipeline.embed_aligned(face.aligned) for _ in range(CYCLE)]
        ),
        "frame to decision": timed(lambda: [decide() for _ in range(CYCLE)]),
    }
    best = {name: ms / CYCLE for name, ms in best_of(runs, ROUNDS).items()}
    ratio = best["frame to decision"] / best["embedder alone"]
    shares = [round(float(s), 2) for s in face.detection.box]
    told = ", ".join(f"{name} {ms:.2f} ms" for name, ms in best.items())
    print(f"640x480, one face {shares}, one thread: {told}")
    print(
        f"640x480: frame to decision / embedder = {ratio:.2f} (mean of a cycle of {CYCLE} frames)"
    )
