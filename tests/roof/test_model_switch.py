"""An INT8 model that fails costs no frame and no punch, from the camera to the queue on disk."""

import json
import logging
import os
import random
import urllib.request

import cv2
import msgspec
import pytest

from kiosk.capture.camera import EndOfFrames, open_camera
from kiosk.clock import SystemClock
from kiosk.config import Camera, Models, Replay, Server, Settings
from kiosk.decide.gallery import Gallery, Template
from kiosk.identity import open_vault
from kiosk.logbook import Logbook
from kiosk.outbox.store import Outbox
from kiosk.reception import Reception
from kiosk.types import Receipt, ReceiptStatus
from kiosk.vision import manifest as manifest_module
from kiosk.vision.picture import load_picture
from kiosk.vision.pipeline import open_pipeline

INT8, FP32 = "mobilefacenet-test-int8", "mobilefacenet-fp32"


class Hasty(SystemClock):
    """A clock that does not pace the replay."""

    def wait(self, event, timeout_s):
        return event.is_set()


class Eyes:
    """The pipeline, and how many faces it gave for each frame."""

    def __init__(self, pipeline):
        self.pipeline, self.threshold = pipeline, pipeline.threshold
        self.faces = []

    def sightings(self, frame):
        found = self.pipeline.sightings(frame)
        self.faces.append(len(found))
        return found


class Silent:
    online = True

    def show(self, notice):
        pass


def two_walk_ups(people):
    """Obama as he was photographed, then Collins in a glare."""
    return Camera(
        source="replay",
        width=640,
        height=480,
        replay=(
            Replay(str(people / "obama.jpg"), seconds=1.5, zoom=1.5),
            Replay(str(people / "collins.jpg"), seconds=1.5, gamma=2.0, zoom=1.5),
        ),
    )


# The INT8 file of a test competes with FP32 alone, not with those that are shipped. As text,
# because the processes of a daemon must do it too.
WITHOUT_SHIPPED_INT8 = """
import kiosk.vision.manifest as m
read = m.read_folder
m.read_folder = lambda folder: [e for e in read(folder) if not (e.shipped and "int8" in e.id)]
"""


@pytest.fixture(autouse=True)
def _no_other_int8(monkeypatch):
    """Here, until the test is over."""
    monkeypatch.setattr(manifest_module, "read_folder", manifest_module.read_folder)
    exec(WITHOUT_SHIPPED_INT8, {})


@pytest.fixture
def day(tmp_path, people):
    """Both walk-ups through reception and queue; what came of them."""

    def run(name, models):
        clock, state = Hasty(), tmp_path / name
        state.mkdir()
        settings = Settings(Server("http://127.0.0.1:9"), camera=two_walk_ups(people))
        enrolling = open_pipeline(Models(), clock=clock, record=lambda *_: None)
        templates = [
            Template(person, enrolling.face_to_enrol(load_picture(path), "x").embedding, "x")
            for person, path in ((p, people / f"{p}.jpg") for p in ("obama", "collins"))
        ]
        eyes = Eyes(open_pipeline(models, clock=clock, record=lambda *_: None, choice_in=state))
        outbox = Outbox(
            state / "outbox.db", vault=open_vault(state), device_id="d", signer=None, clock=clock
        )
        outbox.start()
        logbook = Logbook()
        reception = Reception(
            settings,
            eyes=eyes,
            ledger=outbox,
            link=Silent(),
            screen=Silent(),
            gallery=Gallery(templates),
            logbook=logbook,
            clock=clock,
            rng=random.Random(1),
        )
        frames = 0
        camera = open_camera(settings.camera, clock)
        camera.open()
        try:
            while True:
                frame = camera.read(5.0)
                frames += 1
                reception.receive(frame)
        except EndOfFrames:
            queued = drained(outbox)
        finally:
            outbox.close(5.0)
        return eyes, frames, logbook.summary(), queued

    return run


def drained(outbox):
    """The ids of all that is queued, each leased and settled once."""
    ids = []
    for envelope in outbox.lease(1000):
        ids.append(envelope.event_id)
        outbox.settle(envelope.event_id, Receipt(ReceiptStatus.OK, 0.0))
    return ids


def models_with(folder):
    return Models(extra_dirs=(str(folder),), prefer="int8", threads=1)


def each_once(summary, queued):
    recorded = [(v["person"], v["event_id"]) for v in summary["visits"]]
    assert [person for person, _ in recorded] == ["obama", "collins"]
    assert [event_id for _, event_id in recorded] == queued


