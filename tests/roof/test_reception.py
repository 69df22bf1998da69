"""Decide, commit, tell: in this order, and never "recorded" without a commit."""

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest

from kiosk.config import Recognition, Server, Settings
from kiosk.decide.gallery import Gallery, Template
from kiosk.decide.policy import Outcome
from kiosk.errors import MessageError, OutboxBrokenError, OutboxError, OutboxFullError
from kiosk.feedback.notice import NoticeKind
from kiosk.logbook import Logbook
from kiosk.reception import Reception
from kiosk.types import Embedding, Frame, Quality, Sighting, Stamp, Trust

GOOD = Quality(1.0, 1.0, 1.0, 1.0, 1.0)
ANNA = Embedding.of(np.random.default_rng(1).standard_normal(64), "test-64")
BERT = Embedding.of(np.random.default_rng(2).standard_normal(64), "test-64")
BOTH = Gallery([Template("anna", ANNA, "a"), Template("bert", BERT, "b")])
LEFT, RIGHT = (0.0, 0.0, 90.0, 90.0), (300.0, 0.0, 80.0, 80.0)


def stamp(number):
    return Stamp(1_790_000_000_000 + number * 100, number * 100_000_000, "boot-1", Trust.SYNCED)


class Hall:
    """A reception with eyes, queue, link and screen that note in one list what happens."""

    def __init__(self, *, unknown="drop", online=None, window=300.0):
        self.happened, self.visible = [], []
        self.failures, self.recorded = [], {}
        self.online, self.threshold, self.number = online, 0.5, 0
        rules = Recognition(unknown=unknown, repeat_window_s=window)
        self.logbook = Logbook()
        self.reception = Reception(
            Settings(server=Server(url="http://127.0.0.1:9"), recognition=rules),
            eyes=self,
            ledger=self,
            link=self,
            screen=self,
            gallery=BOTH,
            logbook=self.logbook,
            clock=SimpleNamespace(boottime_ns=lambda: 0),
            rng=random.Random(1),
        )

    def sightings(self, frame):
        marks = np.zeros((4, 2), np.float32)
        return tuple(
            Sighting(face, box, marks, 0.9, GOOD, None, frame.seen) for face, box in self.visible
        )

    def put(self, punch):
        if self.failures:
            raise self.failures.pop(0)
        self.happened.append(("put", punch.employee))
        self.recorded[punch.employee, punch.kind] = punch.seen
        return f"epoch:{len(self.recorded)}"

    def last_recorded(self, employee, kind):
        return self.recorded.get((employee, kind))

    def show(self, notice):
        if notice.kind is not NoticeKind.LOOK:
            self.happened.append((notice.kind, notice.person))

    def frames(self, *visible, count=4):
        """So many frames in which these faces are seen, each in its own place."""
        self.visible = list(zip(visible, (LEFT, RIGHT), strict=False))
        for _ in range(count):
            self.number += 1
            pixels = np.zeros((8, 8, 3), np.uint8)
            self.reception.receive(Frame(pixels, stamp(self.number), "test"))

    def pass_by(self):
        """Nobody is seen for longer than a visit's gap."""
        self.frames(count=1)
        self.number += 50


def outcomes(hall):
    return [visit["outcome"] for visit in hall.logbook.summary()["visits"]]


@pytest.mark.parametrize(
    ("online", "kind"),
    [
        (None, NoticeKind.RECORDED),
        (True, NoticeKind.RECORDED),
        (False, NoticeKind.SAVED_OFFLINE),
    ],
)
def test_the_person_is_told_after_the_commit(online, kind):
    """First the queue, then the screen; without a link the words say that it is saved."""
    hall = Hall(online=online)
    hall.frames(ANNA)
    assert hall.happened == [("put", "anna"), (kind, "anna")]
    assert outcomes(hall) == ["recorded"]


