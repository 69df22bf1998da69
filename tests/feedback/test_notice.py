import time

import pytest

from kiosk.feedback.notice import Notice, NoticeKind
from kiosk.types import Stamp, Trust

AT = Stamp(1_780_041_599_000, 0, "boot", Trust.SYNCED)  # 2026-05-29T07:59:59Z


@pytest.fixture
def _two_hours_east(monkeypatch):
    monkeypatch.setenv("TZ", "EET-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NoticeKind.RECORDED, "Recorded"),
        (NoticeKind.SAVED_OFFLINE, "Saved – will be sent when the network is back"),
        (NoticeKind.NOT_RECOGNISED, "Not recognised – step away and try again"),
        (NoticeKind.CANNOT_RECORD, "CANNOT RECORD – use another way"),
        (NoticeKind.NO_CAMERA, "No camera picture – use another way"),
    ],
)
def test_words_are_the_agreed_ones(kind, text):
    """The words people learn do not change by accident."""
    assert Notice.of(kind, None, AT).text == text


@pytest.mark.usefixtures("_two_hours_east")
def test_time_of_the_earlier_punch_is_local():
    """Somebody already recorded reads when, on the clock of the wall."""
    assert Notice.of(NoticeKind.ALREADY_RECORDED, "ann", AT).text == "Already recorded at 09:59"


def test_every_kind_has_words_of_its_own():
    """No two states read alike, and the large words alone tell them apart."""
    notices = [Notice.of(kind, None, AT) for kind in NoticeKind]
    assert len({notice.headline for notice in notices}) == len(NoticeKind)
    assert all(notice.headline for notice in notices)


def test_words_after_the_dash_are_the_detail():
    """What is read from two metres is what comes before the dash."""
    notice = Notice.of(NoticeKind.SAVED_OFFLINE, None, AT)
    assert (notice.headline, notice.detail) == ("Saved", "will be sent when the network is back")
    assert Notice.of(NoticeKind.RECORDED, None, AT).detail == ""


def test_a_person_never_gets_into_the_words():
    """Names can be hidden, so only `person` carries them."""
    assert all("ann" not in Notice.of(kind, "ann", AT).text.split() for kind in NoticeKind)
