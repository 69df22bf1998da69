import http.client
import socket

import pytest

from kiosk.feedback import web

HANG_S = 20.0


@pytest.fixture
def get(port):
    """GET with exactly these headers besides a Host; returns status, headers, body."""

    def ask(path, host="127.0.0.1", method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
        connection.putrequest(method, path, skip_host=True)
        for value in [host] if isinstance(host, str) else host:
            connection.putheader("Host", value)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        reply = connection.getresponse()
        # A stream has no end to read to.
        body = b"" if reply.getheader("Content-Type") == "text/event-stream" else reply.read()
        reply.close()
        connection.close()
        return reply.status, reply.headers, body

    return ask


@pytest.fixture
def raw(port):
    """Send bytes as they are; returns all that comes back."""

    def send(data):
        with socket.create_connection(("127.0.0.1", port), HANG_S) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    return send


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/", "text/html"), ("/?x=1", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/j")],
)
def test_the_files_are_served(open_page, get, path, media_type):
    """The page and what it is made of come from the package itself."""
    open_page()
    status, headers, body = get(path)
    assert status == 200
    assert headers["Content-Type"].startswith(media_type)
    assert len(body) == int(headers["Content-Length"]) > 100


@pytest.mark.parametrize("path", ["/", "/page.js", "/events", "/nothing"])
def test_every_answer_carries_the_guards(open_page, get, path):
    """Nothing is cached, nothing foreign is loaded, nothing may frame the page."""
    open_page()
    _, headers, _ = get(path)
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


def test_no_file_names_another_host(open_page, get):
    """The page works without a network and tells nobody that it was opened."""
    open_page()
    for path in ("/", "/page.css", "/page.js"):
        assert b"//" not in get(path)[2].replace(b"    // ", b"").replace(b"\n// ", b"")


@pytest.mark.parametrize(
    "path", ["/page.py", "/../page.py", "/%2e%2e/page.py", "/events/", "/favicon.ico", "*"]
)
def test_everything_else_is_not_found(open_page, get, path):
    """There is no path to any other file."""
    open_page()
    assert get(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"])
def test_nothing_but_get_is_understood(open_page, get, method):
    """The page takes no input."""
    open_page()
    assert get("/", method=method)[0] == 501


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8321", "LocalHost", "[::1]:99", "127.0.0.1:1"]
)
def test_a_loopback_host_is_served(open_page, get, host):
    """Every name of this machine itself is good, through a forwarded port too."""
    open_page()
    assert get("/", host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8321",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "192.168.1.7",
        "",
        "localhost:evil",
        "localhost@evil.example",
        [],
        ["localhost", "evil.example"],
    ],
)
@pytest.mark.parametrize("path", ["/", "/events", "/nothing"])
def test_a_foreign_host_is_refused(open_page, get, host, path):
    """A web site whose name was made to point here (DNS rebinding) reads nothing."""
    open_page()
    assert get(path, host=host)[0] == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_cannot_open_streams(open_page, get, site):
    """A page elsewhere must not push the real screen out of the bounded set."""
    open_page()
    assert get("/events", Sec_Fetch_Site=site)[0] == 421
    assert get("/events", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.x\r\n\r\n",
        b"GET  /  HTTP/1.1 extra\r\n\r\n",
        "GET /ü HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\0\r\n\r\n",
        b"\xff" * 1000 + b"\r\n\r\n",
    ],
)
def test_garbage_is_refused_and_harms_nothing(open_page, raw, get, data):
    """Whatever comes in is refused or dropped, no thread dies of it, the page goes on."""
    open_page()
    assert b" 200 " not in raw(data).partition(b"\r\n")[0]
    assert get("/")[0] == 200


def test_a_request_line_is_bounded(open_page, raw):
    """A request line over the bound is not even parsed."""
    open_page()
    path = b"/" + b"x" * web.MAX_REQUEST_LINE
    assert raw(b"GET " + path + b" HTTP/1.0\r\n")[:12] == b"HTTP/1.0 414"
    short = b"/" + b"x" * (web.MAX_REQUEST_LINE - 100)
    head = raw(b"GET " + short + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert head[:12] == b"HTTP/1.0 404"


def test_connections_are_bounded(open_page, port, get, monkeypatch):
    """Each connection costs a thread: one too many is dropped, and room is made again."""
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    open_page()
    held = [socket.create_connection(("127.0.0.1", port), HANG_S) for _ in range(3)]
    assert held[2].recv(1) == b""
    for connection in held[:2]:
        connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"".join(iter(lambda c=connection: c.recv(65536), b"")).startswith(b"HTTP/1.0 200")
    for connection in held:
        connection.close()
    assert any(served(get) for _ in range(1000))


def served(get):
    """Whether there was room: a thread ends shortly after its client has read everything."""
    try:
        return get("/")[0] == 200
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return False


def test_only_loopback_listens(open_page, port):
    """The page cannot be reached from the network."""
    open_page()
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))