def test_an_overflow_in_the_middle_of_a_day_costs_nothing(day, int8_folder, caplog):
    """The same faces in the same frames as with FP32 alone, and each person exactly once."""
    plain, frames, summary, queued = day("fp32", Models(prefer="fp32", threads=1))
    each_once(summary, queued)
    caplog.clear()
    folder = int8_folder("overflows")
    eyes, same_frames, summary, queued = day("int8", models_with(folder))
    assert same_frames == frames == len(eyes.faces) == summary["counts"]["frames"]
    assert eyes.faces == plain.faces
    each_once(summary, queued)
    status = eyes.pipeline.status()
    assert status["model"] == FP32
    assert status["fallback"]["from"] == INT8
    assert status["fallback"]["to"] == FP32
    assert "nan" in status["fallback"]["reason"]
    told = [r.levelno for r in caplog.records if r.message == "model.fallback"]
    assert told == [logging.ERROR]


def test_without_the_fallback_the_day_goes_on_without_that_face(day, int8_folder, caplog):
    """The same file without FP32 behind it drops the faces it fails on, told, and nothing else."""
    folder = int8_folder("overflows")
    alone = Models(embedder=INT8, extra_dirs=(str(folder),), prefer="exact", threads=1)
    eyes, frames, summary, _ = day("alone", alone)
    assert summary["counts"]["frames"] == frames
    assert [v["person"] for v in summary["visits"]][:1] == ["obama"]
    assert "nan" in eyes.pipeline.status()["missed"]["reason"]
    told = [r for r in caplog.records if r.message == "vision.face_dropped"]
    assert len(told) < eyes.pipeline.status()["missed"]["faces"]


def test_a_day_with_good_int8(day, int8_folder):
    """INT8 that holds: in use to the end, no switch, the shadow's cosines near 1."""
    folder = int8_folder("good")
    models = msgspec.structs.replace(models_with(folder), shadow_every=2)
    eyes, _, summary, queued = day("good", models)
    each_once(summary, queued)
    status = eyes.pipeline.status()
    assert (status["model"], status["fallback"]) == (INT8, None)
    assert status["shadow"]["other"] == FP32
    assert status["shadow"]["count"] == sum(eyes.faces) // 2
    assert status["shadow"]["min"] > 0.98


def test_rubbish_never_sees_a_face(day, int8_folder, caplog):
    """INT8 weights of noise under their own hash are refused at the start: FP32 records the day."""
    folder = int8_folder("rubbish")
    eyes, _, summary, queued = day("rubbish", models_with(folder))
    each_once(summary, queued)
    assert eyes.pipeline.status() == {
        "model": FP32,
        "space": "mobilefacenet-192-4pt",
        "fallback": None,
        "ailing": None,
        "missed": None,
        "shadow": None,
        "also": None,
    }
    (refused,) = [r.fields for r in caplog.records if r.message == "model.refused"]
    assert refused["model"] == INT8
    assert "to the golden faces expected" in refused["reason"]


def test_the_daemon_goes_on_with_fp32(daemon, server, people, int8_folder, tmp_path, monkeypatch):
    """As a process: the switch is in journal and status, each person reaches the server once."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(WITHOUT_SHIPPED_INT8, encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(tmp_path / "patch"), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    folder = int8_folder("overflows")
    glare = tmp_path / "glare.jpg"
    pixels = cv2.imread(str(people / "collins.jpg"))
    cv2.imwrite(str(glare), (255 * (pixels / 255) ** 0.5).astype("uint8"))
    models = f'[models]\nprefer = "int8"\nextra_dirs = ["{folder}"]\n'
    daemon.write(server, extra=models, replay=[people / "obama.jpg", glare])
    for person in ("obama", "collins"):
        assert daemon.cli("enrol", person, str(people / f"{person}.jpg")).returncode == 0
    daemon.start(wait_for=f"model={INT8}")
    daemon.read_until("visit.recorded")
    assert daemon.json("status")["model"] == INT8
    line = daemon.read_until("model.fallback")
    assert f"from={INT8} to={FP32}" in line
    # By the time the first comes round again, the second is recorded, by whichever file.
    daemon.read_until("employee=obama")
    status = daemon.json("status")
    assert status["model"] == FP32
    assert status["fallback"]["from"] == INT8
    assert f"instead of {INT8} since" in daemon.cli("status").stdout
    assert daemon.stop() == 0
    with urllib.request.urlopen(f"{server}/attendance", timeout=10) as reply:
        records = json.load(reply)["attendance"]
    assert sorted(record["employee"] for record in records) == ["collins", "obama"]
    daemon.start(wait_for="model.selected")
    assert "cached=true" in daemon.said[-1]
    daemon.read_until("kiosk.ready")
    assert daemon.stop() == 0
