"""From one model to another: both spaces run side by side until everybody has enrolled again."""

import contextlib
import json
import logging
import random
import urllib.request

import numpy as np
import pytest

from kiosk.__main__ import main
from kiosk.capture.camera import EndOfFrames, open_camera
from kiosk.changeover import changeover, in_words
from kiosk.clock import SystemClock
from kiosk.config import Camera, Journal, Models, Replay, load
from kiosk.decide.gallery import Gallery, Template
from kiosk.errors import ConfigError, GalleryError, ModelError
from kiosk.journal import set_up
from kiosk.lab.adopt import Wish, adopt
from kiosk.logbook import Logbook
from kiosk.people import People
from kiosk.reception import Reception
from kiosk.state import open_state
from kiosk.types import Embedding
from kiosk.vision.manifest import load_manifest
from kiosk.vision.own_models import OwnModels
from kiosk.vision.picture import load_picture
from kiosk.vision.pipeline import open_pipeline

OLD, NEW = "mobilefacenet-192-4pt", "own-192-4pt"
BOTH = 'embedder = "own-fp32"\nalso = "mobilefacenet-fp32"\n'


def add_own(state_dir, repository):
    """The shipped plain model under an id and a space of its own, with a threshold."""
    own = OwnModels(state_dir)
    wish = Wish("own-fp32", "arcface-112-4pt", space=NEW)
    adopt(repository / "models" / "mobilefacenet-prelu-fp32.onnx", wish, own, load_manifest())
    own.set_threshold("own-fp32", 0.55, "by a test")
    return own


def templates(person, *spaces, seed=1):
    """A template of a person in each space."""
    vector = np.random.default_rng(seed).standard_normal(192)
    return [Template(person, Embedding.of(vector, space), f"{person} {space}") for space in spaces]


GALLERY = Gallery([*templates("anna", OLD), *templates("bert", OLD, NEW), *templates("carl", NEW)])


@pytest.fixture
def config(tmp_path, repository):
    """A function that writes a configuration; own-fp32 is in its state folder."""
    add_own(tmp_path / "state", repository)

    def write(models, names=False):
        path = tmp_path / "kiosk.toml"
        path.write_text(
            f'[server]\nurl = "http://127.0.0.1:9"\n[paths]\nstate_dir = "{tmp_path}/state"\n'
            f'runtime_dir = "{tmp_path}/run"\n[journal]\nnames = {str(names).lower()}\n'
            f"[models]\nthreads = 1\n{models}"
        )
        return path

    return write


@pytest.fixture
def run(capsys):
    """A function that runs one command: exit status, standard output, standard error."""

    def kiosk(*arguments):
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return kiosk


@pytest.fixture
def enrolled(config):
    """A function that puts a gallery into the state folder."""

    def put(gallery):
        state = open_state(load(config("")))
        try:
            state.save_gallery(gallery)
        finally:
            state.close()

    return put


class Holder:
    def __init__(self, gallery):
        self.gallery = gallery


class Disk:
    """A state that saves nothing, and the mark of what was saved."""

    def save_gallery(self, gallery, *, beyond=0):
        return beyond + 1

    def gallery_mark(self):
        return 0

    def mark_gallery(self, number):
        pass


def people_of(gallery, also=None):
    """The new space in use, the old one beside it if `also` says so."""
    disk = Disk()
    return People(disk, Holder(gallery), space=NEW, dim=192, thresholds={}, marks=disk, also=also)


BESIDE = (OLD, 192)


@pytest.mark.parametrize(
    ("space", "also", "waiting", "unrecognised", "over"),
    [
        (OLD, "", (), ("carl",), False),
        (NEW, "", (), ("anna",), False),
        (NEW, OLD, ("anna",), (), False),
        (NEW, "third", (), ("anna",), False),
    ],
)
def test_who_must_enrol_again(space, also, waiting, unrecognised, over):
    """Who has no face in the space in use: recognised by the other meanwhile, or by none."""
    found = changeover(GALLERY, space, also)
    assert (found.waiting, found.unrecognised, found.is_over) == (waiting, unrecognised, over)


def test_it_is_over_when_everybody_is_in_the_new_space():
    """Only while a second space runs is there anything to take out."""
    gallery = GALLERY.removed("anna")
    assert changeover(gallery, NEW, OLD).is_over
    assert not changeover(gallery, NEW).is_over
    (line,) = in_words(changeover(gallery, NEW, OLD).document(names=False))
    assert "models.also can be taken out" in line
    assert in_words(changeover(gallery, NEW).document(names=True)) == []


