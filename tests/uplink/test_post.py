"""One exchange with a server that may do anything."""

import gzip
import json
import socket
import threading
from pathlib import Path

import pytest

from kiosk.errors import LinkDownError, OutboxFullError, UplinkPausedError
from kiosk.uplink.post import MAX_REPLY_BYTES

OPEN_FILES = Path("/proc/self/fd")
PORTAL = b"<html><title>Welcome to Free Wi-Fi</title></html>"


def sends(*parts):
    """An answer: these bytes, then the end of the connection."""

    def answer(connection, _):
        for part in parts:
            connection.sendall(part)

    return answer


def never(connection, _):
    """An answer that never comes: wait until the client has left."""
    connection.recv(1)


def resets(connection, _):
    """An answer that is a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_the_request_is_what_the_wire_says(server, poster, envelope):
    """Path, headers and body; the idempotency key is the event id."""
    body = poster(f"{server.url}/base/").send(envelope)
    assert json.loads(body) == {"A1": envelope.event_id, "S1": "ok"}
    (request,) = server.requests
    assert request.line == "POST /base/toon/attendance HTTP/1.1"
    assert request.body == envelope.body
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == envelope.event_id
    assert request.headers["user-agent"].startswith("face-kiosk/")
    assert "authorization" not in request.headers


def test_the_connection_is_kept(server, poster, envelope):
    """One handshake for many events."""
    one = poster(server.url)
    for _ in range(3):
        one.send(envelope)
    assert len({request.port for request in server.requests}) == 1


def test_a_connection_closed_in_between_is_made_anew(server, poster, envelope, tell):
    """A server that hangs up after each reply is no failure."""
    server.answers = [sends(tell.reply(body=b"{}", Connection="close"))] * 2
    one = poster(server.url)
    for _ in range(3):
        one.send(envelope)
    assert len({request.port for request in server.requests}) == 3


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content"])
def test_any_2xx_is_handed_on(server, poster, envelope, tell, status):
    """Whether it is a receipt is not for the post to say: a portal's page comes through too."""
    body = b"" if status.startswith("204") else PORTAL
    server.answers = [sends(tell.reply(status, body))]
    reply = poster(server.url).post(lambda: [envelope], is_batch=False)
    (answer,) = reply.answers()
    assert (answer.body, answer.refused, answer.envelope) == (body, False, envelope)


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Content"])
def test_a_refusal_is_handed_on_with_its_body(server, poster, envelope, tell, status):
    """A status proves nothing: what came with it must show whose word it is."""
    server.answers = [sends(tell.reply(status, PORTAL))]
    reply = poster(server.url).post(lambda: [envelope], is_batch=False)
    (answer,) = reply.answers()
    assert (answer.body, answer.refused) == (PORTAL, True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("500 Internal Server Error", LinkDownError),
        ("503 Service Unavailable", LinkDownError),
        ("429 Too Many Requests", LinkDownError),
        ("413 Content Too Large", UplinkPausedError),
        ("401 Unauthorized", UplinkPausedError),
        ("404 Not Found", UplinkPausedError),
        ("409 Conflict", UplinkPausedError),
    ],
)
def test_statuses_become_errors(server, poster, envelope, tell, status, error):
    """The table of statuses is applied, and the body of a refusal is not repeated in it."""
    server.answers = [sends(tell.reply(status, b"secret words"))]
    with pytest.raises(error) as caught:
        poster(server.url).send(envelope)
    assert "secret" not in str(caught.value)


def test_retry_after_arrives(server, poster, envelope, tell):
    """What the server asks for is in the error."""
    server.answers = [sends(tell.reply("503 Busy", b"", Retry_After="33"))]
    with pytest.raises(LinkDownError) as caught:
        poster(server.url).send(envelope)
    assert caught.value.min_delay_s == 33.0


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("location", ["/elsewhere", "\xff\xfe", ""])
def test_a_redirect_is_not_followed(server, serve, poster, envelope, tell, status, location):
    """Not to the same server, not to another, and not tripped over when it is malformed."""
    elsewhere = serve()
    target = location.replace("/elsewhere", f"{elsewhere.url}/login")
    server.answers = [sends(tell.reply(status, b"", Location=target))]
    with pytest.raises(UplinkPausedError, match=status[:3]):
        poster(server.url).send(envelope)
    assert len(server.requests) == 1
    assert elsewhere.requests == []


