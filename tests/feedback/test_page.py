import http.client
import socket
import threading

import pytest

from kiosk.config import Feedback
from kiosk.errors import UserError
from kiosk.feedback import web
from kiosk.feedback.notice import NoticeKind
from kiosk.feedback.page import MAX_VIEWERS, Page

HANG_S = 20.0


DETAIL = "look at the camera"


def test_a_viewer_is_greeted_with_label_and_state(open_page, watch):
    """The first two events say which kiosk this is and what is on the screen."""
    open_page(label="Tür 3 <b>")
    stream = watch()
    name, hello = stream.event()
    assert (name, hello["label"]) == ("hello", "Tür 3 <b>")
    name, state = stream.event()
    assert state["rest"]["headline"] == "Ready"
    assert (name, state["kind"], state["hold_ms"]) == ("notice", "idle", None)
    assert state["headline"] == "Ready"


def test_a_notice_reaches_every_viewer(open_page, watch, tell):
    """What is shown comes to all browsers, with person and time to stay."""
    page = open_page(hold_s=3.0)
    streams = [watch(), watch()]
    for stream in streams:
        assert stream.notice()["kind"] == "idle"
    tell(page, NoticeKind.RECORDED, "ann")
    for stream in streams:
        assert stream.notice() == {
            "kind": "recorded",
            "headline": "Recorded",
            "detail": "",
            "person": "ann",
            "hold_ms": 3000,
            "rest": {"kind": "idle", "headline": "Ready", "detail": DETAIL, "person": None},
        }


def test_a_late_viewer_gets_the_time_that_is_left(open_page, watch, tell, clock):
    """A browser that connects in the middle of a message shows its rest only."""
    page = open_page(hold_s=4.0)
    tell(page, NoticeKind.RECORDED)
    clock.pass_s(3)
    assert watch().notice()["hold_ms"] == 1000


def test_a_viewer_after_the_hold_gets_idle(open_page, watch, tell, clock):
    """A message that is over is not shown to a browser that connects then."""
    page = open_page(hold_s=4.0)
    tell(page, NoticeKind.RECORDED, "ann")
    clock.pass_s(4)
    state = watch().notice()
    assert (state["kind"], state["person"]) == ("idle", None)


def test_a_viewer_after_the_camera_went_gets_no_welcome(open_page, watch, tell, clock):
    """What was said to the last person is over: the browser reads that there is no picture."""
    page = open_page(hold_s=4.0)
    tell(page, NoticeKind.NO_CAMERA)
    tell(page, NoticeKind.RECORDED, "ann")
    assert watch().notice()["rest"]["kind"] == "no-camera"
    clock.pass_s(4)
    state = watch().notice()
    assert (state["kind"], state["person"], state["hold_ms"]) == ("no-camera", None, None)


def test_a_notice_before_the_start_is_not_lost(port, clock, watch, tell):
    """A page that starts after the first notice shows it."""
    page = Page(Feedback(page_port=port), "", clock=clock)
    tell(page, NoticeKind.CANNOT_RECORD)
    page.start()
    try:
        assert watch().notice()["kind"] == "cannot-record"
    finally:
        page.close()


@pytest.mark.parametrize(("show_names", "person"), [(True, "ann"), (False, None)])
def test_names_leave_the_process_only_where_allowed(open_page, watch, tell, show_names, person):
    """With show_names = false no name is sent to the browser at all."""
    page = open_page(show_names=show_names)
    tell(page, NoticeKind.RECORDED, "ann")
    assert watch().notice()["person"] == person


def test_silence_is_broken_by_beats(open_page, watch, monkeypatch):
    """A live kiosk is heard without a notice: the page knows a dead one by its silence."""
    monkeypatch.setattr(web, "HEARTBEAT_S", 0.01)
    open_page()
    stream = watch()
    stream.notice()
    assert stream.event() == ("beat", {})


def test_one_viewer_too_many_ends_the_oldest(open_page, watch, monkeypatch):
    """The bound on viewers holds over HTTP: the first stream ends, the newest has the state."""
    monkeypatch.setattr(web, "HEARTBEAT_S", 0.01)
    open_page()
    first = watch()
    first.notice()
    others = [watch() for _ in range(MAX_VIEWERS - 1)]
    for stream in others:
        assert stream.notice()["kind"] == "idle"
    newest = watch()
    assert newest.notice()["kind"] == "idle"
    assert any(first.event() is None for _ in range(1000))


def test_a_browser_that_does_not_read_holds_nobody_up(open_page, port, watch, tell, caplog):
    """show() hands over and returns, whatever a stalled browser does; close() ends it too."""
    page = open_page()
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stalled.connect(("127.0.0.1", port))
        stalled.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert stalled.recv(1)
        reader = watch()
        for number in range(3000):
            tell(page, NoticeKind.RECORDED, f"{number} " + "x" * 2000)
        tell(page, NoticeKind.CANNOT_RECORD)
        while reader.notice()["kind"] != "cannot-record":
            pass
        page.close()
    assert "feedback.connections_left" not in caplog.messages


def test_a_taken_port_is_told_with_what_to_do(open_page):
    """Two kiosks on one port are refused by name, not served half the browsers each."""
    open_page()
    with pytest.raises(UserError, match=r"page_port = \d+.*in use.*another port") as caught:
        open_page()
    assert caught.value.exit_status == 2


def test_port_zero_serves_nothing(clock, tell):
    """A kiosk without a screen shows into the void and closes at once."""
    before = threading.active_count()
    page = Page(Feedback(page_port=0), "", clock=clock)
    page.start()
    tell(page, NoticeKind.RECORDED)
    assert threading.active_count() == before
    page.close()


def test_close_ends_streams_threads_and_socket(open_page, watch, port):
    """After close no thread of the page lives, every stream has ended, nothing listens."""
    before = set(threading.enumerate())
    page = open_page()
    streams = [watch() for _ in range(3)]
    for stream in streams:
        stream.notice()
    mine = set(threading.enumerate()) - before
    assert len(mine) == 4
    page.close()
    page.close()
    for thread in mine:
        thread.join(HANG_S)
        assert not thread.is_alive()
    assert all(stream.event() is None for stream in streams)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), HANG_S)


def test_close_ends_a_request_that_never_comes(open_page, port, caplog):
    """A client that connects and says nothing does not hold the end up."""
    page = open_page()
    with socket.create_connection(("127.0.0.1", port), HANG_S) as silent:
        answered(port)
        page.close()
        assert silent.recv(1) == b""
    assert "feedback.connections_left" not in caplog.messages


def test_the_port_can_be_had_again_at_once(open_page, watch):
    """A daemon that restarts gets its port back although streams were just closed."""
    first = open_page()
    watch().notice()
    first.close()
    open_page(label="second")
    assert watch().event()[1]["label"] == "second"


def answered(port):
    """Ask for the page and read it: whoever connected before has been accepted by then."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    connection.close()
