import pytest

from kiosk.feedback.board import Board
from kiosk.feedback.notice import Notice, NoticeKind

HANG_S = 20.0


@pytest.fixture
def board(clock):
    """A board for two viewers."""
    return Board(clock, hold_s=4.0, max_viewers=2)


def notice(clock, kind=NoticeKind.RECORDED, person=None):
    """A notice of now."""
    return Notice.of(kind, person, clock.now())


def test_a_viewer_first_gets_what_is_up(board, clock):
    """A screen that connects late shows the same as the others."""
    board.show(notice(clock))
    viewer = board.join()
    assert board.next(viewer, HANG_S).notice.kind is NoticeKind.RECORDED


def test_every_viewer_gets_every_notice_in_order(board, clock):
    """Nothing is skipped for a viewer that keeps up."""
    viewers = [board.join(), board.join()]
    kinds = [NoticeKind.LOOK, NoticeKind.RECORDED, NoticeKind.CANNOT_RECORD]
    for kind in kinds:
        board.show(notice(clock, kind))
    for viewer in viewers:
        got = [board.next(viewer, HANG_S).notice.kind for _ in range(4)]
        assert got == [NoticeKind.IDLE, *kinds]


def test_a_stalled_viewer_costs_a_bounded_memory_and_gets_the_newest(board, clock):
    """Old notices are dropped for a viewer that does not fetch them, never the newest."""
    viewer = board.join()
    for number in range(1000):
        board.show(notice(clock, person=str(number)))
    assert len(viewer.waiting) <= 16
    assert viewer.waiting[-1].notice.person == "999"


def test_one_viewer_too_many_ends_the_oldest(board):
    """The number of viewers is bounded, and the newest screen is the one that counts."""
    first, second, third = board.join(), board.join(), board.join()
    assert (first.ended, second.ended, third.ended) == (True, False, False)
    board.leave(first)
    board.leave(second)
    board.join()
    assert not third.ended


def test_time_left_counts_from_the_moment_of_showing(board, clock):
    """A message stays for hold_s by time since boot, then it is over."""
    board.show(notice(clock))
    shown = board.next(board.join(), HANG_S)
    assert board.left_ms(shown) == 4000
    clock.pass_s(1.5)
    assert board.left_ms(shown) == 2500
    clock.pass_s(60)
    assert board.left_ms(shown) == 0


def test_what_is_told_late_gives_way_to_no_camera(board, clock):
    """After the camera went, no visit that is still told leads back to a welcome."""
    for kind, rest in (
        (NoticeKind.RECORDED, NoticeKind.IDLE),
        (NoticeKind.NO_CAMERA, NoticeKind.NO_CAMERA),
        (NoticeKind.RECORDED, NoticeKind.NO_CAMERA),
        (NoticeKind.CANNOT_RECORD, NoticeKind.NO_CAMERA),
        (NoticeKind.IDLE, NoticeKind.IDLE),
        (NoticeKind.CANNOT_RECORD, NoticeKind.IDLE),
    ):
        board.show(notice(clock, kind))
        shown = board.next(board.join(), HANG_S)
        assert (shown.notice.kind, shown.rest.kind) == (kind, rest)


STANDING = [NoticeKind.IDLE, NoticeKind.CANNOT_RECORD, NoticeKind.NO_CAMERA]


@pytest.mark.parametrize("kind", STANDING)
def test_a_kiosk_that_cannot_record_says_so_until_told_otherwise(board, clock, kind):
    """Only what was said to one person runs out; the state of the kiosk itself stands."""
    board.show(notice(clock, kind))
    clock.pass_s(86_400)
    assert board.left_ms(board.next(board.join(), HANG_S)) is None


def test_what_stands_behind_every_notice_can_be_changed(board, clock):
    """A kiosk that cannot record says so at once, and again when a notice's time is over."""
    viewer = board.join()
    board.overrule(notice(clock, NoticeKind.CANNOT_RECORD))
    board.show(notice(clock, NoticeKind.LOOK))
    board.show(notice(clock, NoticeKind.NO_CAMERA))
    shown = [board.next(viewer, HANG_S) for _ in range(4)]
    cannot = NoticeKind.CANNOT_RECORD
    assert [one.notice.kind for one in shown] == [NoticeKind.IDLE, cannot, NoticeKind.LOOK, cannot]
    assert {one.rest.kind for one in shown[1:]} == {cannot}
    board.overrule(None)
    after = board.next(viewer, HANG_S)
    assert (after.notice.kind, after.rest.kind) == (NoticeKind.NO_CAMERA, NoticeKind.NO_CAMERA)


def test_close_ends_waiting_and_later_viewers(board):
    """After close nobody waits on the board any more."""
    early = board.join()
    board.close()
    late = board.join()
    assert early.ended
    assert late.ended
    assert board.next(late, HANG_S) is None
