"""The control socket: nobody else's, bounded, and open to the next while one peer is silent."""

import contextlib
import logging
import os
import pwd
import socket
import stat
import struct
import threading

import pytest

from kiosk import control
from kiosk.clock import NS_PER_S, SystemClock
from kiosk.control import MAX_MESSAGE, ControlServer, ask, daemon_listens, socket_path
from kiosk.errors import ControlError, KioskError, UserError

HANG_S = 60


class SlowClock(SystemClock):
    """Half a second passes between two looks, whatever time it really is."""

    def __init__(self):
        super().__init__()
        self.now_ns = 0

    def boottime_ns(self):
        self.now_ns += NS_PER_S // 2
        return self.now_ns


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def serve(folder):
    """A function that listens in the folder and answers; everything is ended after the test."""
    running = []

    def start(clock=None, **handlers):
        server = ControlServer(
            str(folder),
            {"status": lambda _: {"state": "running"}, **handlers},
            clock=clock or CLOCK,
            beat=lambda *_: None,
        )
        server.open()
        stop = threading.Event()
        thread = threading.Thread(target=server.run, args=(stop,), daemon=True)
        thread.start()
        running.append((server, stop, thread))
        return server, stop, thread

    yield start
    for server, stop, thread in running:
        stop.set()
        server.close()
        thread.join(HANG_S)
        assert not thread.is_alive()


CLOCK = SystemClock()


@pytest.fixture
def connect(folder):
    """A function that opens one more connection, by hand."""
    opened = []

    def make():
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(HANG_S)
        connection.connect(str(socket_path(folder)))
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        connection.close()


def wait_until(there):
    """Give the other threads their turn until it is there; a hang is the runner's to see."""
    pause = threading.Event()
    for _ in range(HANG_S * 100):
        if there():
            return
        pause.wait(0.01)
    raise AssertionError("the server did not take the connection")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_socket_are_nobody_elses(serve, folder):
    """0750 and 0660, whatever the umask lets through."""
    old = os.umask(0)
    try:
        serve()
    finally:
        os.umask(old)
    assert mode(folder) == 0o750
    assert mode(socket_path(folder)) == 0o660


@pytest.mark.parametrize("loose", [0o777, 0o770, 0o757, 0o1777])
def test_a_folder_that_others_can_write_in_is_refused(folder, loose):
    """They could put a socket of theirs in its place: told with mode and remedy."""
    folder.mkdir()
    folder.chmod(loose)
    with pytest.raises(KioskError, match=rf"runtime_dir.*got mode {loose:04o}; .*chmod go-w"):
        ControlServer(str(folder), {}, clock=CLOCK, beat=lambda *_: None).open()
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_elses_is_refused(folder, monkeypatch):
    """Its owner could do with it as he likes."""
    folder.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    os.chown(folder, 54321, -1) if os.getuid() == 0 else None
    with pytest.raises(KioskError, match="expected an owner of user id 12345"):
        ControlServer(str(folder), {}, clock=CLOCK, beat=lambda *_: None).open()


def test_another_user_is_not_answered(serve, folder, monkeypatch, caplog):
    """The kernel says who the peer is; neither root nor the daemon's own user: no answer."""
    serve()
    assert ask(str(folder), "status") == {"state": "running"}
    stranger = os.geteuid() + 1

    class Credentials:
        size = struct.calcsize("3i")

        @staticmethod
        def unpack(packed):
            return 1, stranger, 1

    monkeypatch.setattr(control, "_CREDENTIALS", Credentials)
    with pytest.raises(ControlError, match="no daemon answers"):
        ask(str(folder), "status")
    reasons = [r.fields["reason"] for r in caplog.records if r.message == "control.refused"]
    assert any(f"got user {stranger}" in reason for reason in reasons)


