"""One path for stills and frames: order, bounds, stages, and what it does with odd landmarks."""

import numpy as np
import pytest

from kiosk.config import Models
from kiosk.errors import EmbeddingError, ModelError
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
    id, space, threshold, fallback, ailing = "fake-fp32", "fake", 0.5, None, ""

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


class Choosy(Embedder):
    """Gives nothing for the crops of whose turn `fails` says so."""

    def __init__(self, fails, space="fake", error=None):
        self.fails, self.space, self.turn = fails, space, 0
        self.error = error or EmbeddingError("a model output of length nan cannot be normalised")

    def embed(self, aligned):
        self.turn += 1
        if self.fails(self.turn):
            raise self.error
        return super().embed(aligned)


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


ERRORS = [EmbeddingError("length nan"), ModelError("cannot run it"), MemoryError(), ValueError("?")]


@pytest.mark.parametrize("error", ERRORS)
def test_a_face_that_cannot_be_embedded_costs_itself_alone(error, caplog):
    """Whatever the model raises, the other faces of the frame are seen; it is told and counted."""
    eyes = FacePipeline(
        Detector([face(120), face(90), face(60)]),
        Choosy(lambda turn: turn == 2, error=error),
        clock=Ticking(),
        record=lambda _stage, _ms: None,
    )
    assert [s.box[2] for s in eyes.sightings(frame())] == [120, 60]
    (record,) = caplog.records
    assert (record.message, record.levelname) == ("vision.face_dropped", "WARNING")
    assert record.fields["faces"] == eyes.status()["missed"]["faces"] == 1


def test_a_second_space_that_fails_costs_its_embedding_alone():
    """The embedding of the space in use stands, whatever becomes of the other."""
    eyes = FacePipeline(
        Detector([face(120)]),
        Embedder(),
        clock=Ticking(),
        record=lambda _stage, _ms: None,
        also=Choosy(lambda _: True, space="other"),
    )
    (seen,) = eyes.sightings(frame())
    assert (seen.embedding.space, seen.also) == ("fake", None)
    assert eyes.status()["missed"] is None
    assert eyes.status()["also"]["missed"]["faces"] == 1


def test_a_model_that_gives_nothing_at_all_is_told_as_critical_once(caplog):
    """Many frames with faces, not one embedding: blind in journal and status until one comes."""
    eyes = FacePipeline(
        Detector([face(120)]),
        Choosy(lambda turn: turn <= 100),
        clock=Ticking(),
        record=lambda _stage, _ms: None,
    )
    for _ in range(29):
        eyes.sightings(frame())
    assert eyes.status()["missed"]["blind"] is False
    for _ in range(71):
        eyes.sightings(frame())
    assert eyes.status()["missed"]["blind"] is True
    told = [(r.message, r.levelname) for r in caplog.records]
    assert told == [("vision.face_dropped", "WARNING"), ("model.blind", "CRITICAL")]
    assert len(eyes.sightings(frame())) == 1
    assert eyes.status()["missed"]["blind"] is False
    assert caplog.records[-1].message == "model.sees_again"


def test_a_still_says_what_is_wrong_with_its_face():
    """Nobody is enrolled from a picture with a face left out silently."""
    eyes = FacePipeline(
        Detector([face(120)]),
        Choosy(lambda _: True),
        clock=Ticking(),
        record=lambda _stage, _ms: None,
    )
    with pytest.raises(EmbeddingError, match="model fake-fp32: a model output"):
        eyes.faces(frame().pixels)


def test_what_is_set_aside_is_told_at_the_start(tmp_path, caplog):
    """A kiosk that uses shipped models starts, and says what it left out."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "manifest.toml").write_text("[[model]]\nid=")
    models = Models(prefer="exact")
    open_pipeline(models, clock=Ticking(), record=lambda _stage, _ms: None, choice_in=tmp_path)
    (record,) = [r for r in caplog.records if r.message == "model.set_aside"]
    assert record.levelname == "ERROR"
