"""Who says nothing keeps nobody out, and does not delay the end."""

import contextlib
import signal
import socket
import urllib.request

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from kiosk.server.connection import HEAD_S, MAX_CONNECTIONS, Connection

HANG_S = 60
HEAD = b"POST /toon/attendance HTTP/1.1\r\nHost: 127.0.0.1\r\n"


class Loop:
    """A clock that the test moves, with the timers that were set on it."""

    def __init__(self):
        self.now_s, self.timers = 0.0, []

    def time(self):
        return self.now_s

    def call_later(self, delay_s, callback):
        self.timers.append(Timer(self.now_s + delay_s, callback))
        return self.timers[-1]

    def create_task(self, work, **options):
        work.close()
        return Task()

    def move(self, seconds):
        self.now_s += seconds
        for timer in [t for t in self.timers if t.at_s <= self.now_s]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()


class Timer:
    def __init__(self, at_s, callback):
        self.at_s, self.callback, self.cancelled = at_s, callback, False

    def cancel(self):
        self.cancelled = True


class Task:
    def add_done_callback(self, callback):
        pass


class Wire:
    """A transport that remembers whether it was aborted."""

    def __init__(self):
        self.aborted = False
        self.unread = 0

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted

    def get_write_buffer_size(self):
        return self.unread

    def get_extra_info(self, name, default=None):
        return default


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def connect(loop):
    """A function that opens one more connection of one server."""
    config = Config(app=lambda *_: None, lifespan="off", ws="none", log_config=None)
    config.load()
    state = ServerState()

    def make():
        connection = Connection(config, state, {}, loop)
        connection.connection_made(Wire())
        loop.move(0.001)
        return connection

    return make


def test_a_head_has_a_deadline_however_it_drips(loop, connect):
    """A byte a second does not move it; a silent connection ends at it as well."""
    silent, dripping = connect(), connect()
    for byte in HEAD[: int(HEAD_S) - 1]:
        dripping.data_received(bytes([byte]))
        loop.move(1.0)
    assert not silent.transport.aborted
    assert not dripping.transport.aborted
    loop.move(1.0)
    assert silent.transport.aborted
    assert dripping.transport.aborted


def test_a_whole_head_ends_its_deadline(loop, connect):
    """What takes its time after the head is the server's own work, or the body's deadline."""
    asking = connect()
    asking.data_received(HEAD + b"Content-Length: 5\r\n\r\n")
    loop.move(HEAD_S * 2)
    assert not asking.transport.aborted


def test_bytes_after_an_answer_have_a_deadline(loop, connect):
    """The framework stops its own timer at every byte: the next head has one all the same."""
    answered = connect()
    answered.data_received(HEAD + b"Content-Length: 500\r\n\r\n")
    answered.cycle.response_complete = True
    for _ in range(int(HEAD_S)):
        answered.data_received(b"x")
        loop.move(1.0)
    answered.data_received(b"x")
    loop.move(1.0)
    assert answered.transport.aborted


def test_beyond_the_bound_the_longest_silent_one_goes(connect):
    """Those whose request is being worked on stay, and so does the newcomer."""
    working = connect()
    working.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    others = [connect() for _ in range(MAX_CONNECTIONS)]
    assert [other.transport.aborted for other in others] == [True] + [False] * (len(others) - 1)
    connect()
    assert others[1].transport.aborted
    assert not working.transport.aborted


def test_one_that_does_not_take_its_answer_is_silent_too(connect):
    """A reader that stops reading holds a place like one that stops sending."""
    lazy = connect()
    lazy.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    lazy.transport.unread = 1
    for _ in range(MAX_CONNECTIONS):
        connect()
    assert lazy.transport.aborted


def test_many_silent_connections_lock_nobody_out(start_server):
    """More than the server holds, none of which says a word: an honest request is answered."""
    with start_server() as (_, url), contextlib.ExitStack() as silent:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(MAX_CONNECTIONS + 5):
            silent.enter_context(socket.create_connection((host, int(port)), timeout=HANG_S))
        with urllib.request.urlopen(f"{url}/healthz", timeout=HANG_S) as reply:
            assert reply.status == 200


def test_a_slow_post_does_not_delay_the_end(start_server):
    """Half a body is neither waited for nor taken for a fault of the server's own."""
    with start_server() as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=HANG_S) as slow:
            slow.sendall(HEAD + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")
            # The server asks for the body: it is in the middle of this request from here on.
            assert slow.recv(100).startswith(b"HTTP/1.1 100 ")
            slow.sendall(b"{")
            process.send_signal(signal.SIGTERM)
            _, complaint = process.communicate(timeout=HANG_S)
    assert (process.returncode, complaint) == (0, "")
