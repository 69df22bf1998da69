"""One path for stills and frames: order, bounds, stages, and what it does with odd landmarks."""

import numpy as np
import pytest

from kiosk.config import Models
from kiosk.errors import ModelError
from kiosk.types import Embedding, Frame, Stamp, Trust
from kiosk.vision.align import TEMPLATE
from kiosk.vision.blazeface import Detection
from kiosk.vision.pipeline import FacePipeline, open_pipeline

SEEN = Stamp(5, 7, "boot", Trust.SYNCED)


class Ticking:
    """A clock that moves by a millisecond at every look."""

    def __init__(self):
        self.ns = 0

    def boottime_ns(self):
        self.ns += 1_000_000
        return self.ns


class Detector:
    def __init__(self, found):
        self.found = found

    def detect(self, _pixels):
        return list(self.found)

    glance = detect


class Embedder:
    id, space, threshold = "fake-fp32", "fake", 0.5

    def embed(self, aligned):
        assert aligned.shape == (112, 112, 3)
        return Embedding.of(np.arange(1.0, 65.0), self.space)


def face(side, landmarks=None):
    points = TEMPLATE * (side / 112) if landmarks is None else landmarks
    return Detection((0.0, 0.0, float(side), float(side)), np.array(points, np.float32), 0.9)


def pipeline(found, stages=None):
    stages = [] if stages is None else stages
    return FacePipeline(
        Detector(found),
        Embedder(),
        clock=Ticking(),
        record=lambda stage, ms: stages.append((stage, ms)),
    )


def frame():
    return Frame(np.zeros((480, 640, 3), np.uint8), SEEN, "test")


def test_largest_first_and_bounded():
    """A still gives all faces, a frame of a crowd the four largest; each the largest first."""
    crowd = [face(side) for side in (30, 90, 60, 150, 120, 45)]
    sizes = [found.detection.box[2] for found in pipeline(crowd).faces(frame().pixels)]
    assert sizes == [150, 120, 90, 60, 45, 30]
    assert [s.box[2] for s in pipeline(crowd).sightings(frame())] == [150, 120, 90, 60]


def test_every_stage_is_timed_by_the_clock_given():
    """detect for each frame; align and embed for each face in it."""
    stages = []
    eyes = pipeline([face(90), face(60)], stages)
    eyes.sightings(frame())
    assert [name for name, _ in stages] == ["detect", "align", "embed", "align", "embed"]
    assert {ms for _, ms in stages} == {1.0}
    pipeline([], stages := []).sightings(frame())
    assert [name for name, _ in stages] == ["detect"]


def test_a_sighting_carries_what_was_seen():
    """Frame time, landmarks in pixels of the frame, quality; liveness is not measured."""
    (seen,) = pipeline([face(112)]).sightings(frame())
    assert seen.seen is SEEN
    assert seen.landmarks == pytest.approx(TEMPLATE, abs=1e-3)
    assert seen.score == 0.9
    assert seen.liveness is None
    assert seen.track == 0
    assert seen.quality.exposure == 0.0
    assert seen.quality.size == 1.0


def test_landmarks_of_no_face_are_skipped_and_told(caplog):
    """One bad detection costs neither the others nor the frame, and is in the journal."""
    bad = face(100, np.full((4, 2), 9.0))
    with caplog.at_level("INFO"):
        assert len(pipeline([bad, face(60)]).sightings(frame())) == 1
    assert [record.message for record in caplog.records] == ["vision.no_face"]


def test_a_model_for_another_alignment_is_refused(put_model, tiny, tmp_path):
    """Embeddings of another alignment would not compare; the error names both."""
    put_model(tiny(), alignment="five-point")
    models = Models(embedder="tiny-fp32", extra_dirs=(str(tmp_path),))
    with pytest.raises(ModelError, match=r"arcface-112-4pt expected.*five-point"):
        open_pipeline(models, clock=Ticking(), record=lambda _stage, _ms: None)
