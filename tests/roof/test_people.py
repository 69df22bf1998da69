"""Enrolment, removal, and whether the gallery on disk is the newest one."""

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest

from kiosk.config import Paths, Server, Settings
from kiosk.decide.gallery import Gallery, Template
from kiosk.errors import GalleryError, KioskError, OutboxFullError, VaultError
from kiosk.people import AS_SAVED, People
from kiosk.state import open_state, template_document
from kiosk.types import Embedding
from kiosk.wire.message import EMPLOYEE

SPACE, DIM, THRESHOLD = "test-64", 64, 0.6


def template(person, seed=1, space=SPACE, dim=DIM):
    vector = np.random.default_rng(seed).standard_normal(dim)
    return Template(person, Embedding.of(vector, space), f"source-{seed}")


class Mark:
    """Keeps the number of the newest gallery, as the outbox does."""

    def __init__(self):
        self.number = 0

    def gallery_mark(self):
        return self.number

    def mark_gallery(self, number):
        self.number = number


@pytest.fixture
def settings(tmp_path):
    """A configuration whose state lies in a fresh folder."""
    return Settings(
        server=Server(url="http://127.0.0.1:9"), paths=Paths(state_dir=str(tmp_path / "state"))
    )


@pytest.fixture
def state(settings):
    """The state folder, open."""
    opened = open_state(settings)
    yield opened
    opened.close()


@pytest.fixture
def mark():
    """The outbox's part in it."""
    return Mark()


@pytest.fixture
def start(state, mark):
    """People as at a start of the daemon: what is on disk is in memory."""

    def begin():
        holder = SimpleNamespace(gallery=state.load_gallery())
        return People(
            state, holder, space=SPACE, dim=DIM, marks=mark, thresholds={SPACE: THRESHOLD}
        )

    return begin


@pytest.fixture
def gallery_file(state):
    """Where the sealed gallery lies."""
    return state.folder / "gallery.sealed"


@pytest.mark.parametrize("person", ["anna", "Zoë Ångström 😀", "x" * 200, "a b"])
def test_whoever_the_wire_can_name_can_be_enrolled(start, person):
    """One rule for enrolment and message: what one takes the other takes."""
    assert EMPLOYEE.fullmatch(person)
    assert start().enrol([template(person)]) == {"people": {person: 1}, "warnings": []}
    assert start().listing()["people"] == {person: 1}


@pytest.mark.parametrize("person", ["", "x" * 201, "anna\x85x", "a\nb", "ann\udcff", "\x7f"])
def test_whoever_the_wire_refuses_cannot_be_enrolled(start, person):
    """Told at the enrolment, in one printable line, and not at the door."""
    people = start()
    with pytest.raises(GalleryError, match=r"expected 1\.\.200 characters") as caught:
        people.enrol([template("good"), template(person)])
    assert str(caught.value).isprintable()
    assert people.listing()["people"] == {}


def test_a_slash_is_refused_unless_the_person_is_there_already(start, state):
    """The server's paths hold ids: a new one has no slash, an old one stays and may be renewed."""
    with pytest.raises(GalleryError, match="a person's id: expected one without /, got"):
        start().enrol([template("a/b")])
    state.save_gallery(Gallery([template("a/b")]))
    people = start()
    assert people.enrol([template("a/b", seed=2)])["people"] == {"a/b": 2}
    assert people.remove("a/b") == {"removed": "a/b"}


def test_a_face_of_another_model_is_refused(start):
    """It would never be matched: another space is named, whatever its dimension."""
    with pytest.raises(GalleryError, match="a face of space test-64 expected, got other"):
        start().enrol([template("anna", space="other")])


@pytest.mark.parametrize("dim", [63, 65, 192])
def test_a_face_of_another_dimension_is_refused(start, dim):
    """Also as the very first one, when no other face contradicts it."""
    with pytest.raises(GalleryError, match=f"a face of 64 values expected, got {dim}"):
        start().enrol([template("anna", dim=dim)])


def beside(person, seed, source, far=0.1):
    """A face close to that of `seed`, from another picture."""
    vector = np.random.default_rng(seed).standard_normal(DIM)
    vector += far * np.random.default_rng(99).standard_normal(DIM)
    return Template(person, Embedding.of(vector, SPACE), source)


