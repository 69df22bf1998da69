"""A clock that a test moves, a page on a free port, and a browser's end of the stream."""

import http.client
import json
import socket

import pytest

from kiosk.config import Feedback
from kiosk.feedback.notice import Notice
from kiosk.feedback.page import Page
from kiosk.types import Stamp, Trust

# Far longer than anything here takes: it ends a test that hangs.
HANG_S = 20.0


class HandClock:
    """A clock that stands until a test moves it."""

    def __init__(self):
        self.ns = 5_000_000_000

    def now(self):
        return Stamp(1_780_000_000_000 + self.ns // 1_000_000, self.ns, "boot", Trust.SYNCED)

    def boottime_ns(self):
        return self.ns

    def wait(self, event, timeout_s):
        return event.wait(timeout_s)

    def pass_s(self, seconds):
        self.ns += round(seconds * 1e9)


class Stream:
    """A browser's end of /events."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
        self.connection.request("GET", "/events")
        self.reply = self.connection.getresponse()

    def event(self):
        """The next event as name and data; None at the end of the stream."""
        name, data = None, None
        while line := self.reply.fp.readline().decode("ascii").rstrip("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = json.loads(value)
        return None if name is None else (name, data)

    def notice(self):
        """The data of the next notice, whatever else comes before it."""
        while (event := self.event()) is not None:
            if event[0] == "notice":
                return event[1]
        raise AssertionError("the stream ended before a notice came")

    def close(self):
        self.reply.close()
        self.connection.close()


@pytest.fixture
def clock():
    """Time that only a test moves."""
    return HandClock()


@pytest.fixture
def port():
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def open_page(port, clock):
    """Start a page on the free port; every one is closed at the end."""
    pages = []

    def start(label="Main entrance", **settings):
        page = Page(Feedback(page_port=port, **settings), label, clock=clock)
        page.start()
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.close()


@pytest.fixture
def watch(port):
    """Connect a viewer; every one is closed at the end."""
    streams = []

    def connect():
        streams.append(Stream(port))
        return streams[-1]

    yield connect
    for stream in streams:
        stream.close()


@pytest.fixture
def tell(clock):
    """Show a notice in the usual words."""

    def show(page, kind, person=None):
        page.show(Notice.of(kind, person, clock.now()))

    return show