def test_a_redirects_body_is_not_read(server, poster, envelope, tell):
    """An endless page behind a redirect costs neither memory nor time."""
    sent = []

    def endless(connection, _):
        head = tell.reply("302 Found", b"", Location="/", Content_Length=str(10**12))
        connection.sendall(head)
        while True:
            connection.sendall(bytes(65_536))
            sent.append(65_536)

    server.answers = [endless]
    with pytest.raises(UplinkPausedError):
        poster(server.url).send(envelope)
    server.close()
    assert sum(sent) < 20_000_000


@pytest.mark.parametrize("counted", [True, False])
def test_a_huge_reply_is_cut(server, poster, envelope, tell, counted):
    """More than 64 KiB is no receipt, whether its length is announced or not."""

    def huge(connection, _):
        length = {"Content_Length": str(10**9)} if counted else {"Transfer_Encoding": "chunked"}
        head = tell.reply("200 OK", b"", **length)
        if not counted:
            head = head.replace(b"Content-Length: 0\r\n", b"")
        connection.sendall(head)
        while True:
            connection.sendall((b"" if counted else b"8000\r\n") + bytes(0x8000))
            connection.sendall(b"" if counted else b"\r\n")

    server.answers = [huge]
    with pytest.raises(LinkDownError, match=f"more than {MAX_REPLY_BYTES} bytes"):
        poster(server.url).send(envelope)


def test_a_packed_bomb_is_cut(server, poster, envelope, tell):
    """What unpacks to more than 64 KiB is cut as well, although nobody asked for packing."""
    packed = gzip.compress(bytes(50_000_000))
    server.answers = [sends(tell.reply("200 OK", packed, Content_Encoding="gzip"))]
    with pytest.raises(LinkDownError, match="more than"):
        poster(server.url).send(envelope)
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "part",
    ["status line", "header", "body", "body without a length"],
)
def test_a_slow_drip_ends_at_the_limit(server, poster, envelope, part):
    """A byte now and then resets every timeout of a single read; the whole has a limit too."""
    parts = {
        "status line": b"HTTP/1.1 2",
        "header": b"HTTP/1.1 200 OK\r\nX-Filler: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n",
        "body without a length": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    }
    pause = threading.Event()

    def drip(connection, _):
        connection.sendall(parts[part])
        while not pause.wait(0.02):
            connection.sendall(b"0")

    server.answers = [drip]
    one = poster(server.url, connect_timeout_s=0.2, read_timeout_s=0.2)
    try:
        with pytest.raises(LinkDownError, match=r"no whole reply within 0\.4 s"):
            one.send(envelope)
    finally:
        pause.set()


def test_a_server_that_never_answers(server, poster, envelope):
    """The read timeout ends it."""
    server.answers = [never]
    with pytest.raises(LinkDownError, match=r"[Tt]ime"):
        poster(server.url, read_timeout_s=0.2).send(envelope)


@pytest.mark.parametrize(
    "answer",
    [
        sends(),
        resets,
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
        sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
        sends(b"HTTP/1.1 two hundred\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"),
    ],
    ids=[
        *("closed", "reset", "cut", "chunk", "lengths"),
        *("gzip", "ssh", "status", "headers", "line"),
    ],
)
def test_what_is_no_http_reply_is_a_link_that_is_down(server, poster, envelope, answer):
    """Broken off, reset, contradictory, or another protocol: try again, and nothing else."""
    server.answers = [answer]
    one = poster(server.url)
    with pytest.raises(LinkDownError, match="expected a reply of"):
        one.send(envelope)
    assert json.loads(one.send(envelope))["S1"] == "ok"


def test_after_a_broken_exchange_the_connection_is_a_new_one(server, poster, envelope):
    """A reply that cannot be read was read to its end; what else that connection holds is open."""

    def contradicts_and_stays(connection, _):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n"
        connection.sendall(head + b"{}")
        return True

    server.answers = [contradicts_and_stays]
    one = poster(server.url)
    with pytest.raises(LinkDownError):
        one.send(envelope)
    one.send(envelope)
    assert len({request.port for request in server.requests}) == 2