@pytest.mark.parametrize("names", [False, True])
def test_the_journal_names_people_only_where_it_may(capsys, names):
    """A count always, ids with journal.names; the second space is named, and what it means."""
    set_up(Journal(names=names), clock=SystemClock())
    people_of(GALLERY, BESIDE).warn_of_other_spaces()
    people_of(GALLERY).warn_of_other_spaces()
    waiting, lost = [line for line in capsys.readouterr().err.splitlines() if "other_model" in line]
    assert "people=1" in waiting
    assert "recognised by models.also until they enrol again" in waiting
    assert "not recognised" in lost
    assert ("employee=anna" in waiting, "employee=anna" in lost) == (names, names)
    assert "anna" not in (waiting + lost if not names else "")


def test_the_last_to_enrol_again_ends_it(caplog):
    """The moment everybody is in the new space the journal says what can go."""
    people = people_of(GALLERY, BESIDE)
    with caplog.at_level(logging.INFO):
        people.enrol(templates("bert", NEW, seed=2))
        assert "gallery.also_can_go" not in caplog.messages
        people.enrol(templates("anna", NEW, OLD))
        assert "gallery.also_can_go" in caplog.messages


def test_a_third_space_is_still_refused():
    """Only what one of the two models made may be enrolled."""
    people = people_of(GALLERY, BESIDE)
    with pytest.raises(GalleryError, match="a face of space own-192-4pt expected, got third"):
        people.enrol(templates("anna", "third"))


def test_each_space_has_its_own_dimension():
    """A second space of 512 values takes 512, and only there."""
    people = people_of(GALLERY.removed("anna").removed("bert"), ("wide", 512))
    wide = Embedding.of(np.random.default_rng(3).standard_normal(512), "wide")
    assert people.enrol([Template("carl", wide, "w")])["people"] == {"carl": 2}
    narrow = Embedding.of(np.random.default_rng(3).standard_normal(192), "wide")
    with pytest.raises(GalleryError, match="a face of 512 values expected, got 192"):
        people.enrol([Template("carl", narrow, "n")])


def test_list_and_doctor_say_who(config, enrolled, run):
    """The list names them, doctor only where the journal may."""
    enrolled(GALLERY)
    path = config('embedder = "own-fp32"\n')
    status, out, _ = run("gallery", "list", "--config", path)
    assert status == 0
    assert [line.split() for line in out.splitlines()[2:5]] == [
        ["anna", "1", "must", "enrol", "again"],
        ["bert", "2"],
        ["carl", "1"],
    ]
    assert "1 not recognised" in out
    status, out, _ = run("doctor", "--config", path)
    assert status == 1
    assert "failed  enrolment: 1 not recognised" in out
    assert "anna" not in out
    status, out, _ = run("doctor", "--config", config(BOTH, names=True))
    assert "warning enrolment: 1 recognised by models.also" in out
    assert "to enrol again: anna" in out
    _, out, _ = run("gallery", "list", "--config", path, "--json")
    assert json.loads(out)["changeover"]["enrol_again"] == ["anna"]
    enrolled(GALLERY.removed("anna"))
    _, out, _ = run("doctor", "--config", config(BOTH))
    assert "models.also can be taken out" in out
    _, out, _ = run("doctor", "--config", path)
    assert "everybody is enrolled for own-192-4pt" in out


def test_enrolment_stores_both_spaces_in_one_go(config, run, people):
    """One picture, a template in each space, and nothing left to do for that person."""
    path = config(BOTH)
    status, out, _ = run("enrol", "obama", people / "obama.jpg", "--config", path)
    assert status == 0
    assert "obama: 2 faces enrolled" in out
    _, out, _ = run("gallery", "show", "obama", "--config", path, "--json")
    assert [face["space"] for face in json.loads(out)["faces"]] == [NEW, OLD]
    _, out, _ = run("gallery", "list", "--config", path, "--json")
    assert json.loads(out)["changeover"]["also_can_go"]


def test_two_files_of_one_space_are_no_second_space(config, run, people):
    """models.also of the same space is refused by name, and the same id at once."""
    path = config('embedder = "mobilefacenet-fp32"\nalso = "mobilefacenet-prelu-fp32"\n')
    status, _, err = run("enrol", "obama", people / "obama.jpg", "--config", path)
    assert status == 1
    words = "models.also: a model of another space than mobilefacenet-fp32 expected"
    assert words in err
    assert words in run("doctor", "--config", path)[1]
    with pytest.raises(ConfigError, match=r"models\.also: expected a model of another space"):
        load(config('embedder = "own-fp32"\nalso = "own-fp32"\n'))
    models = Models(also="none-fp32")
    with pytest.raises(ModelError, match="'none-fp32' is in no manifest"):
        open_pipeline(models, clock=SystemClock(), record=print, choice_in=path.parent / "state")