@pytest.mark.parametrize(
    ("face", "words"),
    [
        (template("bert"), "the picture source-1: this picture is enrolled as anna already"),
        (beside("bert", 1, "other"), "the picture other: looks like anna "),
    ],
    ids=["the picture", "the face"],
)
def test_what_is_somebody_elses_is_enrolled_by_force_alone(start, gallery_file, face, words):
    """A face or a picture of another person: refused with nothing changed, told when forced."""
    people = start()
    people.enrol([template("anna")])
    on_disk = gallery_file.read_bytes()
    with pytest.raises(GalleryError, match=f"{words}.*--force") as caught:
        people.enrol([template("bert", 2), face])
    assert caught.value.exit_status == 2
    assert people.listing()["people"] == {"anna": 1}
    assert gallery_file.read_bytes() == on_disk
    request = {"templates": [template_document(face)], "force": True}
    (warning,) = people.handlers()["enrol"](request)["warnings"]
    assert words in warning
    assert start().listing()["people"] == {"anna": 1, "bert": 1}


@pytest.mark.parametrize("said", ["yes", 1, None, "true"])
def test_nothing_but_true_is_force(start, said):
    """A request over the socket that means something else does not confuse two people."""
    people = start()
    people.enrol([template("anna")])
    request = {"templates": [template_document(template("bert"))], "force": said}
    with pytest.raises(GalleryError, match="--force"):
        people.handlers()["enrol"](request)


def test_several_pictures_of_somebody_else_do_not_vouch_for_each_other(start):
    """What comes in one call is no proof of whose it is: all of it is refused."""
    people = start()
    people.enrol([template("anna")])
    two = [beside("bert", 1, "one", 0.5), beside("bert", 1, "two", 0.55)]
    with pytest.raises(GalleryError, match=r"one: looks like anna.* \| .*two: looks like anna"):
        people.enrol(two)


def test_a_likeness_is_no_confusion_where_the_own_face_is_nearer(start):
    """Whoever is enrolled and resembles another can be enrolled again; it is told."""
    people = start()
    people.enrol([template("anna"), template("bert", 2)], force=True)
    vector = np.random.default_rng(1).standard_normal(DIM) * 0.9
    vector += np.random.default_rng(2).standard_normal(DIM)
    between = Template("bert", Embedding.of(vector, SPACE), "between")
    cosines = [between.embedding.similarity(template("", seed).embedding) for seed in (1, 2)]
    assert THRESHOLD < cosines[0] < cosines[1]
    (warning,) = people.enrol([between])["warnings"]
    assert "between: looks like anna" in warning
    with pytest.raises(GalleryError, match="looks like bert"):
        people.enrol([Template("anna", between.embedding, "again")])


def test_a_face_unlike_the_persons_own_is_told(start):
    """Against what is enrolled and within one call alike; it is enrolled, for people change."""
    people = start()
    assert people.enrol([template("anna"), beside("anna", 1, "other")])["warnings"] == []
    (warning,) = people.enrol([template("anna", 2)])["warnings"]
    assert "source-2: unlike the other faces of anna (cosine " in warning
    assert people.listing()["people"] == {"anna": 3}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_odd_one_out_is_named_wherever_it_stands(start, place):
    """Of three pictures in one call the one that shows somebody else, and no other."""
    faces = [template("anna"), beside("anna", 1, "other")]
    faces.insert(place, template("anna", 2))
    (warning,) = start().enrol(faces)["warnings"]
    assert "source-2: unlike" in warning


def test_two_that_are_unlike_are_both_told(start):
    """Nobody knows which of the two is the person."""
    warnings = start().enrol([template("bert", 3), template("bert", 4)])["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "the picture source-3",
        "the picture source-4",
    ]


def test_the_same_again_is_no_contradiction(start):
    """Whoever enrols the same picture of the same person twice is not bothered."""
    people = start()
    people.enrol([template("anna"), template("anna")])
    assert people.enrol([template("anna")]) == {"people": {"anna": 1}, "warnings": []}
    people.enrol([template("bert")], force=True)
    assert people.enrol([template("bert")])["warnings"] == []


def test_a_picture_is_called_what_the_caller_calls_it(start):
    """By its path, in one printable line whatever the path holds."""
    people = start()
    people.enrol([template("anna")])
    for path, told in (("b/ä.jpg", "got b/ä.jpg: "), ("a\nb\udcff", r"got 'a\nb\udcff': ")):
        with pytest.raises(GalleryError) as caught:
            people.enrol([template("bert")], pictures={"source-1": path})
        assert told in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_space_without_a_threshold_is_compared_by_pictures(state, mark):
    """A model that decides nothing yet says nothing of two faces either."""
    holder = SimpleNamespace(gallery=Gallery([template("anna")]))
    people = People(state, holder, space=SPACE, dim=DIM, marks=mark, thresholds={})
    assert people.enrol([beside("bert", 1, "other")])["warnings"] == []
    with pytest.raises(GalleryError, match="this picture is enrolled as anna"):
        people.enrol([template("carl")])