def test_nothing_listens(poster, envelope):
    """A server that is down is named with the system's own reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LinkDownError, match="Connection refused"):
        poster(f"http://127.0.0.1:{port}").send(envelope)


def test_a_name_that_does_not_resolve(poster, envelope, monkeypatch):
    """No name service: the link is down, with the resolver's own words."""

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LinkDownError, match="Name or service not known"):
        poster("http://attendance.invalid").send(envelope)


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "..", "\u2603.invalid", "[::1", "a b"])
def test_what_is_no_host_name(poster, envelope, host):
    """A slip in the configuration ends no thread."""
    with pytest.raises(LinkDownError, match="expected a reply of"):
        poster(f"http://{host}").send(envelope)


def test_the_second_address_is_tried(server, poster, envelope, monkeypatch):
    """A name with a dead address in front still reaches the live one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    both = [(*kind, ("127.0.0.1", dead)), (*kind, ("127.0.0.1", server.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert poster("http://attendance.invalid").send(envelope)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "NETRC"])
def test_the_environment_has_no_say(
    server, serve, poster, envelope, monkeypatch, tmp_path, variable
):
    """Neither a proxy nor a password comes from outside the configuration."""
    other = serve()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(variable, str(netrc) if variable == "NETRC" else other.url)
    poster(server.url).send(envelope)
    assert other.requests == []
    assert "authorization" not in server.requests[0].headers


def test_cookies_are_not_kept(server, poster, envelope, tell):
    """A portal cannot mark the kiosk."""
    server.answers = [sends(tell.reply("200 OK", b"{}", Set_Cookie="id=1; Path=/"))]
    one = poster(server.url)
    one.send(envelope)
    one.send(envelope)
    assert "cookie" not in server.requests[1].headers


def test_nothing_is_tried_twice_inside(server, poster, envelope, tell):
    """Attempts are counted outside, each on disk first: one post is at most one request."""
    server.answers = [resets, sends(tell.reply("503 Busy")), sends()]
    one = poster(server.url)
    for number in (1, 2, 3):
        with pytest.raises(LinkDownError):
            one.send(envelope)
        assert len(server.requests) == number


def test_no_descriptor_is_left_behind(server, poster, envelope, tell):
    """Each way to end a post gives its sockets back."""
    one = poster(server.url)
    one.send(envelope)
    before = len(list(OPEN_FILES.iterdir()))
    for _ in range(5):
        server.answers = [resets]
        with pytest.raises(LinkDownError):
            one.send(envelope)
    one.send(envelope)
    one.close()
    server.close()
    assert len(list(OPEN_FILES.iterdir())) <= before


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        CHUNKED + b"-1\r\n",
        CHUNKED + b"fffffffffff\r\n",
        CHUNKED + b"1;",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    ],
)
def test_no_length_in_a_reply_is_believed(server, poster, envelope, head):
    """However a reply tells its length, no more than its bound is taken from the socket."""
    taken = []

    def endless(connection, _):
        connection.sendall(head)
        piece = head if head.startswith(b"HTTP/1.1 100") else b"x" * 65_536
        taken.append(0)
        while taken[0] < 100_000_000:
            # Fails once the client has left.
            taken[0] += connection.send(piece)

    server.answers = [endless]
    with pytest.raises((LinkDownError, UplinkPausedError)):
        poster(server.url).send(envelope)
    server.close()
    # The bound, and what the system's own buffers hold in between.
    assert taken[0] < 20_000_000


def test_the_letter_is_asked_for_only_when_the_connection_stands(server, poster, envelope):
    """Nothing listens, no letter; connected, one letter, before the first byte is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    asked = []

    def letter():
        asked.append(server.accepted.wait(5.0))
        assert server.requests == []
        return [envelope]

    with pytest.raises(LinkDownError):
        poster(f"http://127.0.0.1:{port}").post(letter, is_batch=False)
    assert asked == []
    assert poster(server.url).post(letter, is_batch=False).status == 200
    assert asked == [True]


def test_without_a_letter_nothing_is_sent(server, poster, envelope):
    """What waited was set aside meanwhile: no request goes out, and the next one does."""
    one = poster(server.url)
    assert one.post(list, is_batch=False) is None
    assert one.send(envelope)
    assert len(server.requests) == 1


def test_what_the_letter_raises_comes_through(server, poster, envelope):
    """A full disk while the body is frozen is no failure of the link."""

    def letter():
        raise OutboxFullError("no space")

    one = poster(server.url)
    with pytest.raises(OutboxFullError):
        one.post(letter, is_batch=False)
    assert one.send(envelope)
    assert len(server.requests) == 1