def test_no_second_space_costs_nothing(config):
    """Without models.also each face is embedded once, and no second file is loaded."""
    path = config("")
    eyes = open_pipeline(
        load(path).models, clock=SystemClock(), record=print, choice_in=path.parent / "state"
    )
    assert (eyes.also_space, eyes.status()["also"]) == (None, None)
    assert not (path.parent / "state" / "model-choice-also.json").exists()


class Hasty(SystemClock):
    """A clock that does not pace the replay."""

    def wait(self, event, timeout_s):
        return event.is_set()


class Ledger:
    def __init__(self):
        self.punches = []

    def put(self, punch):
        self.punches.append(punch)
        return str(len(self.punches))

    def last_recorded(self, employee, kind):
        return next((p.seen for p in reversed(self.punches) if p.employee == employee), None)


class Silent:
    online = True

    def show(self, notice):
        pass


@pytest.mark.parametrize("unknown", ["drop", "send"])
def test_each_person_is_recorded_once_in_the_space_they_are_in(config, people, tmp_path, unknown):
    """Obama enrolled long ago, Collins in both, Biden never: one punch each, in the right space."""
    settings = load(config(BOTH + f'[recognition]\nunknown = "{unknown}"\nrepeat_window_s = 0.0\n'))
    clock, stages = Hasty(), []
    eyes = open_pipeline(
        settings.models,
        clock=clock,
        record=lambda stage, _ms: stages.append(stage),
        choice_in=tmp_path / "state",
    )
    faces = {
        p: eyes.face_to_enrol(load_picture(people / f"{p}.jpg"), p) for p in ("obama", "collins")
    }
    known = [Template("obama", faces["obama"].also, "o")]
    known += [Template("collins", e, "c") for e in faces["collins"].embeddings]
    ledger = Ledger()
    reception = Reception(
        settings,
        eyes=eyes,
        ledger=ledger,
        link=Silent(),
        screen=Silent(),
        gallery=Gallery(known),
        logbook=Logbook(),
        clock=clock,
        rng=random.Random(1),
        also_threshold=eyes.also_threshold,
    )
    replays = tuple(
        Replay(str(people / f"{p}.jpg"), seconds=1.5, zoom=1.5)
        for p in ("obama", "collins", "biden")
    )
    camera = open_camera(Camera(source="replay", width=640, height=480, replay=replays), clock)
    camera.open()
    with contextlib.suppress(EndOfFrames):
        while True:
            reception.receive(camera.read(5.0))
    came = [(p.employee, p.embedding.space) for p in ledger.punches]
    expected = [("obama", OLD), ("collins", NEW)] + [(None, NEW)] * (unknown == "send")
    assert came == expected
    assert stages.count("embed") == stages.count("embed also") > 10
    assert eyes.status()["also"]["space"] == OLD


def test_the_daemon_runs_both(daemon, server, repository, people):
    """As a process: the server takes the punch, status names both models and who must enrol again,
    until nobody need."""
    picture = str(people / "obama.jpg")
    assert daemon.cli("enrol", "obama", picture).returncode == 0
    add_own(daemon.folder / "state", repository)
    daemon.write(server, extra=f"[models]\n{BOTH}", replay=[picture])
    daemon.start(wait_for="gallery.other_model")
    assert "recognised by models.also" in daemon.said[-1]
    daemon.read_until("visit.recorded")
    status = daemon.json("status")
    assert (status["model"], status["also"]["model"][:13]) == ("own-fp32", "mobilefacenet")
    assert status["changeover"]["waiting"] == 1
    assert status["changeover"]["enrol_again"] == ["obama"]
    said = daemon.cli("status").stdout
    assert "also mobilefacenet" in said
    assert "to enrol again: obama" in said
    daemon.await_said("outbox.settled")
    with urllib.request.urlopen(f"{server}/attendance", timeout=10) as reply:
        (record,) = json.load(reply)["attendance"]
    assert record["employee"] == "obama"
    assert daemon.cli("enrol", "obama", picture).returncode == 0
    daemon.read_until("gallery.also_can_go")
    assert "models.also can be taken out" in daemon.cli("status").stdout
    assert daemon.stop() == 0