def test_verify_tells_a_difference(start, state):
    """Disk and memory agree after an enrolment; a file changed underneath is noticed."""
    people = start()
    people.enrol([template("anna")])
    assert people.verify() == {"faces": 1, "people": 1}
    state.save_gallery(Gallery([template("anna"), template("bert", 2)]))
    with pytest.raises(GalleryError, match="they differ"):
        people.verify()


def test_the_newest_gallery_is_as_saved(start):
    """Before the first enrolment, after each change, and after a restart."""
    people = start()
    assert people.standing() == AS_SAVED
    people.enrol([template("anna")])
    people.remove("anna")
    assert people.standing() == AS_SAVED
    assert start().standing() == AS_SAVED


@pytest.mark.parametrize("put_back", ["older", "nothing"])
def test_an_older_or_missing_gallery_is_told_at_start(start, gallery_file, put_back, caplog):
    """Somebody who was removed would be let in again: critical, and in status, but no refusal."""
    people = start()
    people.enrol([template("anna")])
    older = gallery_file.read_bytes()
    people.remove("anna")
    if put_back == "older":
        gallery_file.write_bytes(older)
    else:
        gallery_file.unlink()
    again = start()
    with caplog.at_level(logging.CRITICAL):
        again.warn_of_rollback()
    assert [record.message for record in caplog.records] == ["gallery.rolled_back"]
    word = "older than the one saved last: number 1 instead of 2"
    assert again.standing() == (word if put_back == "older" else "missing: number 2 was saved last")
    assert again.listing()["standing"] == again.standing()


def test_the_newest_gallery_is_no_alarm(start, caplog):
    """The journal stays quiet when all is right."""
    people = start()
    people.enrol([template("anna")])
    people.warn_of_rollback()
    assert caplog.records == []


def test_a_change_takes_over_from_what_is_there(start, gallery_file):
    """After a restored backup the next enrolment makes the gallery the newest again."""
    people = start()
    people.enrol([template("anna")])
    older = gallery_file.read_bytes()
    people.enrol([template("bert", 2)])
    gallery_file.write_bytes(older)
    again = start()
    again.enrol([template("carl", 3)])
    assert again.standing() == AS_SAVED
    gallery_file.write_bytes(older)
    assert start().standing() == "older than the one saved last: number 1 instead of 3"


def test_cut_off_between_gallery_and_mark_is_no_alarm(start, mark, caplog):
    """The gallery is saved first: a mark that lags behind is no rollback."""

    def full(_):
        raise OutboxFullError("no space")

    people = start()
    mark.mark_gallery = full
    people.enrol([template("anna")])
    assert [record.message for record in caplog.records] == ["gallery.not_marked"]
    assert people.listing()["people"] == {"anna": 1}
    assert start().standing() == AS_SAVED


def test_a_mark_that_was_changed_is_told(start, mark):
    """A mark that does not authenticate is as good as an older gallery."""

    def changed():
        raise VaultError("expected bytes sealed here")

    people = start()
    mark.gallery_mark = changed
    assert "sealed here" in people.standing()
    assert people.enrol([template("anna")])


@pytest.mark.parametrize("lost", ["device.secret", "device.id"])
@pytest.mark.parametrize("beside", ["gallery.sealed", "outbox.db"])
def test_a_lost_identity_is_not_made_anew(settings, lost, beside):
    """A new secret or id would hide that what is sealed is lost: refused by name, with a hint."""
    state = open_state(settings)
    state.close()
    (state.folder / beside).touch()
    content = (state.folder / lost).read_bytes()
    (state.folder / lost).unlink()
    with pytest.raises(VaultError, match=f"{lost} expected beside {beside}.*restore it"):
        open_state(settings)
    assert not (state.folder / lost).exists()
    # Restored, all is well again.
    descriptor = os.open(state.folder / lost, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, content)
    os.close(descriptor)
    open_state(settings).close()


def test_the_first_start_makes_its_identity(settings):
    """Without anything sealed there is nothing to lose."""
    first = open_state(settings)
    first.close()
    again = open_state(settings)
    again.close()
    assert first.device == again.device


def test_a_state_folder_that_is_no_path_is_named():
    """A path with a NUL in it is told with its key, like one that cannot be written."""
    wrong = Settings(server=Server(url="http://127.0.0.1:9"), paths=Paths(state_dir="/tmp/a\0b"))
    with pytest.raises(KioskError, match=r"paths\.state_dir .*null byte"):
        open_state(wrong)