@pytest.mark.parametrize(
    "error",
    [OutboxFullError("no space left"), MessageError("E1: expected 1..200 characters")],
    ids=["full disk", "no message"],
)
def test_what_was_not_recorded_is_told_so(error, caplog):
    """Nothing is on disk: the person, the journal and the status say so, and the kiosk goes on."""
    hall = Hall()
    hall.failures = [error]
    with caplog.at_level(logging.CRITICAL):
        hall.frames(ANNA)
    assert hall.happened == [(NoticeKind.CANNOT_RECORD, None)]
    assert outcomes(hall) == ["cannot record"]
    assert [record.message for record in caplog.records] == ["visit.cannot_record"]
    assert caplog.records[0].fields["reason"] == str(error)
    hall.frames(BERT)
    assert hall.happened[1:] == [("put", "bert"), (NoticeKind.RECORDED, "bert")]


@pytest.mark.parametrize("error", [OutboxBrokenError("I/O"), OutboxError("closed"), ValueError()])
def test_a_failing_queue_ends_the_thread_and_tells_the_person(error):
    """What is on disk is uncertain: never "recorded", and the process reads the file anew."""
    hall = Hall()
    hall.failures = [error]
    with pytest.raises(type(error)):
        hall.frames(ANNA)
    assert hall.happened == [(NoticeKind.CANNOT_RECORD, None)]


def test_a_queue_that_cannot_be_asked_is_told_too():
    """The repeat window is read before anything is decided; that may fail as well."""
    hall = Hall()

    def broken(*_):
        raise OutboxBrokenError("I/O")

    hall.last_recorded = broken
    with pytest.raises(OutboxBrokenError):
        hall.frames(ANNA)
    assert hall.happened == [(NoticeKind.CANNOT_RECORD, None)]


@pytest.mark.parametrize("window", [300.0, 0.0])
def test_two_faces_of_one_person_are_one_punch(window):
    """A reflection beside the person: one commit, and "recorded" is not overwritten."""
    hall = Hall(window=window)
    hall.frames(ANNA, ANNA)
    assert hall.happened == [("put", "anna"), (NoticeKind.RECORDED, "anna")]


def test_the_second_face_of_somebody_who_was_not_recorded_is_not_told_so():
    """ "Already recorded" would be a lie when the first of the two met a full disk."""
    hall = Hall()
    hall.failures = [OutboxFullError("no space left")]
    hall.frames(ANNA, ANNA)
    assert hall.happened == [(NoticeKind.CANNOT_RECORD, None)]


def test_the_queue_is_asked_once_more_before_a_commit():
    """Whatever was decided: within the repeat window there is no second punch."""
    hall = Hall()
    decide = hall.reception.policy.decide

    def twice(*arguments):
        made = decide(*arguments)
        return made + [d for d in made if d.outcome is Outcome.RECORD]

    hall.reception.policy.decide = twice
    hall.frames(ANNA)
    assert hall.happened == [
        ("put", "anna"),
        (NoticeKind.RECORDED, "anna"),
        (NoticeKind.ALREADY_RECORDED, "anna"),
    ]


def test_two_people_in_one_frame_are_two_punches():
    """Side by side each of them is recorded."""
    hall = Hall()
    hall.frames(ANNA, BERT)
    assert [name for what, name in hall.happened if what == "put"] == ["anna", "bert"]


def test_a_second_visit_within_the_window_is_told_with_its_time():
    """The words name when the earlier punch was."""
    hall = Hall()
    notices = []
    hall.frames(ANNA)
    hall.pass_by()
    hall.show = notices.append
    hall.frames(ANNA)
    (notice,) = [n for n in notices if n.kind is NoticeKind.ALREADY_RECORDED]
    assert notice.at == hall.recorded["anna", None]
    assert [what for what, _ in hall.happened] == ["put", NoticeKind.RECORDED]


@pytest.mark.parametrize(
    ("unknown", "happened"),
    [
        ("drop", [(NoticeKind.NOT_RECOGNISED, None)]),
        ("send", [("put", None), (NoticeKind.RECORDED, None)]),
    ],
)
def test_a_stranger_is_dropped_or_sent_as_configured(unknown, happened):
    """ "drop" stores nothing; "send" leaves the naming to the server."""
    hall = Hall(unknown=unknown)
    stranger = Embedding.of(np.random.default_rng(9).standard_normal(64), "test-64")
    hall.frames(stranger, count=12)
    assert hall.happened == happened
