"""The figures on a port of loopback: for this machine only, one scrape at a time."""

import contextlib
import http.client
import socket
import threading

import pytest

from kiosk.errors import UserError
from kiosk.metrics_port import MetricsPort
from roof.test_metrics import status

HANG_S = 20


@pytest.fixture
def port():
    """A port that serves until the test is over."""
    stop, served = threading.Event(), MetricsPort(0, status, beat=lambda *_: None)
    thread = threading.Thread(target=served.run, args=(stop,))
    thread.start()
    yield served.port
    stop.set()
    thread.join(HANG_S)
    assert not thread.is_alive()


def get(port, path="/metrics", host="127.0.0.1"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    try:
        connection.request("GET", path, headers={"Host": host})
        reply = connection.getresponse()
        return reply.status, reply.getheader("Content-Type"), reply.read().decode()
    finally:
        connection.close()


def test_a_scrape_has_the_figures(port):
    """The very text of the file, in Prometheus' own media type."""
    code, kind, text = get(port)
    assert (code, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "kiosk_queue_events 2" in text


@pytest.mark.parametrize(
    ("path", "host", "code"), [("/", "localhost", 404), ("/metrics", "a.b", 421)]
)
def test_nothing_else_is_answered(port, path, host, code):
    """No other path, and no page of a foreign name that somebody made to point here."""
    assert get(port, path, host)[0] == code


def test_who_says_nothing_holds_nobody_up(port):
    """A connection that stays silent is dropped within seconds; the next scrape is served."""
    with socket.create_connection(("127.0.0.1", port)):
        assert get(port)[0] == 200


def test_who_drips_is_cut_off(port):
    """Byte by byte a request would hold the one thread for ever, and the watchdog end the kiosk."""
    pause = threading.Event()
    with socket.create_connection(("127.0.0.1", port), HANG_S) as slow:
        with contextlib.suppress(OSError):
            for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20:
                slow.sendall(bytes([byte]))
                pause.wait(0.5)
        assert slow.recv(1) == b""
    assert get(port)[0] == 200


def test_a_taken_port_is_named():
    """What is to be done stands in the error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"metrics.port = {number}: expected a free port"):
            MetricsPort(number, status, beat=lambda *_: None)