def test_a_second_daemon_does_not_take_the_socket_over(serve, folder):
    """Another state folder does not matter: one runtime folder has one daemon, and it stays."""
    serve()
    second = ControlServer(
        str(folder), {"status": lambda _: {"state": "second"}}, clock=CLOCK, beat=lambda *_: None
    )
    with pytest.raises(ControlError, match=r"runtime_dir.*another one listens"):
        second.open()
    second.close()
    assert ask(str(folder), "status") == {"state": "running"}


def test_only_its_own_socket_is_removed(serve, folder):
    """A socket that somebody put in its place since is left there."""
    server, stop, _ = serve()
    path = socket_path(folder)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        # Its inode is made first: the old number may be given to the next file.
        other.bind(str(folder / "other.sock"))
        (folder / "other.sock").rename(path)
        server._inode = 0
        stop.set()
        server.close()
        assert path.is_socket()


def test_a_stale_socket_is_replaced(serve, folder):
    """What a killed daemon left behind keeps nobody from starting."""
    folder.mkdir(0o750)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(socket_path(folder)))
    serve()
    assert ask(str(folder), "status") == {"state": "running"}


def test_nothing_is_left_of_a_closed_one(serve, folder):
    """The socket is gone and the folder free for the next."""
    server, stop, thread = serve()
    stop.set()
    server.close()
    thread.join(HANG_S)
    assert not socket_path(folder).exists()
    assert not daemon_listens(str(folder))
    serve()
    assert daemon_listens(str(folder))


def test_a_silent_peer_keeps_nobody_waiting(serve, folder, connect):
    """Connections that say nothing, even one in the middle of a request, block no command."""
    serve()
    connect()
    connect().sendall(struct.pack(">I", 100) + b"{")
    assert ask(str(folder), "status") == {"state": "running"}


def test_a_handler_at_work_keeps_nobody_waiting(serve, folder):
    """An enrolment that takes its time does not hide the status."""
    begun, go_on = threading.Event(), threading.Event()

    def enrol(request):
        begun.set()
        return {"waited": go_on.wait(HANG_S)}

    serve(enrol=enrol)
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(str(folder), "enrol")))
    slow.start()
    assert begun.wait(HANG_S)
    assert ask(str(folder), "status") == {"state": "running"}
    go_on.set()
    slow.join(HANG_S)
    assert answers == [{"waited": True}]


def test_a_dripping_peer_has_a_deadline_for_the_whole(serve, connect, caplog):
    """By the clock it was given, not anew for every byte: the connection is ended."""
    serve(SlowClock())
    dripping = connect()
    dripping.sendall(struct.pack(">I", 1000))
    ended = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            while not ended.is_set():
                dripping.sendall(b" ")
                # A byte at a time, so that each needs a look of its own.
                ended.wait(0.01)

    thread = threading.Thread(target=drip)
    thread.start()
    with contextlib.suppress(ConnectionResetError):
        assert dripping.recv(1) == b""
    ended.set()
    thread.join(HANG_S)
    reasons = [r.fields["reason"] for r in caplog.records if r.message == "control.refused"]
    assert reasons == ["expected a whole request within 2 s"]


def test_closing_ends_a_connection_that_is_served(serve, connect):
    """The end does not wait for a silent peer: it sees the connection close."""
    server, stop, thread = serve()
    idle = connect()
    idle.sendall(struct.pack(">I", 100))
    wait_until(lambda: server._served)
    stop.set()
    server.close()
    assert idle.recv(1) == b""
    thread.join(HANG_S)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"[1]", "expected a JSON object"),
        (b"\xff\xfe", "request:"),
        (b"{", "request:"),
        (b'{"operation": "nope"}', "expected one of"),
        (b'{"operation": ["status"]}', "expected one of"),
        (b'{"operation": "broken"}', "a fault of the daemon's own"),
        (b'{"operation": "refused"}', "because"),
        (b'{"operation": "malformed"}', "malformed request"),
    ],
)
def test_no_request_ends_the_daemon(serve, folder, connect, message, told):
    """Whatever one request holds or brings about, it is answered, and the next one is too."""

    def broken(request):
        raise RuntimeError("a fault")

    def refused(request):
        raise UserError("because")

    serve(broken=broken, refused=refused, malformed=lambda request: request["missing"])
    peer = connect()
    peer.sendall(struct.pack(">I", len(message)) + message)
    assert told in peer.makefile("rb").read().decode()
    assert ask(str(folder), "status") == {"state": "running"}


def test_a_fault_is_in_the_journal(serve, folder, caplog):
    """What nobody foresaw is answered in a line and written down with its trace."""

    def broken(request):
        raise RuntimeError("unforeseen")

    serve(broken=broken)
    with pytest.raises(KioskError, match="unforeseen"):
        ask(str(folder), "broken")
    (record,) = [r for r in caplog.records if r.message == "control.failed"]
    assert record.levelno == logging.CRITICAL
    assert record.fields["operation"] == "broken"
    assert record.exc_info is not None


def test_a_message_has_a_bound(serve, folder, connect, caplog):
    """A length beyond it is refused before a byte of it is read or room is made for it."""
    serve()
    peer = connect()
    peer.sendall(struct.pack(">I", MAX_MESSAGE + 1))
    assert peer.recv(1) == b""
    assert ask(str(folder), "status") == {"state": "running"}
    reasons = [r.fields["reason"] for r in caplog.records if r.message == "control.refused"]
    assert any(f"at most {MAX_MESSAGE} bytes" in reason for reason in reasons)


def test_connections_have_a_bound(serve, folder, connect, monkeypatch):
    """One more than the bound is closed at once; no peer can fill the process with threads."""
    server, _, _ = serve()
    monkeypatch.setattr(control, "MAX_PEERS", 2)
    held = [connect(), connect()]
    wait_until(lambda: len(server._served) == len(held))
    assert connect().recv(1) == b""


@pytest.mark.parametrize("look", [daemon_listens, lambda folder: ask(folder, "status")])
def test_a_socket_that_is_not_for_this_user_is_told(folder, monkeypatch, look):
    """Nobody is sent to start a daemon that runs: whose it is and what to type is said instead."""

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    folder.mkdir()
    monkeypatch.setattr(control.socket.socket, "connect", refused)
    me = pwd.getpwuid(os.geteuid()).pw_name
    with pytest.raises(ControlError, match=f"open to {me}, .*; .*sudo -u {me} kiosk") as caught:
        look(str(folder))
    assert "start it" not in str(caught.value)
    with pytest.raises(ControlError, match=r"root and its own user only; .*sudo -u kiosk kiosk"):
        look("/nowhere/at/all")


def test_a_peer_that_is_hung_up_on_is_told_whose_the_daemon_is(serve, folder, monkeypatch):
    """The group may connect, and only the daemon's own user is answered."""

    def refuse(_):
        raise ControlError("expected another user")

    serve()
    monkeypatch.setattr(control, "check_peer", refuse)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    with pytest.raises(ControlError, match=r"no daemon answers .* start it"):
        ask(str(folder), "status")
    monkeypatch.setattr(control.os, "geteuid", lambda: 54_321)
    with pytest.raises(ControlError, match=f"open to #54321, .*sudo -u {owner} kiosk"):
        ask(str(folder), "status")


@pytest.mark.parametrize(("said", "refusals"), [(b"", 0), (b"\0", 1), (b"\0\0\0\x05", 1)])
def test_who_only_looks_is_not_refused(serve, connect, caplog, said, refusals):
    """Every command looks whether a daemon listens: no line for that, one for half a request."""
    serve()
    connection = connect()
    connection.sendall(said)
    connection.shutdown(socket.SHUT_WR)
    # The daemon closes its end after it has said what it has to say.
    assert connection.recv(1) == b""
    assert [r.message for r in caplog.records].count("control.refused") == refusals
